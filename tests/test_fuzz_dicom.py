"""Readers of DICOM series, SEG and RTSTRUCT on drawn and damaged files: right, or one line."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_factory import make_enhanced, save, stored_values, write_series
from dicom_outputs import completed
from fuzzing import damaged, flips, in_folder, kept, one_line, seeded
from hypothesis import given
from hypothesis import strategies as st
from label_factory import square, write_rtstruct, write_seg
from pydicom.dataset import Dataset

from samonai.domains.medical import Volume, read_label, read_volume

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's: overflow in float32
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom.*"),  # of the values that are drawn
]

SHAPE = (4, 6, 5)  # slices, rows, columns

decimals = st.one_of(
    st.floats(-50, 50).map(lambda n: f"{n:.3f}"),
    st.sampled_from(["0", "1", "-1", "1e30", "-1e-30", "nan", "inf", "x", "", "1\\2"]),
)
threes = st.lists(decimals, min_size=2, max_size=4).map("\\".join)
UIDS = ("1.2.3", "", "1.2.3.4.5.6")
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "ImagePositionPatient": threes,
    "ImageOrientationPatient": st.lists(decimals, min_size=5, max_size=7).map("\\".join),
    "PixelSpacing": st.lists(decimals, min_size=1, max_size=3).map("\\".join),
    "SliceThickness": decimals,
    "SpacingBetweenSlices": decimals,
    "RescaleSlope": decimals,
    "RescaleIntercept": decimals,
    "InstanceNumber": st.sampled_from(["1", "-5", "x", "", "999999999999"]),
    "Rows": st.integers(0, 65535),
    "Columns": st.one_of(st.integers(0, 9), st.integers(0, 65535)),
    "BitsAllocated": st.sampled_from([0, 1, 8, 12, 16, 32, 64]),
    "BitsStored": st.integers(0, 32),
    "HighBit": st.integers(0, 32),
    "PixelRepresentation": st.integers(0, 3),
    "SamplesPerPixel": st.integers(0, 4),
    "PhotometricInterpretation": st.sampled_from(
        ["MONOCHROME1", "MONOCHROME2", "RGB", "PALETTE COLOR", "YBR_FULL", "x", ""]
    ),
    "NumberOfFrames": st.sampled_from(["0", "1", "2", "-1", "x", "2000000000"]),
    "PixelPaddingValue": st.integers(-5, 3000),
    "Modality": st.sampled_from(["CT", "MR", "PT", "US", "OT", "x", ""]),
    "SeriesInstanceUID": st.sampled_from(UIDS),
    "FrameOfReferenceUID": st.sampled_from(UIDS),
    "AcquisitionNumber": st.sampled_from(["1", "2", "x", ""]),
    "EchoTime": decimals,
    "TriggerTime": decimals,
    "ContentTime": st.sampled_from(["101112", "x", "", "999999.9"]),
    "TemporalPositionIdentifier": st.sampled_from(["1", "2", "-1", "x"]),
    "ImageType": st.sampled_from(["ORIGINAL", "DERIVED\\SECONDARY\\M\\ADD", "", "\\\\\\"]),
    "SOPClassUID": st.sampled_from(["1.2.840.10008.5.1.4.1.1.4", "1.2", ""]),
}
one_field = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda name: st.tuples(st.just(name), FIELDS[name], st.lists(st.integers(0, 3), max_size=4))
)
GEOMETRY = frozenset(
    {"ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"}
)
VALUES = frozenset({"RescaleSlope", "RescaleIntercept"})


def put(dataset: Dataset, name: str, value: Any) -> None:
    """Set an element to what may be no value of its kind."""
    vr = pydicom.datadict.dictionary_VR(name)
    vr = "US" if vr == "US or SS" else vr
    stored: Any = value if vr in ("US", "SS") else value.encode()
    if vr in ("US", "SS"):
        stored = int(value).to_bytes(2, "little", signed=vr == "SS" or int(value) < 0)
    stored += b" " * (len(stored) % 2)
    tag = pydicom.datadict.tag_for_keyword(name)
    assert tag is not None
    dataset._dict[pydicom.tag.Tag(tag)] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(tag), vr, len(stored), stored, 0, False, True
    )


@seeded(50)
@given(changes=st.lists(one_field, min_size=1, max_size=3))
def test_drawn_series(
    changes: Sequence[tuple[str, Any, list[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        completed(dataset, number)
        for name, value, on in changes:
            if not on or number in on:
                put(dataset, name, value)

    folder = tmp_path_factory.mktemp("s")
    series = write_series(folder, stored_values(SHAPE), edit=edit)
    volume = one_line(lambda: read_volume(folder))
    if volume is None:
        return
    assert np.isfinite(volume.data).all()
    assert np.isfinite(volume.affine).all()
    assert len(volume.facts.slices) in (0, volume.shape[2])
    # Independently of what is drawn: each voxel is the value that pydicom finds at its place.
    for k, source in enumerate(volume.facts.slices):
        dataset = pydicom.dcmread(source.path)
        assert [int(dataset.Columns), int(dataset.Rows)] == list(volume.shape[:2])
        if dataset.PhotometricInterpretation != "MONOCHROME2" or dataset.Modality == "PT":
            continue
        stored = dataset.pixel_array.astype(np.float64).reshape(volume.shape[1::-1])
        slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
        slope = 1.0 if slope in (None, "") else float(slope)
        expected = stored * slope + float(intercept or 0.0)
        valid = np.ones(expected.shape, bool)
        if volume.valid is not None:
            valid = volume.valid[:, :, k].T
        found = volume.data[:, :, k].T
        np.testing.assert_allclose(found[valid], expected[valid].astype(np.float32), rtol=1e-6)
    if not {name for name, _, _ in changes} & GEOMETRY and volume.facts.modality == "CT":
        np.testing.assert_allclose(volume.affine, series.affine, atol=1e-6)


@seeded(30)
@given(
    number=st.integers(0, 3), bits=flips, part=kept, enhanced=st.booleans(), place=st.floats(0, 1)
)
def test_damaged_series(
    number: int,
    bits: list[tuple[float, int]],
    part: float,
    enhanced: bool,
    place: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("s")
    if enhanced:
        save(make_enhanced(stored_values(SHAPE), (0, 1, 2, 3)), folder / "a.dcm")
    else:
        write_series(folder, stored_values(SHAPE), edit=completed)
    path = sorted(folder.iterdir())[0 if enhanced else number]
    content = path.read_bytes()
    head = int(len(content) * max(place, 0.1))  # so that most flips are in the header
    path.write_bytes(damaged(content[:head], bits) + content[head:] if part == 1
                     else damaged(content, bits, part))  # fmt: skip
    volume = one_line(lambda: read_volume(folder))
    if volume is not None:
        assert np.isfinite(volume.data).all()
        assert volume.data.size <= 4096


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Volume, dict[str, bytes]]:
    """A volume, and its SEG and RTSTRUCT, by name."""
    folder = tmp_path_factory.mktemp("l")
    write_series(folder / "in", stored_values(SHAPE), edit=completed)
    volume = read_volume(folder / "in")
    mask = np.zeros(volume.shape, np.uint8)
    mask[1:4, 2:5, 1:3] = 1
    for kind in ("BINARY", "FRACTIONAL"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_seg(folder / "in", {"a": mask, "b": mask[::-1]}, folder / f"{kind}.dcm", kind)
    outlines = {"a": [(1, square(0.5, 3.5)), (2, square(0.5, 3.5))], "b": [(0, square(1.5, 2.5))]}
    write_rtstruct(volume, outlines, folder / "RT.dcm")
    return volume, {path.name: path.read_bytes() for path in folder.glob("*.dcm")}


@seeded(40)
@given(
    name=st.sampled_from(["BINARY.dcm", "FRACTIONAL.dcm", "RT.dcm"]),
    bits=flips,
    part=kept,
    place=st.floats(0, 1),
)
def test_damaged_label_objects(
    name: str,
    bits: list[tuple[float, int]],
    part: float,
    place: float,
    labelled: tuple[Volume, dict[str, bytes]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    volume, whole = labelled
    content = whole[name]
    head = int(len(content) * max(place, 0.1))
    content = damaged(content[:head], bits) + content[head:] if part == 1 else damaged(
        content, bits, part
    )  # fmt: skip
    path = in_folder(tmp_path_factory.mktemp("l"), name, content)
    label = one_line(lambda: read_label(path, volume))
    if label is not None:
        assert label.shape == volume.shape
        assert set(np.unique(label)) <= {0, 1, 2}


values = st.one_of(
    st.floats(-60, 60).map(lambda n: f"{n:.3f}"), st.sampled_from(["nan", "x", "", "1e30"])
)


@seeded(30)
@given(
    contours=st.lists(st.lists(values, max_size=12), max_size=3),
    kind=st.sampled_from(["CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "POINT", "OPEN_PLANAR", "x", ""]),
    number=st.sampled_from(["1", "2", "x", ""]),
    drop=st.sampled_from(["", "ROIContourSequence", "StructureSetROISequence",
                          "ReferencedFrameOfReferenceSequence"]),
)  # fmt: skip
def test_drawn_contours(
    contours: list[list[str]],
    kind: str,
    number: str,
    drop: str,
    labelled: tuple[Volume, dict[str, bytes]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    volume, whole = labelled
    path = in_folder(tmp_path_factory.mktemp("l"), "a.dcm", whole["RT.dcm"])
    dataset = pydicom.dcmread(path)
    drawn = dataset.ROIContourSequence[0]
    template = drawn.ContourSequence[0]
    drawn.ContourSequence = []
    for contour in contours:
        one = copy.deepcopy(template)
        put(one, "ContourData", "\\".join(contour))
        put(one, "ContourGeometricType", kind)
        drawn.ContourSequence.append(one)
    put(drawn, "ReferencedROINumber", number)
    if drop:
        del dataset[drop]
    dataset.save_as(path)
    label = one_line(lambda: read_label(path, volume))
    if label is not None:
        assert label.shape == volume.shape
        assert set(np.unique(label)) <= {0, 1, 2}
