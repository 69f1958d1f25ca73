"""DICOM-SEG out: the same voxels at the same places, for highdicom, dcmqi and the validators."""

import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import CANARY, write_series
from dicom_outputs import (
    FACTS,
    ORIENTATIONS,
    completed,
    errors_of,
    make_label,
    make_source,
    read_seg,
    tool,
)

from samonai.core.errors import InputError
from samonai.domains.medical import read_label, read_volume
from samonai.domains.medical.formats.read_volume import read_raw
from samonai.domains.medical.outputs import write_outputs

ORDERS = {"plain": None, "reversed": (5, 4, 3, 2, 1, 0), "shuffled": (3, 0, 5, 1, 4, 2)}


def numbered(label: np.ndarray) -> np.ndarray:
    """Segments count from 1: classes 1 and 3 are segments 1 and 2."""
    return np.where(label == 3, 2, label)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_voxels_come_back_where_they_were(tmp_path: Path, orientation: str, order: str) -> None:
    _, volume = make_source(tmp_path / "in", ORIENTATIONS[orientation], order=ORDERS[order])
    label = make_label(volume.shape)
    (path,) = write_outputs(volume, label, tmp_path / "out", ["dicom-seg"], facts=FACTS)
    assert path.name == "out.seg.dcm"
    assert np.array_equal(read_seg(path, volume), numbered(label))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_dcmqi_finds_the_voxels_of_the_nifti(tmp_path: Path, orientation: str) -> None:
    program = tool("segimage2itkimage")
    _, volume = make_source(tmp_path / "in", ORIENTATIONS[orientation], order=ORDERS["reversed"])
    label = make_label(volume.shape)
    seg, nifti = write_outputs(volume, label, tmp_path / "out", ["dicom-seg", "nifti"], facts=FACTS)
    command = [program, "--inputDICOM", seg, "--outputDirectory", tmp_path, "--outputType", "nii"]
    subprocess.run(command, check=True, capture_output=True)
    expected = read_label(nifti, volume)
    for number, value in ((1, 1), (2, 3)):
        raw = read_raw(tmp_path / f"{number}.nii.gz", None)
        there = np.argwhere(raw.array > 0) @ raw.affine[:3, :3].T + raw.affine[:3, 3]
        wanted = np.argwhere(expected == value) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        assert len(there) == len(wanted)
        there, wanted = (p[np.lexsort(np.round(p, 2).T)] for p in (there, wanted))
        assert np.abs(there - wanted).max() < 2e-3


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "oblique"])
def test_validators_find_no_error(tmp_path: Path, orientation: str) -> None:
    iod, entity = tool("dciodvfy"), tool("dcentvfy")
    _, volume = make_source(tmp_path / "in", ORIENTATIONS[orientation])
    (path,) = write_outputs(
        volume, make_label(volume.shape), tmp_path / "out", ["dicom-seg"], facts=FACTS
    )
    assert errors_of(iod, path) == []
    assert errors_of(entity, *sorted((tmp_path / "in").iterdir()), path) == []


def test_the_object_says_what_viewers_ask_for(tmp_path: Path) -> None:
    series, volume = make_source(tmp_path / "in")
    label = make_label(volume.shape)
    (path,) = write_outputs(volume, label, tmp_path / "out", ["dicom-seg"], facts=FACTS)
    found, source = pydicom.dcmread(path), pydicom.dcmread(next(series.folder.iterdir()))
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyID"),
        *("StudyInstanceUID", "StudyDate", "StudyDescription", "AccessionNumber"),
        "FrameOfReferenceUID",
    ):
        assert found[keyword].value == source[keyword].value, keyword
    assert found.PatientName == f"{CANARY}^A"
    assert found.SeriesInstanceUID != source.SeriesInstanceUID
    assert found.SegmentationType == "BINARY"
    kidney, unknown = found.SegmentSequence
    assert kidney.SegmentLabel == "kidney_left"
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == (
        *("64033007", "SCT", "Kidney"),
    )
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert unknown.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    assert kidney.TrackingUID != unknown.TrackingUID
    assert kidney.TrackingID.startswith("kidney_left")
    assert kidney.RecommendedDisplayCIELabValue != unknown.RecommendedDisplayCIELabValue
    algorithm = kidney.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "samonai"
    assert "decoder_sha256=" + "cd" * 8 in algorithm.AlgorithmParameters
    (referenced,) = found.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    for frame in found.PerFrameFunctionalGroupsSequence:
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        at = frame.PlanePositionSequence[0].ImagePositionPatient
        original = next(
            each
            for each in map(pydicom.dcmread, series.folder.iterdir())
            if each.SOPInstanceUID == image.ReferencedSOPInstanceUID
        )
        assert at == original.ImagePositionPatient


def test_one_slice(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in", shape=(1, 5, 7))
    label = np.zeros(volume.shape, np.int32)
    label[2:5, 1, 0] = 1
    (path,) = write_outputs(volume, label, tmp_path / "out", ["dicom-seg"])
    found = pydicom.dcmread(path)
    assert found.NumberOfFrames == 1
    assert np.array_equal(
        np.unpackbits(np.frombuffer(found.PixelData, np.uint8), bitorder="little")[:35]
        .reshape(5, 7)
        .T,
        label[:, :, 0],
    )


def test_enhanced_source(tmp_path: Path) -> None:
    from dicom_factory import make_enhanced, save, stored_values

    dataset = make_enhanced(stored_values(), (3, 0, 5, 1, 4, 2))
    completed(dataset, 0)
    save(dataset, tmp_path / "in" / "a.dcm")
    volume = read_volume(tmp_path / "in")
    label = make_label(volume.shape)
    (path,) = write_outputs(volume, label, tmp_path / "out", ["dicom-seg"], facts=FACTS)
    assert np.array_equal(read_seg(path, volume), numbered(label))


def test_tiny_slices_are_refused_and_not_written_wrongly(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in", shape=(3, 1, 7))
    label = np.ones(volume.shape, np.int32)
    with pytest.raises(InputError, match="fewer than 8 pixels"):
        write_outputs(volume, label, tmp_path / "out", ["dicom-seg"])


def test_a_scan_from_elsewhere_is_refused(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in")
    (nifti,) = write_outputs(volume, make_label(volume.shape), tmp_path / "out", ["nifti"])
    other = read_volume(nifti)
    with pytest.raises(InputError, match="this volume is nifti"):
        write_outputs(other, make_label(volume.shape), tmp_path / "new", ["dicom-seg", "nifti"])
    assert not list(tmp_path.glob("new*"))


def test_leaning_slices_keep_their_own_places(tmp_path: Path) -> None:
    def edit(dataset: pydicom.Dataset, number: int) -> None:
        completed(dataset, number)
        dataset.ImagePositionPatient[1] += 0.9 * number

    series = write_series(tmp_path / "in", edit=edit)
    volume = read_volume(series.folder)
    label = make_label(volume.shape)
    (path,) = write_outputs(volume, label, tmp_path / "out", ["dicom-seg"], facts=FACTS)
    found = pydicom.dcmread(path)
    frames = np.unpackbits(np.frombuffer(found.PixelData, np.uint8), bitorder="little")
    frames = frames[: found.NumberOfFrames * 20].reshape(-1, 5, 4)
    places = [
        tuple(float(part) for part in frame.PlanePositionSequence[0].ImagePositionPatient)
        for frame in found.PerFrameFunctionalGroupsSequence
    ]
    for (_, y, z), frame, item in zip(
        places, frames, found.PerFrameFunctionalGroupsSequence, strict=True
    ):
        k = round((z + 30) / 2.5)
        assert y == pytest.approx(20 + 0.9 * k)
        value = (1, 3)[item.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1]
        assert np.array_equal(frame.T, label[:, :, k] == value)


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "SeriesInstanceUID", "SOPClassUID"])
def test_a_series_that_cannot_be_referred_to_is_refused(tmp_path: Path, keyword: str) -> None:
    def edit(dataset: pydicom.Dataset, number: int) -> None:
        completed(dataset, number)
        setattr(dataset, keyword, "")

    series = write_series(tmp_path / "in", edit=edit)
    volume = read_volume(series.folder)
    with pytest.raises(InputError, match=keyword) as caught:
        write_outputs(volume, make_label(volume.shape), tmp_path / "out", ["dicom-seg"])
    assert CANARY not in str(caught.value)


def test_headers_with_nonsense_are_carried_over_without_it(tmp_path: Path) -> None:
    def edit(dataset: pydicom.Dataset, number: int) -> None:
        completed(dataset, number)
        dataset.PatientSex, dataset.StudyDate = "UNKNOWN", "yesterday"
        dataset.SpecificCharacterSet = ""
        del dataset.PatientBirthDate, dataset.SliceThickness, dataset.StudyID

    series = write_series(tmp_path / "in", edit=edit)
    volume = read_volume(series.folder)
    label = make_label(volume.shape)
    (path,) = write_outputs(volume, label, tmp_path / "out", ["dicom-seg"], facts=FACTS)
    assert np.array_equal(read_seg(path, volume), numbered(label))
    assert pydicom.dcmread(path).PatientSex == "O"


def test_the_same_label_has_the_same_identity_and_another_has_another(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in")
    label, formats = make_label(volume.shape), ["dicom-seg", "rtstruct"]
    other = np.where(label == 3, 0, label)
    written = [
        write_outputs(
            volume, one, tmp_path / str(number), formats, facts=FACTS, with_measurements=True
        )
        for number, one in enumerate((label, label.copy(order="F"), other))
    ]
    objects = [
        [pydicom.dcmread(path) for path in paths if path.suffix == ".dcm"] for paths in written
    ]
    first, again, else_ = (
        [uid for found in each for uid in (found.SOPInstanceUID, found.SeriesInstanceUID)]
        for each in objects
    )
    assert first == again
    assert len(set(first)) == len(first) == 6  # a segmentation, a structure set and a report
    assert not set(first) & set(else_)
