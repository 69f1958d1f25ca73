"""Prompts drawn in other tools: what each tool's documented file means on a scan, page, raster."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_factory import write_series
from document_factory import block_page, save_picture
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, generate_uid
from tiny_rasters import picture, write_raster

from samonai.core.errors import InputError
from samonai.domains import get_domain
from samonai.domains.base import Case
from samonai.domains.medical import MedicalDomain, Volume
from samonai.domains.medical.volume import FormatFacts

SHAPE = (20, 16, 6)
# Flipped, anisotropic and shifted, as scans are.
AFFINE = np.array([[-0.5, 0, 0, 40], [0, -2.0, 0, 30], [0, 0, 3.0, -10], [0, 0, 0, 1]])
TURN = np.deg2rad(20)
TURNED = np.array(
    [[np.cos(TURN), -np.sin(TURN), 0], [np.sin(TURN), np.cos(TURN), 0], [0, 0, 1]], float
)


def volume(affine: np.ndarray = AFFINE, **other: Any) -> Volume:
    return Volume(np.zeros(SHAPE, np.float32), affine, "scan", **other)


def lps(index: Any) -> list[float]:
    """Return the position in LPS of a voxel index, by nibabel."""
    return (nib.affines.apply_affine(AFFINE, index) * (-1, -1, 1)).tolist()


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def markups(*given: dict[str, Any], system: str = "LPS", unit: Any = "mm") -> dict[str, Any]:
    schema = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/"
    return {
        "@schema": schema + "Resources/Schema/markups-schema-v1.0.3.json#",
        "markups": [
            {"coordinateSystem": system, "coordinateUnits": unit, "locked": False, **one}
            for one in given
        ],
    }


def roi(**other: Any) -> dict[str, Any]:
    """Return an ROI around voxels 4 to 9, 3 to 6, 2 to 3: edges 4..10, 3..7, 2..4."""
    return {
        "type": "ROI",
        "roiType": "Box",
        "center": lps([6.5, 4.5, 2.5]),
        "orientation": [-1, 0, 0, 0, -1, 0, 0, 0, 1],
        "size": [6 * 0.5, 4 * 2.0, 2 * 3.0],
        "controlPoints": [],
        **other,
    }


def points(*indices: Any, label: str = "F-{}") -> list[dict[str, Any]]:
    return [
        {"id": str(n), "label": label.format(n), "position": lps(one), "positionStatus": "defined"}
        for n, one in enumerate(indices, 1)
    ]


def read(path: Path, source: Volume, axis: int = 2, names: Any = None) -> Any:
    domain = MedicalDomain(axis=axis)
    names = domain.prompt_classes([path]) if names is None else names
    return domain.read_boxes(source, path, class_names=names), names


@pytest.mark.conformance(
    domain="medical",
    condition="An ROI of 3D Slicer on a flipped, anisotropic scan",
    source="Slicer markups-schema 1.0.3 (center, orientation, size; LPS, mm)",
    right="the box on the slices that it covers, its class the file's name",
    reader="nibabel 5.4.2",
    severity=1,
)
def test_an_roi_of_3d_slicer_is_a_box_on_its_slices(tmp_path) -> None:
    path = write(tmp_path / "spleen.mrk.json", markups(roi()))
    prompts, names = read(path, volume())
    assert names == {1: "spleen"}
    assert list(prompts) == [2, 3]
    np.testing.assert_allclose(prompts[2].boxes, [[4, 3, 10, 7]], atol=1e-4)
    assert prompts[2].classes.tolist() == [1]


def test_an_roi_in_ras_is_the_same_box(tmp_path) -> None:
    centre = nib.affines.apply_affine(AFFINE, [6.5, 4.5, 2.5]).tolist()
    path = write(tmp_path / "R.mrk.json", markups(roi(center=centre), system="RAS"))
    prompts, names = read(path, volume())
    assert names == {}
    np.testing.assert_allclose(prompts[3].boxes, [[4, 3, 10, 7]], atol=1e-4)


@pytest.mark.conformance(
    domain="medical",
    condition="An ROI of 3D Slicer that is turned to the voxels",
    source="Slicer markups-schema 1.0.3 (orientation)",
    right="the section of the box with each slice",
    reader="none (geometry by hand)",
    severity=1,
)
def test_a_turned_roi_is_cut_slice_by_slice(tmp_path) -> None:
    """Its axes are those of the patient, the scan's are turned: each slice has its own section."""
    affine = np.eye(4)
    affine[:3, :3] = TURNED
    centre = nib.affines.apply_affine(affine, [10, 8, 2.5])
    given = roi(center=(centre * (-1, -1, 1)).tolist(), size=[4, 4, 2],
                orientation=np.eye(3).ravel().tolist())  # fmt: skip
    prompts, _ = read(write(tmp_path / "R.mrk.json", markups(given)), volume(affine))
    assert list(prompts) == [2, 3]
    half = 2 * (np.cos(TURN) + np.sin(TURN))  # of a square's bounding box, turned
    expected = [10.5 - half, 8.5 - half, 10.5 + half, 8.5 + half]
    np.testing.assert_allclose(prompts[3].boxes, [expected], atol=1e-4)


def test_fiducials_of_3d_slicer_are_clicks_by_their_labels(tmp_path) -> None:
    found = points([3, 4, 2], [6, 5, 2]) + points([9, 9, 4], label="kidney-{}")
    path = write(tmp_path / "F.mrk.json", markups({"type": "Fiducial", "controlPoints": found}))
    names = {1: "spleen", 2: "kidney"}
    with pytest.raises(InputError, match="an object without a class, and there are several"):
        read(path, volume(), names=names)
    path = write(
        tmp_path / "spleen.mrk.json", markups({"type": "Fiducial", "controlPoints": found})
    )
    prompts, _ = read(path, volume(), names=names)
    np.testing.assert_allclose(prompts[2].point_coords, [[[3.5, 4.5], [6.5, 5.5]]], atol=1e-4)
    assert prompts[4].classes.tolist() == [2]
    assert read(path, volume())[1] == {1: "spleen", 2: "kidney"}


@pytest.mark.conformance(
    domain="medical",
    condition="A closed curve of 3D Slicer, drawn on one slice",
    source="Slicer markups-schema 1.0.3 (controlPoints)",
    right="the box around it on its slice; refused across another axis",
    reader="nibabel 5.4.2",
    severity=1,
)
def test_a_closed_curve_is_boxed_on_its_slice(tmp_path) -> None:
    curve = {"type": "ClosedCurve", "controlPoints": points([3, 4, 2], [8, 4.5, 2], [6, 9, 2])}
    path = write(tmp_path / "CC.mrk.json", markups(curve))
    prompts, _ = read(path, volume())
    assert list(prompts) == [2]
    np.testing.assert_allclose(prompts[2].boxes, [[3.5, 4.5, 8.5, 9.5]], atol=1e-4)
    with pytest.raises(InputError, match="it lies on one across axis 2: --set axis=2"):
        read(path, volume(), axis=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (markups(roi(), unit="um"), "coordinateUnits 'um'; expected mm"),
        (markups(roi(), system="IJK"), "coordinateSystem 'IJK'; expected LPS or RAS"),
        (markups(roi(size=[1, 0, 1])), "a size above 0"),
        (markups(roi(insideOut=True)), "turned inside out"),
        (markups(roi(center=[500, 0, 0])), "no part of the box lies in scan"),
        (markups({"type": "Line", "controlPoints": points([1, 1, 1])}), "1 Line; expected an ROI"),
        (
            markups({"type": "Fiducial", "controlPoints": points([1, 1, 90])}),
            "lies beside scan of 20x16x6 voxels",
        ),
    ],
)
def test_markups_without_a_clear_place_are_refused(tmp_path, content, message) -> None:
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / "R.mrk.json", content), volume())


@pytest.mark.conformance(
    domain="medical",
    condition="Boxes in mm, LPS",
    source="docs/prompt_files.md",
    right="the voxels that they enclose; refused on a grid without mm",
    reader="nibabel 5.4.2",
    severity=1,
)
def test_boxes_in_mm_are_those_in_voxels(tmp_path) -> None:
    ends = np.array([lps([3.5, 2.5, 1.5]), lps([9.5, 6.5, 3.5])])
    row = [*ends.min(0), *ends.max(0)]
    content = {"coordinates": "LPS", "boxes": [row], "classes": ["spleen"]}
    json_file = write(tmp_path / "b.json", content)
    columns = "x0,y0,z0,x1,y1,z1,coordinates,class\n"
    csv_file = write(tmp_path / "b.csv", columns + ",".join(map(str, row)) + ",LPS,spleen\n")
    for path in (json_file, csv_file):
        prompts, names = read(path, volume())
        assert names == {1: "spleen"}
        assert list(prompts) == [2, 3]
        np.testing.assert_allclose(prompts[2].boxes, [[4, 3, 10, 7]], atol=1e-4)
    uncalibrated = volume(facts=FormatFacts("dicom", uncalibrated="no pixel size"))
    with pytest.raises(InputError, match="positions in mm, but its grid has none"):
        read(json_file, uncalibrated)
    with pytest.raises(InputError, match='"coordinates": "LPS" or "RAS"'):
        read(write(tmp_path / "b.json", {**content, "coordinates": "mm"}), volume())


@pytest.mark.conformance(
    domain="medical",
    condition="A .seg.nrrd that 3D Slicer cropped to its segments",
    source="Slicer segmentations: SegmentN_Name, LabelValue, Layer in the NRRD header",
    right="the voxels of the image's grid, classes of a run by name",
    reader="SimpleITK 2.5.7",
    severity=1,
)
def test_a_segmentation_of_3d_slicer_prompts_where_it_was_cropped_from(tmp_path) -> None:
    part = np.zeros((4, 3, 2), np.uint8)
    part[1:3, 1, 0], part[3, 2, 1] = 2, 7
    image = sitk.GetImageFromArray(part.transpose(2, 1, 0))
    image.SetOrigin(lps([5, 6, 1]))
    image.SetSpacing((0.5, 2.0, 3.0))
    image.SetDirection([1, 0, 0, 0, 1, 0, 0, 0, 1])  # LPS of AFFINE's directions
    for number, (value, name) in enumerate({2: "spleen", 7: "cyst"}.items()):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(value))
        image.SetMetaData(f"Segment{number}_Layer", "0")
    path = tmp_path / "scan.seg.nrrd"
    sitk.WriteImage(image, str(path))
    domain = MedicalDomain()
    assert domain.prompt_classes([path]) == {2: "spleen", 7: "cyst"}
    label = domain.with_label(volume(), path).label
    assert np.argwhere(label == 2).tolist() == [[6, 7, 1], [7, 7, 1]]
    assert np.argwhere(label == 7).tolist() == [[8, 8, 2]]
    # A run's classes are matched by name, not by value.
    known = MedicalDomain(structures={"cyst": 1, "liver": 2}).with_label(volume(), path).label
    assert np.argwhere(known).tolist() == [[8, 8, 2]]
    with pytest.raises(InputError, match="none of the classes known here"):
        MedicalDomain(structures={"liver": 2}).with_label(volume(), path)


def test_labels_of_itk_snap_have_the_names_of_its_description(tmp_path) -> None:
    label = np.zeros(SHAPE, np.uint8)
    label[4:6, 3:5, 2] = 1
    nib.save(nib.Nifti1Image(label, AFFINE), tmp_path / "scan.nii.gz")
    write(
        tmp_path / "scan.label",
        "################################################\n"
        "# ITK-SnAP Label Description File\n"
        "# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL\n"
        '    0     0    0    0        0  0  0    "Clear Label"\n'
        '    1   255    0    0        1  1  1    "left hippocampus"\n'
        '    2     0  255    0        1  1  1    "Label 2"\n',
    )
    found = MedicalDomain().prompt_classes([tmp_path / "scan.nii.gz"])
    assert found == {1: "left hippocampus"}


def item(kind: str, concept: tuple[str, str, str], **values: Any) -> Dataset:
    """Return an SR content item."""
    found = Dataset()
    found.ValueType = kind
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = concept
    found.ConceptNameCodeSequence = [code]
    for name, value in values.items():
        setattr(found, name, value)
    return found


def report(path: Path, groups: list[list[Dataset]]) -> Path:
    """Write a structured report with one measurement group per list, as OHIF nests them."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    found = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    found.SOPClassUID, found.SOPInstanceUID = ComprehensiveSRStorage, generate_uid()
    found.Modality = "SR"
    inner = [
        item("CONTAINER", ("125007", "DCM", "Measurement Group"), ContentSequence=group)
        for group in groups
    ]
    outer = item("CONTAINER", ("126010", "DCM", "Imaging Measurements"), ContentSequence=inner)
    found.ContentSequence = [outer]
    found.save_as(path, enforce_file_format=True)
    return path


def finding(name: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "x", "99TEST", name
    return item("CODE", ("121071", "DCM", "Finding"), ConceptCodeSequence=[code])


def on_image(kind: str, data: list[float], uid: str) -> Dataset:
    """Return a measurement from coordinates in pixels of an image."""
    image, reference = Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.3", uid
    image.ValueType, image.RelationshipType = "IMAGE", "SELECTED FROM"
    image.ReferencedSOPSequence = [reference]
    place = item("SCOORD", ("111030", "DCM", "Image Region"), GraphicType=kind)
    place.GraphicData, place.ContentSequence = data, [image]
    return item("NUM", ("42798000", "SCT", "Area"), ContentSequence=[place])


@pytest.mark.conformance(
    domain="medical",
    condition="DICOM SR with regions in pixels and in mm, repeated measurements, a length",
    source="PS3.16 TID 1500, TID 1410; PS3.3 C.18.6, C.18.9",
    right="boxes and clicks on their slices, a region once, no lengths; other series refused",
    reader="pydicom 3.0.2",
    severity=1,
)
def test_measurements_of_a_report_prompt_their_slices(tmp_path) -> None:
    series = write_series(tmp_path / "scan")  # 6 slices of 5 x 4 pixels
    headers = [pydicom.dcmread(path) for path in sorted(series.folder.iterdir())]
    in_mm = item("SCOORD3D", ("111030", "DCM", "Image Region"), GraphicType="POLYGON")
    position = np.array(headers[4].ImagePositionPatient, float)
    corners = [
        position + np.array([x * 0.7, y * 0.8, 0])
        for x, y in ((0, 1), (2, 1), (2, 3), (0, 3), (0, 1))
    ]
    in_mm.GraphicData = np.concatenate(corners).tolist()
    in_mm.ReferencedFrameOfReferenceUID = headers[0].FrameOfReferenceUID
    square = [1.0, 1.0, 3.0, 1.0, 3.0, 4.0, 1.0, 4.0, 1.0, 1.0]
    length = on_image("POLYLINE", [0.0, 0.0, 3.0, 3.0], headers[0].SOPInstanceUID)
    path = report(
        tmp_path / "sr.dcm",
        [
            # Two measurements of one region are one prompt.
            [finding("cyst"), *[on_image("POLYLINE", square, headers[2].SOPInstanceUID)] * 2],
            [finding("spleen"), in_mm],
            [finding("diameter"), length],
            [finding("cyst"), on_image("POINT", [2.5, 1.5], headers[3].SOPInstanceUID)],
            [finding("cyst"), on_image("CIRCLE", [2.0, 2.0, 3.0, 2.0], headers[5].SOPInstanceUID)],
        ],
    )
    domain = MedicalDomain()
    scan = domain.read(Case("scan", series.folder))
    prompts, names = read(path, scan)
    assert names == {1: "cyst", 2: "spleen"}
    assert list(prompts) == [2, 3, 4, 5]
    assert prompts[2].boxes.tolist() == [[1, 1, 3, 4]]
    np.testing.assert_allclose(prompts[4].boxes, [[0.5, 1.5, 2.5, 3.5]], atol=1e-4)
    assert prompts[4].classes.tolist() == [2]
    assert prompts[3].point_coords.tolist() == [[[2.5, 1.5]]]
    assert prompts[5].boxes.tolist() == [[1, 1, 3, 3]]
    other = domain.read(Case("other", write_series(tmp_path / "other").folder))
    with pytest.raises(InputError, match="an image that is not in this series"):
        read(path, other)
    lines = report(tmp_path / "lines.dcm", [[finding("diameter"), length]])
    with pytest.raises(InputError, match="1 measurements, none of which outlines"):
        read(lines, scan, names={})


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<image id="0" name="other.png" width="9" height="9"><box label="x" xtl="1" ytl="1" xbr="2" ybr="2"/>
</image>
<image id="1" name="set/one.png" width="40" height="30">
<box label="cyst" occluded="0" xtl="4.00" ytl="5.00" xbr="14.50" ybr="11.00" z_order="0"></box>
<polygon label="spleen" points="20.0,3.0;30.0,4.0;25.0,12.0"></polygon>
<points label="cyst" points="6.5,20.5"></points>
<ellipse label="cyst" cx="20" cy="22" rx="4" ry="2"></ellipse>
<polyline label="vessel" points="1.0,1.0;5.0,5.0"></polyline>
</image></annotations>"""
LABELME = {
    "version": "5.5.0",
    "flags": {},
    "shapes": [
        {"label": "cyst", "points": [[14.5, 11.0], [4.0, 5.0]], "shape_type": "rectangle"},
        {
            "label": "spleen",
            "points": [[20.0, 3.0], [30.0, 4.0], [25.0, 12.0]],
            "shape_type": "polygon",
        },
        {"label": "cyst", "points": [[6.5, 20.5]], "shape_type": "point"},
        {"label": "cyst", "points": [[20.0, 22.0], [22.0, 22.0]], "shape_type": "circle"},
        {"label": "vessel", "points": [[1, 1], [5, 5]], "shape_type": "line"},
    ],
    "imagePath": "one.png",
    "imageData": None,
    "imageHeight": 30,
    "imageWidth": 40,
}


def per_cent(kind: str, value: dict[str, Any], label: str) -> dict[str, Any]:
    return {
        "type": kind,
        "from_name": "label",
        "to_name": "image",
        "original_width": 40,
        "original_height": 30,
        "image_rotation": 0,
        "value": {**value, kind: [label]},
    }


LABEL_STUDIO = [
    {
        "id": 7,
        "data": {"image": "/data/upload/1/0a1b2c3d-one.png"},
        "annotations": [
            {
                "was_cancelled": False,
                "result": [
                    per_cent(
                        "rectanglelabels",
                        {"x": 10, "y": 50 / 3, "width": 26.25, "height": 20, "rotation": 0},
                        "cyst",
                    ),
                    per_cent(
                        "polygonlabels", {"points": [[50, 10], [75, 40 / 3], [62.5, 40]]}, "spleen"
                    ),
                    per_cent("keypointlabels", {"x": 16.25, "y": 20.5 / 0.3, "width": 1}, "cyst"),
                    per_cent(
                        "ellipselabels",
                        {"x": 50, "y": 22 / 0.3, "radiusX": 10, "radiusY": 2 / 0.3},
                        "cyst",
                    ),
                ],
            }
        ],
    }
]
SHAPES_CSV = (
    "index,shape-type,vertex-index,axis-0,axis-1\n"
    "0,rectangle,0,4.5,3.5\n0,rectangle,1,4.5,14.0\n0,rectangle,2,10.5,14.0\n0,rectangle,3,10.5,3.5\n"
    "1,line,0,1,1\n1,line,1,5,5\n"
)
BOX, POLYGON = [4, 5, 14.5, 11], [20, 3, 30, 12]


@pytest.fixture
def small_picture(tmp_path) -> Path:
    return save_picture(tmp_path / "one.png", block_page(30, 40)[0])


@pytest.mark.conformance(
    domain="documents",
    condition="Exports of CVAT, LabelMe, Label Studio: boxes, polygons, points, ellipses",
    source="docs.cvat.ai XML format; labelme/utils/shape.py; labelstud.io task format",
    right="boxes around them and clicks in pixels, with their classes; lines left out",
    reader="none (format by its documentation)",
    severity=1,
)
@pytest.mark.parametrize("name", ["documents", "satellite", "medical"])
@pytest.mark.parametrize(
    ("file", "content", "round_box"),
    [
        ("annotations.xml", CVAT, [16, 20, 24, 24]),
        ("one.json", LABELME, [18, 20, 22, 24]),
        ("project.json", LABEL_STUDIO, [16, 20, 24, 24]),
    ],
)
def test_exports_of_annotation_tools_prompt_pictures(
    tmp_path, name, file, content, round_box, small_picture
) -> None:
    if name == "medical":
        source = Volume(np.zeros((40, 30, 1), np.float32), np.eye(4), "one")
        domain = get_domain(name)
    else:
        domain = get_domain(name)
        if name == "satellite":
            write_raster(tmp_path / "one.tif", picture(30, 40))
            source = domain.read(Case("one", tmp_path / "one.tif"))
        else:
            source = domain.read(Case("one", small_picture))
    path = write(tmp_path / file, content)
    assert domain.holds_prompts(path)
    names = domain.prompt_classes([path])
    wanted = {"x", "cyst", "spleen"} if file.endswith("xml") else {"cyst", "spleen"}
    assert set(names.values()) == wanted
    prompts = domain.read_boxes(source, path, class_names=names)
    (found,) = prompts.values()
    by_class = {
        tuple(np.round(box, 3).tolist()): names[value]
        for box, value in zip(found.boxes, found.classes.tolist(), strict=True)
        if np.isfinite(box).all()
    }
    assert by_class == {
        tuple(map(float, BOX)): "cyst",
        tuple(map(float, POLYGON)): "spleen",
        tuple(map(float, round_box)): "cyst",
    }
    clicks = found.point_coords[found.point_labels == 1]
    np.testing.assert_allclose(clicks, [[6.5, 20.5]], atol=1e-4)


@pytest.mark.conformance(
    domain="medical",
    condition="napari's CSV of shapes and points, 2D and 3D",
    source="napari_builtins/io/_write.py (napari_write_shapes)",
    right="row, column indices at pixels' centres; a shape across slices refused",
    reader="none (format by its writer)",
    severity=1,
)
def test_shapes_of_napari_are_rows_and_columns_of_pixels_centres(tmp_path, small_picture) -> None:
    path = write(tmp_path / "Shapes.csv", SHAPES_CSV)
    for name in ("documents", "satellite"):
        domain = get_domain(name)
        assert domain.holds_prompts(path)
        source = domain.read(Case("one", small_picture))
        (found,) = domain.read_boxes(source, path).values()
        assert found.boxes.tolist() == [BOX]
    stack = write(
        tmp_path / "Shapes.csv",
        "index,shape-type,vertex-index,axis-0,axis-1,axis-2\n"
        "0,polygon,0,3,1,2\n0,polygon,1,3,1,9\n0,polygon,2,3,7,9\n",
    )
    prompts, _ = read(stack, volume())
    assert list(prompts) == [3]
    assert prompts[3].boxes.tolist() == [[2.5, 1.5, 9.5, 7.5]]
    clicks = write(tmp_path / "Points.csv", "index,axis-0,axis-1,axis-2\n0.0,2.0,5.0,6.0\n")
    prompts, _ = read(clicks, volume())
    assert prompts[2].point_coords.tolist() == [[[6.5, 5.5]]]
    write(stack, stack.read_text().replace("2,3,7,9", "2,4,7,9"))
    with pytest.raises(InputError, match="lies across slices 3 to 4"):
        read(stack, volume())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**LABELME, "imageHeight": 31}, "is said to have 40 x 31 pixels"),
        ({**LABELME, "shapes": LABELME["shapes"][4:]}, "1 line for one.png and nothing else"),
        (
            [{**LABEL_STUDIO[0], "annotations": LABEL_STUDIO[0]["annotations"] * 2}],
            "has 2 annotations; keep one",
        ),
        ({**LABELME, "shapes": [{"label": "x", "points": [[1, "a"]]}]}, "pairs of numbers"),
    ],
)
def test_exports_that_do_not_fit_are_refused(tmp_path, content, message, small_picture) -> None:
    domain = get_domain("documents")
    page = domain.read(Case("one", small_picture))
    with pytest.raises(InputError, match=message):
        domain.read_boxes(page, write(tmp_path / "one.json", content), class_names={1: "cyst"})


@pytest.mark.parametrize(
    ("classes", "message"),
    [(["spleen", 2], "'spleen' beside 2"), (["spleen", None], "'spleen' beside none")],
)
def test_names_beside_numbers_are_refused(tmp_path, classes, message) -> None:
    content = {"boxes": [[0, 0, 0, 2, 2, 2]] * 2, "classes": classes}
    with pytest.raises(InputError, match=message):
        MedicalDomain().prompt_classes([write(tmp_path / "b.json", content)])
