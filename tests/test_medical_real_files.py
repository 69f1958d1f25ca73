"""Real scans from hospitals and public data sets: what other readers agree on, we read alike."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from samonai.core.errors import InputError
from samonai.domains.medical import MedicalDomain, Volume, read_label, read_volume


@pytest.fixture
def medical(shared_data: Path) -> Path:
    return shared_data / "medical"


def read_by_simpleitk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    reader.SetOutputPixelType(sitk.sitkFloat32)
    image = reader.Execute()
    lps = np.eye(4)
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    lps[:3, :3], lps[:3, 3] = direction * image.GetSpacing(), image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1.0, -1, 1, 1]) @ lps


def assert_equals_simpleitk(volume: Volume, folder: Path) -> None:
    data, affine = read_by_simpleitk(folder)
    np.testing.assert_allclose(volume.data, data, atol=1e-5)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "scan"),
    [("STS_008", "CT"), ("STS_008", "MR_T1"), ("STS_019", "PET")],
)
def test_ibsi_dicom_equals_its_nifti_twin(medical: Path, case: str, scan: str) -> None:
    folder = medical / "ibsi-sts" / "dicom" / case / scan
    volume = read_volume(folder)  # the contours beside the slices are skipped
    twin = medical / "ibsi-sts" / "nifti" / case / f"{scan}_image.nii.gz"
    nifti = nib.load(twin)
    np.testing.assert_allclose(volume.data, nifti.get_fdata(), atol=1e-5)
    np.testing.assert_allclose(volume.affine, nifti.affine, atol=1e-4)
    assert_equals_simpleitk(volume, folder / "image")


def test_ibsi_patient_with_several_series_lists_them(medical: Path) -> None:
    with pytest.raises(InputError, match=r"CT, 51 slices .* MR, 28 slices"):
        read_volume(medical / "ibsi-sts" / "dicom" / "STS_008")


def test_jpeg2000_without_identifiers(medical: Path) -> None:
    folder = medical / "totalsegmentator" / "example_ct_dicom"
    volume = read_volume(folder)
    assert volume.shape == (512, 512, 20)
    assert (volume.data.min(), volume.data.max()) == (-1024, 1839)
    assert_equals_simpleitk(volume, folder)


def test_sagittal_slices(medical: Path) -> None:
    folder = medical / "tcia-breast-nact" / "UCSF-BR-06"
    assert_equals_simpleitk(read_volume(folder), folder / "image_dce_pe1")


def test_legacy_enhanced_equals_single_frames(medical: Path) -> None:
    root = medical / "dcmqi" / "24x38x3"
    single, enhanced = read_volume(root / "image"), read_volume(root / "multiframe")
    np.testing.assert_array_equal(single.data, enhanced.data)
    np.testing.assert_allclose(single.affine, enhanced.affine, atol=1e-6)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("dcm_qa_nih/mr_0003/epi_pe_ap-00001.dcm", "mosaic"),
        ("dcmqi/liver.dcm", "found 1 SEG"),
        ("ibsi-sts/dicom/STS_008/CT/mask", "found 1 RTSTRUCT"),
        ("pydicom/MR_truncated.dcm", "cut short"),
        ("pydicom-data/emri_small.dcm", "no ImagePositionPatient .* its frames do not say"),
        ("pydicom/JPGExtended.dcm", "pylibjpeg-libjpeg"),
        ("pydicom/no_meta.dcm", "not a volume"),
        ("pydicom/dicomdirtests/77654033/CT2", "161 of 165 slices missing"),
        ("pydicom/dicomdirtests/98892003/MR700", "7 volumes in one series"),
        ("itksnap/img4d_11f.nii.gz", "38x35x38x11"),
        ("itksnap/multi_chunk.nii.gz", "5D"),
        ("sct-testing-data/dmri/dmri.nii.gz", "4D"),
    ],
)
def test_files_that_hold_no_single_scan(medical: Path, path: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_volume(medical / path)


@pytest.mark.parametrize(
    "ending", ["RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"]
)
def test_one_slice_in_many_encodings(medical: Path, ending: str) -> None:
    volume = read_volume(medical / "pydicom" / f"MR_small_{ending}.dcm")
    np.testing.assert_array_equal(
        volume.data, read_volume(medical / "pydicom" / "MR_small.dcm").data
    )


def test_tilted_gantry_is_read_with_its_shear(
    medical: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Four millimetres apart in one part and seven in the other, and tilted throughout.
    with pytest.raises(InputError, match=r"uneven slice spacing, 1\.08 to 7 mm"):
        read_volume(medical / "dcm_qa_ct" / "GE")
    volume = read_volume(medical / "dcm_qa_ct" / "GE", allow_gaps=True)
    assert volume.shape == (512, 512, 10)
    assert "lean by 18.5 degrees" in caplog.text
    along = volume.affine[:3, 2] / np.linalg.norm(volume.affine[:3, 2])
    normal = np.cross(volume.affine[:3, 0], volume.affine[:3, 1])
    lean = np.degrees(np.arccos(abs(along @ normal) / np.linalg.norm(normal)))
    assert lean == pytest.approx(18.5, abs=0.05)


def test_colour_ultrasound_is_a_stack_of_pictures(medical: Path) -> None:
    volume = read_volume(medical / "pydicom" / "examples_ybr_color.dcm")
    assert volume.shape == (320, 240, 30)
    assert volume.facts.planar
    assert volume.data.max() <= 255


def test_one_volume_of_a_4d_file(medical: Path) -> None:
    path = medical / "itksnap" / "img4d_11f.nii.gz"
    expected = nib.load(path).get_fdata()[..., 4].astype(np.float32)
    np.testing.assert_array_equal(read_volume(path, time=5).data, expected)
    with pytest.raises(InputError, match="no volume 12; the file has 11"):
        read_volume(path, time=12)


def test_a_volume_of_a_series_of_several_is_chosen(medical: Path) -> None:
    folder = medical / "pydicom" / "dicomdirtests" / "98892003" / "MR700"
    assert read_volume(folder, time=7).shape == (16, 16, 1)


def test_hippocampus_is_read_whole(medical: Path) -> None:
    domain = MedicalDomain()
    root = medical / "msd-hippocampus"
    cases = domain.find_cases(root / "imagesTr", root / "labelsTr")
    assert len(cases) == 80
    for case in cases:
        volume = domain.read(case)
        assert volume.label is not None
        assert set(np.unique(volume.label)) == {0, 1, 2}
        assert volume.spacing == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(
    ("case", "scan", "differing"),
    [("STS_008", "CT", 0), ("STS_008", "MR_T1", 0), ("STS_019", "CT", 2), ("STS_019", "PET", 0)],
)
def test_rtstruct_equals_its_nifti_twin(
    medical: Path, case: str, scan: str, differing: int
) -> None:
    folder = medical / "ibsi-sts" / "dicom" / case / scan
    domain = MedicalDomain()
    (found,) = domain.find_cases(folder / "image", folder / "mask" / "RS.dcm")
    label = domain.read(found).label
    twin = nib.load(medical / "ibsi-sts" / "nifti" / case / f"{scan}_mask.nii.gz").get_fdata()
    assert domain.class_names(folder / "image", folder / "mask") == {1: f"GTV_Mass_{scan}"}
    assert (label != twin).sum() == differing


@pytest.mark.parametrize(
    ("image", "seg", "twin", "value"),
    [
        ("ct-3slice", "liver.dcm", "liver_seg.nrrd", 1),
        ("24x38x3/image", "24x38x3/seg/label.seg", "24x38x3/nrrd/label.nrrd", 1),
        ("24x38x3/image", "sparse-labelmap-noppv.dcm", "sparse_labelmap_noppv_seg.nrrd", 1),
    ],
)
def test_seg_equals_its_nrrd_twin(
    medical: Path, image: str, seg: str, twin: str, value: int
) -> None:
    root = medical / "dcmqi"
    label = read_label(root / seg, read_volume(root / image))
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(root / twin))).T
    np.testing.assert_array_equal(label == value, expected == value)


def test_overlapping_segments_of_a_real_object(medical: Path) -> None:
    root = medical / "dcmqi"
    label = read_label(root / "partial_overlaps.dcm", read_volume(root / "ct-3slice"))
    # By name: DARK_BLUE, GREEN, LIGHT_BLUE, ORANGE, PURPLE; the smaller of two lies on top.
    whole = [4713, 9602, 6693, 11888, 10743]
    kept = np.bincount(label.ravel(), minlength=6)[1:]
    assert (kept <= whole).all()
    assert kept[:3].tolist() == whole[:3]


def test_fractional_seg_of_a_breast(medical: Path) -> None:
    folder = medical / "tcia-breast-nact" / "UCSF-BR-06"
    domain = MedicalDomain()
    (case,) = domain.find_cases(folder / "image_dce_pe1", folder / "mask")
    assert case.classes == (("Breast", 1),)
    assert domain.read(case).label.sum() == 82527


def test_label_on_another_grid_of_the_same_scan(medical: Path) -> None:
    root = medical / "elastix"
    (case,) = MedicalDomain().find_cases(
        root / "3DCT_lung_baseline_small.mha", root / "3DCT_lung_baseline_mask.mha"
    )
    with pytest.raises(InputError, match="another grid"):
        MedicalDomain().read(case)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("image10x10x10.mha", (10, 10, 10)),
        ("image10x10x10.mhd", (10, 10, 10)),
        ("image5x6x7.mhd", (5, 6, 7)),
        ("nrrd/image10x11x12.nrrd", (10, 11, 12)),
        ("nrrd/image10x11x12.nhdr", (10, 11, 12)),
        ("nrrd/image10x11x12_compressed.nrrd", (10, 11, 12)),
        ("nrrd/image10x11x12_compressed.nhdr", (10, 11, 12)),
    ],
)
def test_synthetic_formats(medical: Path, name: str, shape: tuple[int, ...]) -> None:
    assert read_volume(medical / "panimg-synthetic-formats" / name).shape == shape


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("image10x11x12x13.mha", "a 4D file"),
        ("nrrd/image10x11x12_unsupported_version.nrrd", "not a volume in a known format"),
    ],
)
def test_synthetic_formats_that_are_refused(medical: Path, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_volume(medical / "panimg-synthetic-formats" / name)
