"""RTSTRUCT out: contours along voxel edges that every reader fills with the same voxels."""

import subprocess
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_factory import write_series
from dicom_outputs import (
    FACTS,
    ORIENTATIONS,
    completed,
    errors_of,
    make_label,
    make_source,
    tool,
)
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from samonai.domains.medical import Volume, read_volume
from samonai.domains.medical.formats.itk import LPS_TO_RAS
from samonai.domains.medical.outputs import write_outputs
from samonai.domains.outlines import outlines


def filled(polygon: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Fill by the even-odd rule at pixel centres, without any regard to how outlines are made."""
    ys, xs = np.indices(shape)
    crossings = np.zeros(shape, int)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            between = (ys >= min(y0, y1)) & (ys < max(y0, y1))
            crossings += between & (xs < x0 + (ys - y0) * (x1 - x0) / (y1 - y0))
    return crossings % 2 == 1


@settings(max_examples=150, deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()))
def test_outlines_hold_exactly_the_pixels(mask: npt.NDArray[np.bool_]) -> None:
    polygons = outlines(mask)
    assert len(polygons) == ndimage.label(mask)[1]
    counts = np.zeros(mask.shape, int)
    for polygon in polygons:
        counts += filled(polygon, mask.shape)
    assert np.array_equal(counts, mask.astype(int))
    for polygon in polygons:
        assert np.array_equal(polygon % 1, np.full_like(polygon, 0.5))
        steps = np.abs(np.roll(polygon, -1, axis=0) - polygon)
        assert (steps.min(axis=1) == 0).all()  # along the edges only
        assert (steps.max(axis=1) > 0).all()


def test_a_ring_in_a_ring_is_two_contours() -> None:
    mask = np.ones((9, 9), bool)
    mask[1:8, 1:8] = False
    mask[3:6, 3:6] = True
    mask[4, 4] = False
    assert len(outlines(mask)) == 2


def voxels_of(path: Path, volume: Volume) -> npt.NDArray[np.int32]:
    """Fill a structure set's contours on the grid of a volume, by position only."""
    dataset = pydicom.dcmread(path)
    to_index = np.linalg.inv(LPS_TO_RAS @ volume.affine)
    found = np.zeros(volume.shape, np.int32)
    for item in dataset.ROIContourSequence:
        for contour in item.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            assert contour.NumberOfContourPoints == len(points)
            indices = points @ to_index[:3, :3].T + to_index[:3, 3]
            k = round(float(indices[0, 2]))
            assert np.abs(indices[:, 2] - k).max() < 1e-4
            inside = filled(indices[:, :2], (volume.shape[1], volume.shape[0])).T
            assert not found[:, :, k][inside].any()
            found[:, :, k][inside] = item.ReferencedROINumber
    return found


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_contours_lie_where_the_voxels_are(tmp_path: Path, orientation: str) -> None:
    _, volume = make_source(
        tmp_path / "in", ORIENTATIONS[orientation], order=(3, 0, 5, 1, 4, 2), shape=(6, 11, 5)
    )
    label = make_label(volume.shape)
    (path,) = write_outputs(volume, label, tmp_path / "out", ["rtstruct"], facts=FACTS)
    assert path.name == "out.rtstruct.dcm"
    assert np.array_equal(voxels_of(path, volume), np.where(label == 3, 2, label))


def test_one_slice(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in", shape=(1, 7, 9))
    label = make_label(volume.shape)
    (path,) = write_outputs(volume, label, tmp_path / "out", ["rtstruct"], facts=FACTS)
    assert np.array_equal(voxels_of(path, volume), np.where(label == 3, 2, label))


# plastimatch takes the grid of a single slice from somewhere else.
@pytest.mark.parametrize("shape", [(10, 20, 30), (2, 31, 17)])
def test_plastimatch_finds_the_same_voxels(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    program = tool("plastimatch")
    _, volume = make_source(tmp_path / "in", shape=shape)
    label = make_label(volume.shape)
    label[2, 2, :] = 0
    path, nifti = write_outputs(volume, label, tmp_path / "out", ["rtstruct", "nifti"], facts=FACTS)
    found = tmp_path / "found.nrrd"
    command = [program, "convert", "--input", path, "--referenced-ct", tmp_path / "in"]
    subprocess.run([*command, "--output-labelmap", found], check=True, capture_output=True)
    there, written = sitk.ReadImage(found), sitk.ReadImage(nifti)
    expected = sitk.GetArrayFromImage(written)
    # plastimatch numbers structures from 1, in their order.
    assert np.array_equal(sitk.GetArrayFromImage(there), np.where(expected == 3, 2, expected))
    assert np.allclose(there.GetOrigin(), written.GetOrigin(), atol=1e-3)
    assert np.allclose(there.GetSpacing()[:2], written.GetSpacing()[:2], atol=1e-5)
    assert np.allclose(there.GetDirection(), written.GetDirection(), atol=1e-6)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_validators_find_no_error(tmp_path: Path, orientation: str) -> None:
    iod, entity = tool("dciodvfy"), tool("dcentvfy")
    _, volume = make_source(tmp_path / "in", ORIENTATIONS[orientation])
    (path,) = write_outputs(
        volume, make_label(volume.shape), tmp_path / "out", ["rtstruct"], facts=FACTS
    )
    assert errors_of(iod, path) == []
    assert errors_of(entity, *sorted((tmp_path / "in").iterdir()), path) == []


def test_the_structure_set_says_what_planning_systems_ask_for(tmp_path: Path) -> None:
    series, volume = make_source(tmp_path / "in")
    (path,) = write_outputs(
        volume, make_label(volume.shape), tmp_path / "out", ["rtstruct"], facts=FACTS
    )
    found = pydicom.dcmread(path)
    sources = {each.SOPInstanceUID: each for each in map(pydicom.dcmread, series.folder.iterdir())}
    source = next(iter(sources.values()))
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDescription"):
        assert found[keyword].value == source[keyword].value, keyword
    assert [item.ROIName for item in found.StructureSetROISequence] == [
        *("kidney_left", "nobody knows this"),
    ]
    assert list(found.ROIContourSequence[0].ROIDisplayColor) == [185, 100, 80]
    codes = found.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence
    assert codes[0].CodeValue == "64033007"
    frame = found.ReferencedFrameOfReferenceSequence[0]
    assert frame.FrameOfReferenceUID == source.FrameOfReferenceUID
    listed = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert listed.SeriesInstanceUID == source.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in listed.ContourImageSequence} == set(sources)
    for item in found.ROIContourSequence:
        for contour in item.ContourSequence:
            image = sources[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            assert contour.ContourData[2] == image.ImagePositionPatient[2]
    values = [str(v) for i in found.ROIContourSequence for v in i.ContourSequence[0].ContourData]
    assert max(map(len, values)) <= 16


def test_leaning_slices_keep_their_own_places(tmp_path: Path) -> None:
    def edit(dataset: pydicom.Dataset, number: int) -> None:
        completed(dataset, number)
        dataset.ImagePositionPatient[1] += 0.9 * number

    volume = read_volume(write_series(tmp_path / "in", edit=edit).folder)
    label = make_label(volume.shape)
    (path,) = write_outputs(volume, label, tmp_path / "out", ["rtstruct"], facts=FACTS)
    assert np.array_equal(voxels_of(path, volume), np.where(label == 3, 2, label))
