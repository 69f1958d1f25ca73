"""Made-up patients: readable by everybody, the same for a seed, hard enough to be worth it."""

import json
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import label as components

from samonai.domains.medical.phantom.cases import (
    PHANTOM_CLASSES,
    Phantoms,
    make_phantom,
    write_phantoms,
)

SHAPE = (48, 44, 8)
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Phantoms:
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), patients=2, shape=SHAPE)


@pytest.fixture(scope="module")
def patient() -> tuple[np.ndarray, np.ndarray]:
    phantom = make_phantom(np.random.default_rng([0, 1]), (96, 96, 16))
    return phantom.data, phantom.label


def slices_along_normal(folder: Path) -> list[pydicom.Dataset]:
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    normal = np.cross(*np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3))
    return sorted(slices, key=lambda s: np.array(s.ImagePositionPatient, float) @ normal)


def test_nibabel_and_simpleitk_read_the_same_grid(phantoms: Phantoms) -> None:
    for image_path in sorted(phantoms.images.iterdir()):
        image, label = nib.load(image_path), nib.load(phantoms.labels / image_path.name)
        assert image.shape == label.shape == SHAPE
        assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
        np.testing.assert_array_equal(image.affine, label.affine)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert not np.allclose(image.affine, np.diag(np.diag(image.affine)), atol=1e-2)
        read = sitk.ReadImage(str(image_path))
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(read).transpose(2, 1, 0), image.dataobj
        )
        far = tuple(n - 1 for n in SHAPE)
        expected = LPS_FROM_RAS @ image.affine @ (*far, 1)
        np.testing.assert_allclose(read.TransformIndexToPhysicalPoint(far), expected[:3], atol=1e-3)


def test_the_description_names_every_pair_and_every_class(phantoms: Phantoms) -> None:
    description = json.loads(phantoms.dataset_json.read_text())
    assert description["labels"] == {
        "0": "background",
        "1": "liver",
        "2": "spleen",
        "3": "kidneys",
        "4": "aorta",
    }
    root = phantoms.dataset_json.parent
    for pair in description["training"]:
        assert (root / pair["image"]).is_file()
        assert (root / pair["label"]).is_file()
    assert description["numTraining"] == len(list(phantoms.images.iterdir())) == 2


def test_the_series_lies_where_its_label_says(phantoms: Phantoms) -> None:
    slices = slices_along_normal(phantoms.series)
    label = nib.load(phantoms.series_label)
    assert label.shape == SHAPE
    for k, image in enumerate(slices):
        along_row, along_column = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
        down, right = image.PixelSpacing
        for i, j in ((0, 0), (SHAPE[0] - 1, SHAPE[1] - 1), (7, 3)):
            lps = (
                np.array(image.ImagePositionPatient, float)
                + i * right * along_row
                + j * down * along_column
            )
            ras = label.affine @ (i, j, k, 1)
            np.testing.assert_allclose(lps * (-1, -1, 1), ras[:3], atol=2e-4)
    assert [s.InstanceNumber for s in slices] == list(range(SHAPE[2], 0, -1))


def test_highdicom_reads_a_regular_volume_on_the_label_s_grid(phantoms: Phantoms) -> None:
    slices = slices_along_normal(phantoms.series)
    volume = highdicom.get_volume_from_series(slices)
    assert volume.spatial_shape == SHAPE[::-1]
    affine = LPS_FROM_RAS @ volume.affine
    if affine[2, 0] < 0:  # its slices are counted from the head
        affine[:3, 3] += (SHAPE[2] - 1) * affine[:3, 0]
        affine[:3, 0] *= -1
    expected = nib.load(phantoms.series_label).affine[:, [2, 1, 0, 3]]
    np.testing.assert_allclose(affine, expected, atol=2e-4)


def test_our_reader_takes_the_series_and_its_label(phantoms: Phantoms) -> None:
    from samonai.domains.medical import read_label, read_volume

    volume = read_volume(phantoms.series)
    label = read_label(phantoms.series_label, volume)
    truth = make_phantom(np.random.default_rng([0, 3]), SHAPE)
    np.testing.assert_array_equal(volume.data, truth.data)
    np.testing.assert_array_equal(label, truth.label)


def test_the_series_is_valid_ct_of_nobody(phantoms: Phantoms) -> None:
    slices = slices_along_normal(phantoms.series)
    assert len({s.SOPInstanceUID for s in slices}) == len(slices)
    assert len({s.SeriesInstanceUID for s in slices}) == 1
    truth = make_phantom(np.random.default_rng([0, 3]), SHAPE).data
    for k, image in enumerate(slices):
        assert image.SOPClassUID == pydicom.uid.CTImageStorage
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        assert image.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert str(image.PatientName) == "PHANTOM^003"
        assert (image.PatientBirthDate, image.PatientSex) == ("", "")
        hu = image.pixel_array * image.RescaleSlope + image.RescaleIntercept
        np.testing.assert_array_equal(hu, truth[:, :, k].T)


def test_the_same_seed_gives_the_same_files(tmp_path: Path, phantoms: Phantoms) -> None:
    again = write_phantoms(tmp_path, patients=2, shape=SHAPE)
    root = phantoms.dataset_json.parent
    files = sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    for name in files:
        assert (tmp_path / name).read_bytes() == (root / name).read_bytes(), name
    other = write_phantoms(tmp_path / "other", patients=1, seed=1, shape=SHAPE, dicom=False)
    assert other.series is None
    first = "phantom_001.nii.gz"
    assert (other.images / first).read_bytes() != (again.images / first).read_bytes()


def test_a_second_call_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    write_phantoms(tmp_path, patients=2, shape=(16, 16, 5))
    kept = tmp_path / "imagesTr" / "mine.nii.gz"
    kept.touch()
    again = write_phantoms(tmp_path, patients=1, shape=(16, 16, 3))
    assert sorted(p.name for p in again.images.iterdir()) == ["mine.nii.gz", "phantom_001.nii.gz"]
    assert [p.name for p in (tmp_path / "dicom").iterdir()] == ["phantom_002"]
    assert len(list(again.series.iterdir())) == 3


def test_tissue_is_plausible_and_organs_are_close_in_contrast(
    patient: tuple[np.ndarray, np.ndarray],
) -> None:
    data, label = patient
    assert data[:2].mean() == pytest.approx(-1000, abs=15)
    mean = {name: data[label == value].mean() for value, name in PHANTOM_CLASSES.items()}
    assert 85 < mean["liver"] < 120
    assert 5 < mean["spleen"] - mean["liver"] < 50
    assert 10 < mean["kidneys"] - mean["liver"] < 70
    assert data.max() > 350  # bone
    assert 8 < data[label == 1].std() < 40


def test_every_organ_is_there_and_its_filled_boxes_are_no_good_mask(
    patient: tuple[np.ndarray, np.ndarray],
) -> None:
    _, label = patient
    overlap, total = 0, 0
    for value in PHANTOM_CLASSES:
        for k in range(label.shape[2]):
            objects, count = components(label[:, :, k] == value)
            for number in range(1, count + 1):
                i, j = np.nonzero(objects == number)
                overlap += 2 * i.size
                total += i.size + (np.ptp(i) + 1) * (np.ptp(j) + 1)
        assert (label == value).any()
    assert overlap / total < 0.85
    assert not np.isin([1, 2], label[:, :, 0]).all()  # some slices are without some organ
    assert components(label == 3)[1] >= 2  # two kidneys
