"""Names that prompts bring to a model without classes of its own, in every output."""

import csv
import json

import geopandas as gpd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_factory import write_series
from shapely.geometry import box
from tiny_rasters import PLACE, picture, write_features, write_raster
from tiny_scans import SHAPE, affine, ball, save

from samonai.core.errors import InputError
from samonai.domains.medical import MedicalDomain, Volume
from samonai.domains.medical.objects.segments import segment_code
from samonai.domains.satellite.features import load
from samonai.workflows.run import predict
from samonai.workflows.session import Session


def test_names_of_boxes_reach_seg_report_and_tables(tmp_path) -> None:
    series = write_series(tmp_path / "scan", np.full((3, 24, 24), 1000, np.int16))
    boxes = tmp_path / "boxes.json"
    content = {"boxes": [[2, 2, 0, 9, 9, 2], [12, 12, 1, 20, 20, 3]], "classes": ["spleen", "cyst"]}
    boxes.write_text(json.dumps(content))
    written = predict(
        "micro", series.folder, boxes, tmp_path / "out", formats=["dicom-seg", "nrrd"], measure=True
    )
    by_ending = {"".join(path.suffixes[-2:]): path for path in written}
    segments = pydicom.dcmread(by_ending[".seg.dcm"]).SegmentSequence
    assert [one.SegmentLabel for one in segments] == ["spleen", "cyst"]
    spleen = segments[0].SegmentedPropertyTypeCodeSequence[0]
    assert (spleen.CodingSchemeDesignator, spleen.CodeValue) == ("SCT", "78961009")
    found = sitk.ReadImage(str(by_ending[".seg.nrrd"]))
    assert found.GetMetaData("Segment0_Name") == "spleen"
    assert found.GetMetaData("Segment1_LabelValue") == "2"
    table = next(path for path in written if path.suffix == ".csv")
    with table.open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["spleen", "cyst"]
    assert "spleen" in str(pydicom.dcmread(by_ending[".sr.dcm"]).ContentSequence)


def test_names_are_numbered_once_for_all_cases(tmp_path) -> None:
    for seed, case in enumerate(("a", "b")):
        save(tmp_path / "images" / f"{case}.nii.gz", ball(seed)[0], affine(seed))
    given = {"a": ["liver"], "b": ["spleen", "liver"]}
    cases = {
        case: {
            "boxes": [[4, 4, 0, 20, 16, 2], [6, 6, 1, 12, 12, 2]][: len(names)],
            "classes": names,
        }
        for case, names in given.items()
    }
    (tmp_path / "boxes.json").write_text(json.dumps({"cases": cases}))
    session = Session("micro")
    prompts, domain = session.prompts(tmp_path / "boxes.json", several=True)
    for case in session.cases(tmp_path / "images"):
        source = domain.read(case)
        found = prompts(domain, case, source)[1]
        names = prompts.classes(domain, case)
        assert names == {1: "liver", 2: "spleen"}
        assert [names[value] for value in found.classes.tolist()] == given[case.case_id]


def test_structures_of_a_coarse_label_keep_their_names(tmp_path) -> None:
    scan = save(tmp_path / "scan.nii.gz", *(ball(0)[0], affine(0)))
    for name, low in (("liver", 2), ("cyst", 12)):
        mask = np.zeros(SHAPE, np.uint8)
        mask[low : low + 6, 4:12, 1] = 1
        save(tmp_path / "coarse" / f"{name}.nii.gz", mask, affine(0))
    prediction = Session("micro").predict(scan, tmp_path / "coarse")
    assert prediction.facts.classes == {1: "cyst", 2: "liver"}
    assert prediction.prompts[1].classes.tolist() == [1, 2]


@pytest.mark.parametrize("ending", ["geojson", "gpkg"])
def test_names_of_a_column_reach_the_polygons(tmp_path, ending) -> None:
    raster = write_raster(tmp_path / "scene.tif", picture(64, 64))
    x, y = PLACE @ (20, 20)
    areas = [box(x, y - 10, x + 10, y), box(x + 11, y - 10, x + 16, y)]
    path = write_features(tmp_path / f"trees.{ending}", areas, **{"class": ["tree", "roof"]})
    out = tmp_path / "out"
    predict("micro", raster, path, out, domain="satellite", formats=["geojson"])
    polygons = gpd.read_file(next(out.glob("*.geojson")))
    assert set(polygons["name"]) <= {"tree", "roof"}
    assert len(polygons)


def test_a_known_name_has_a_code_and_an_unknown_one_none() -> None:
    assert segment_code("spleen").type == ("78961009", "Spleen")
    assert segment_code("thing of mine").type == ("85756007", "Tissue")


def test_unknown_names_of_a_run_are_still_refused(tmp_path) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"boxes": [[0, 0, 0, 2, 2, 2]], "classes": ["spleen"]}))
    volume = Volume(np.zeros((4, 4, 3), np.float32), np.eye(4), "s")
    with pytest.raises(InputError, match="class 'spleen' is not known; known are liver"):
        MedicalDomain().read_boxes(volume, path, class_names={1: "liver"})


def test_a_package_of_several_layers_is_refused(tmp_path) -> None:
    path = tmp_path / "layers.gpkg"
    for layer in ("trees", "roofs"):
        frame = gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs="EPSG:32616")
        frame.to_file(path, layer=layer, engine="pyogrio")
    with pytest.raises(InputError, match="holds 2 layers with geometries"):
        load(path)
