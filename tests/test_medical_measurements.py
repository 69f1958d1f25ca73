"""Measurements beside predictions: exact values, JSON, CSV and a DICOM report."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_factory import CANARY, write_series
from dicom_outputs import FACTS, completed, errors_of, make_label, make_source, tool

from samonai.domains.medical import Volume, read_volume
from samonai.domains.medical.objects.measurements import measure
from samonai.domains.medical.objects.segments import segment_of
from samonai.domains.medical.outputs import write_outputs
from samonai.domains.medical.volume import FormatFacts


def block() -> tuple[Volume, np.ndarray]:
    """A block of 2x3x2 voxels of 0.5x2x3 mm inside a volume of 8x7x6."""
    affine = np.diag([-0.5, -2.0, 3.0, 1.0])
    affine[:3, 3] = 10, 20, 30
    data = np.zeros((8, 7, 6), np.float32)
    data[2:4, 1:4, 3:5] = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    label = np.zeros(data.shape, np.int32)
    label[2:4, 1:4, 3:5] = 5
    return Volume(data, affine, "case", FormatFacts("nifti", modality="CT")), label


def test_values_are_exact() -> None:
    volume, label = block()
    (found,) = measure(volume, label, [segment_of(5, "liver")])
    assert found.voxels == 12
    assert found.volume_ml == pytest.approx(12 * 0.5 * 2 * 3 / 1000, rel=1e-12)
    assert found.extents_mm == (1.0, 6.0, 6.0)
    assert found.box_voxels == (2, 1, 3, 4, 4, 5)
    assert found.centroid_mm == pytest.approx((10 - 0.5 * 2.5, 20 - 2 * 2.0, 30 + 3 * 3.5))
    assert found.mean == 5.5
    assert found.sd == pytest.approx(np.arange(12).std())
    assert not found.touches_border
    assert not found.empty


def test_padding_takes_no_part_in_the_mean() -> None:
    volume, label = block()
    valid = np.ones(volume.shape, bool)
    valid[3] = False
    (found,) = measure(replace(volume, valid=valid), label, [segment_of(5)])
    assert (found.voxels, found.mean) == (12, 2.5)
    (found,) = measure(replace(volume, valid=valid & False), label, [segment_of(5)])
    assert (found.mean, found.sd) == (None, None)


def test_what_reaches_the_edge_says_so() -> None:
    volume, label = block()
    label[7, 0, 0] = 5
    assert measure(volume, label, [segment_of(5)])[0].touches_border
    # A single slice has no inside; its own two faces do not count.
    flat = Volume(volume.data[:, :, 3:4], volume.affine, "flat")
    assert not measure(flat, block()[1][:, :, 3:4], [segment_of(5)])[0].touches_border


def test_a_volume_agrees_with_simpleitk(tmp_path: Path) -> None:
    import SimpleITK as sitk  # noqa: N813

    _, volume = make_source(tmp_path / "in", (0.8, 0.6, 0.0, -0.36, 0.48, 0.8))
    label = make_label(volume.shape)
    (nifti,) = write_outputs(volume, label, tmp_path / "out", ["nifti"])
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(sitk.ReadImage(nifti))
    for found in measure(volume, label, [segment_of(1), segment_of(3)]):
        assert found.volume_ml * 1000 == pytest.approx(
            statistics.GetPhysicalSize(found.value), rel=1e-5
        )
        x, y, z = statistics.GetCentroid(found.value)
        assert found.centroid_mm == pytest.approx((-x, -y, z), abs=1e-4)


def test_files_beside_the_prediction(tmp_path: Path) -> None:
    volume, label = block()
    names = {5: "liver", 6: "spleen"}
    facts = replace(FACTS, classes=names)
    written = write_outputs(
        volume, label, tmp_path / "case", ["mha"], with_measurements=True, facts=facts
    )
    assert [path.name for path in written] == [
        *("case.measurements.json", "case.measurements.csv", "case.mha"),
    ]
    document = json.loads(written[0].read_text("utf-8"))
    assert document["case"] == "case"
    assert document["algorithm"]["model"] == "micro"
    assert document["intensity_unit"] == "HU"
    assert not document["empty"]
    liver, spleen = document["structures"]
    assert (liver["name"], liver["voxels"], liver["mean"]) == ("liver", 12, 5.5)
    assert (spleen["name"], spleen["empty"], spleen["mean"]) == ("spleen", True, None)
    with written[1].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["liver", "spleen"]
    assert float(rows[0]["volume_ml"]) == liver["volume_ml"]
    assert rows[1]["centroid_x_mm"] == ""
    assert {row["intensity_unit"] for row in rows} == {"HU"}


def test_nothing_found_is_said_where_no_object_can_say_it(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in")
    empty = np.zeros(volume.shape, np.int32)
    written = write_outputs(volume, empty, tmp_path / "x", ["dicom-seg", "rtstruct"], facts=FACTS)
    assert [path.name for path in written] == ["x.measurements.json", "x.measurements.csv"]
    document = json.loads(written[0].read_text("utf-8"))
    assert document["empty"]
    assert document["not_written"] == ["dicom-seg", "rtstruct"]


@pytest.mark.parametrize("formats", [["dicom-seg"], ["rtstruct"]])
def test_the_dicom_report_holds_the_same_values(tmp_path: Path, formats: list[str]) -> None:
    _, volume = make_source(tmp_path / "in")
    label = make_label(volume.shape)
    written = {
        path.name.partition(".")[2]: path
        for path in write_outputs(
            volume, label, tmp_path / "x", formats, with_measurements=True, facts=FACTS
        )
    }
    document = json.loads(written["measurements.json"].read_text("utf-8"))
    assert CANARY not in written["measurements.json"].read_text("utf-8")
    report = hd.sr.srread(written["sr.dcm"])
    groups = report.content.get_volumetric_roi_measurement_groups()
    if formats == ["rtstruct"]:
        groups = report.content.get_image_measurement_groups()
    assert len(groups) == 2
    for group, said in zip(groups, document["structures"], strict=True):
        values = [item.value for item in group.get_measurements()]
        assert values == pytest.approx([said["volume_ml"], said["mean"], said["sd"]], rel=1e-6)
        assert group.tracking_identifier.startswith(said["name"])
    if formats == ["dicom-seg"]:
        segmentation = pydicom.dcmread(written["seg.dcm"])
        for number, group in enumerate(groups):
            segment = group.referenced_segment
            assert segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
            assert group.tracking_uid == segmentation.SegmentSequence[number].TrackingUID


def test_a_report_on_one_segment(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in")
    label = np.where(make_label(volume.shape) == 1, 1, 0)
    written = write_outputs(
        volume, label, tmp_path / "x", ["dicom-seg"], with_measurements=True, facts=FACTS
    )
    segmentation = pydicom.dcmread(written[0])
    report = hd.sr.srread(written[1])
    (group,) = report.content.get_volumetric_roi_measurement_groups()
    referenced = group.referenced_segment
    assert referenced.referenced_sop_instance_uid == segmentation.SOPInstanceUID
    images = [item for item in referenced if "Source" in item.name.meaning]
    assert len(images) == len(np.unique(np.nonzero(label)[2]))


def test_no_report_with_the_patients_name_lies_beside_a_map_without_it(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in")
    for formats in ([], ["nifti"], ["nrrd", "mha"]):
        stem = tmp_path / "_".join(["x", *formats])
        written = write_outputs(
            volume, make_label(volume.shape), stem, formats, with_measurements=True, facts=FACTS
        )
        assert not [path.name for path in written if path.name.endswith(".dcm")]
        assert not [path for path in written if CANARY.encode() in path.read_bytes()]


def test_a_series_without_identifiers_is_measured(tmp_path: Path) -> None:
    def edit(dataset: pydicom.Dataset, number: int) -> None:
        completed(dataset, number)
        dataset.SOPClassUID = ""

    volume = read_volume(write_series(tmp_path / "in", edit=edit).folder)
    label, stem = make_label(volume.shape), tmp_path / "x"
    written = write_outputs(volume, label, stem, ["nifti"], with_measurements=True)
    endings = sorted(path.name.removeprefix("x") for path in written)
    assert endings == [".measurements.csv", ".measurements.json", ".nii.gz"]


def test_validators_find_no_error_in_the_report(tmp_path: Path) -> None:
    iod, entity = tool("dciodvfy"), tool("dcentvfy")
    _, volume = make_source(tmp_path / "in")
    for name, formats in (("a", ["dicom-seg", "rtstruct"]), ("b", ["rtstruct"])):
        written = write_outputs(
            volume,
            make_label(volume.shape),
            tmp_path / name,
            formats,
            with_measurements=True,
            facts=FACTS,
        )
        objects = [path for path in written if path.suffix == ".dcm"]
        assert len(objects) == len(formats) + 1
        assert [line for path in objects for line in errors_of(iod, path)] == []
        assert errors_of(entity, *sorted((tmp_path / "in").iterdir()), *objects) == []
