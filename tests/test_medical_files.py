"""NIfTI, NRRD and MetaImage: geometry bit by bit, and one clear line for every bad file."""

import gzip
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from samonai.core.errors import InputError
from samonai.domains.medical import Volume, read_label, read_volume, write_label
from samonai.domains.medical.volume import same_grid

SHAPE = (5, 4, 3)
AFFINE = np.array([[-0.7, 0, 0, 9], [0, 0.8, 0, -4], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])
OBLIQUE = AFFINE.copy()
OBLIQUE[:3, :3] = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ AFFINE[:3, :3]


def voxels(shape: tuple[int, ...] = SHAPE, dtype: str = "int16") -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, shape).astype(dtype)


def save_nifti(path: Path, array: Any = None, affine: Any = AFFINE, cls: Any = None) -> Path:
    array = voxels() if array is None else array
    (cls or nib.Nifti1Image)(array, affine).to_filename(path)
    return path


def save_itk(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def refused(path: Path, *words: str, **options: Any) -> None:
    with pytest.raises(InputError) as caught:
        read_volume(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in (path.name, *words):
        assert word in message


# --- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.b c.nii.gz", "Ä.NII.GZ"])
@pytest.mark.parametrize("cls", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_values_affine_and_name(tmp_path: Path, name: str, cls: Any) -> None:
    plain = save_nifti(tmp_path / "plain.nii", affine=OBLIQUE, cls=cls).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(plain) if name.lower().endswith("gz") else plain)
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.data, voxels())
    np.testing.assert_array_equal(volume.affine, nib.load(tmp_path / "plain.nii").affine)
    assert volume.data.dtype == np.float32
    assert volume.source_id == name.lower().split(".nii")[0].replace("ä", "Ä")


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", ">i2"]
)
def test_nifti_voxel_types(tmp_path: Path, dtype: str) -> None:
    array = np.abs(voxels()).astype(dtype) % 200
    image = nib.Nifti1Image(array.astype(array.dtype.newbyteorder("=")), AFFINE)
    if dtype.startswith(">"):
        image = nib.Nifti1Image(array, AFFINE, nib.Nifti1Header(endianness=">"))
        image.set_data_dtype(">i2")
    image.to_filename(tmp_path / "a.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").data, array)


def test_nifti_scaling_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(voxels(), AFFINE)
    image.header.set_slope_inter(0.5, -7)
    image.to_filename(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(
        read_volume(tmp_path / "a.nii.gz").data, nib.load(tmp_path / "a.nii.gz").get_fdata()
    )


def test_four_dimensions_of_which_one_is_single(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", voxels((*SHAPE, 1)))
    assert read_volume(path).shape == SHAPE


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd", ".nhdr"])
def test_itk_formats_equal_nifti(tmp_path: Path, ending: str) -> None:
    nifti = read_volume(save_nifti(tmp_path / "a.nii.gz", affine=OBLIQUE))
    volume = read_volume(save_itk(tmp_path / f"a{ending}", voxels(), OBLIQUE))
    np.testing.assert_array_equal(volume.data, nifti.data)
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-12)
    assert same_grid(volume.affine, nifti.affine, SHAPE)
    assert volume.source_id == "a"


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    save_itk(tmp_path / "a.nrrd", voxels()).rename(tmp_path / "a.mha")
    save_nifti(tmp_path / "b.nii").rename(tmp_path / "b.img")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mha").data, voxels())
    np.testing.assert_array_equal(read_volume(tmp_path / "b.img").data, voxels())


def test_nan_voxels_are_masked_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    array = voxels(dtype="float32")
    array[1, 2, 0], array[0, 0, 0] = np.nan, np.inf
    volume = read_volume(save_nifti(tmp_path / "a.nii.gz", array))
    assert volume.valid is not None
    assert (~volume.valid).sum() == 2
    assert not volume.valid[1, 2, 0]
    assert volume.data[1, 2, 0] == array[np.isfinite(array)].min()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_no_orientation_codes_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = nib.Nifti1Image(voxels(), AFFINE)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    image.to_filename(tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert "no orientation" in caplog.text
    np.testing.assert_array_equal(volume.affine, nib.load(tmp_path / "a.nii.gz").affine)


# --- what is refused ----------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "a.nii.gz", "no such file")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("compressed", [True, False])
def test_truncated_files(tmp_path: Path, ending: str, compressed: bool) -> None:
    path = tmp_path / f"a{ending}"
    array = voxels((20, 20, 20))
    if ending.startswith(".nii"):
        save_nifti(path, array)
    else:
        image = sitk.GetImageFromArray(array)
        sitk.WriteImage(image, str(path), useCompression=compressed)
    whole = path.read_bytes()
    for kept in (len(whole) - 1000, len(whole) - 20, 400):
        path.write_bytes(whole[:kept])
        refused(path)


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_truncated_and_missing_voxel_files(tmp_path: Path, ending: str) -> None:
    path = save_itk(tmp_path / f"a{ending}", voxels())
    (data,) = (other for other in tmp_path.iterdir() if other != path)
    data.write_bytes(data.read_bytes()[:-10])
    with pytest.raises(InputError, match="cut short"):
        read_volume(path)
    data.unlink()
    with pytest.raises(InputError, match="missing"):
        read_volume(path)


def test_header_may_not_name_files_elsewhere(tmp_path: Path) -> None:
    path = save_itk(tmp_path / "a.mhd", voxels())
    path.write_text(path.read_text().replace("a.raw", "../a.raw"))
    refused(path, "outside")
    path.write_text(path.read_text().replace("../a.raw", "LIST\n/etc/hostname"))
    refused(path, "several files")


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.nii.gz", b"hello, I am a text file\n" * 40, "text file"),
        ("a.nii", b"hello, I am a text file\n" * 40, "text file"),
        ("a.nii.gz", gzip.compress(b"hello, I am a text file\n" * 40, mtime=0), "text file"),
        ("a.nii.gz", b"", "empty file"),
        ("a.nii.gz", b"\x1f\x8b" + bytes(50), "damaged gzip"),
        ("a.mha", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.nii", bytes(2000), "not a volume"),
    ],
)
def test_files_that_are_something_else(
    tmp_path: Path, name: str, content: bytes, word: str
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, word)


def test_mislabelled_compression(tmp_path: Path) -> None:
    save_nifti(tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    refused(tmp_path / "a.nii.gz", "not compressed")
    save_nifti(tmp_path / "b.nii.gz").rename(tmp_path / "b.nii")
    refused(tmp_path / "b.nii", "gzip-compressed")


@pytest.mark.parametrize("size", ["-5 4 3", "5 4 x", "", "99999 99999 99999"])
def test_impossible_sizes(tmp_path: Path, size: str) -> None:
    save_itk(tmp_path / "a.mha", voxels())
    raw = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(raw.replace(b"DimSize = 5 4 3", f"DimSize = {size}".encode()))
    refused(tmp_path / "a.mha")
    save_itk(tmp_path / "a.nrrd", voxels())
    raw = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "a.nrrd").write_bytes(raw.replace(b"sizes: 5 4 3", f"sizes: {size}".encode()))
    refused(tmp_path / "a.nrrd")


def test_wrong_dimensions(tmp_path: Path) -> None:
    refused(save_nifti(tmp_path / "a.nii.gz", voxels((5, 4))), "2D", "expected 3D")
    refused(save_nifti(tmp_path / "b.nii.gz", voxels((5, 4, 3, 2))), "4D", "5x4x3x2")
    sitk.WriteImage(sitk.GetImageFromArray(voxels((5, 4))), str(tmp_path / "d.nrrd"))
    refused(tmp_path / "d.nrrd", "2D")


def test_colour_vector_and_complex_voxels(tmp_path: Path) -> None:
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(save_nifti(tmp_path / "a.nii.gz", colour), "colour")
    refused(save_nifti(tmp_path / "b.nii.gz", np.zeros(SHAPE, np.complex64)), "complex")
    vector = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)
    sitk.WriteImage(vector, str(tmp_path / "c.mha"))
    refused(tmp_path / "c.mha", "vector")


@pytest.mark.parametrize(
    ("entry", "value", "word"),
    [((0, 0), np.nan, "NaN"), ((1, 3), np.inf, "NaN or infinity"), ((0, 0), 0, "singular")],
)
def test_unusable_affines(tmp_path: Path, entry: Any, value: float, word: str) -> None:
    affine = AFFINE.copy()
    affine[entry] = value
    image = nib.Nifti1Image(voxels(), None)
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        image.header[name] = affine[row]
    image.header["sform_code"] = 1
    nib.Nifti1Image(voxels(), None, image.header).to_filename(tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[280:328] = affine[:3].astype("<f4").tobytes()
    raw[252:256] = np.array([0, 1], "<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    refused(tmp_path / "a.nii", word)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(42, -5), (42, 0), (40, 99), (44, 32767)],
    ids=["neg", "zero", "rank", "huge"],
)
def test_impossible_dimensions(tmp_path: Path, offset: int, value: int) -> None:
    for name in ("a.nii", "a.nii.gz"):
        raw = bytearray(gzip.decompress(save_nifti(tmp_path / "x.nii.gz").read_bytes()))
        raw[offset : offset + 2] = np.array(value, "<i2").tobytes()
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else bytes(raw))
        refused(tmp_path / name)


def contradicting(path: Path) -> Path:
    image = nib.Nifti1Image(voxels(), AFFINE)
    image.set_qform(OBLIQUE, 1)
    image.set_sform(AFFINE, 1)
    image.to_filename(path)
    return path


def test_contradicting_geometries(tmp_path: Path) -> None:
    path = contradicting(tmp_path / "a.nii.gz")
    refused(path, "qform", "sform", "prefer=")
    np.testing.assert_allclose(read_volume(path, prefer="sform").affine, AFFINE, atol=1e-5)
    np.testing.assert_allclose(read_volume(path, prefer="qform").affine, OBLIQUE, atol=1e-5)
    with pytest.raises(InputError, match="expected sform or qform"):
        read_volume(path, prefer="x")


@pytest.mark.parametrize("prefer", ["sform", "qform"])
def test_the_disbelieved_geometry_is_not_written(tmp_path: Path, prefer: str) -> None:
    volume = read_volume(contradicting(tmp_path / "a.nii.gz"), prefer=prefer)
    written = write_label(volume, np.zeros(SHAPE, np.uint8), tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(nib.load(written).affine, volume.affine)
    np.testing.assert_array_equal(read_volume(written).affine, volume.affine)


def test_all_voxels_nan(tmp_path: Path) -> None:
    refused(save_nifti(tmp_path / "a.nii.gz", np.full(SHAPE, np.nan, np.float32)), "every voxel")


# --- label maps ---------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Volume:
    return read_volume(save_nifti(tmp_path / "image.nii.gz", affine=OBLIQUE))


def labelled(dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4, SHAPE).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_labels_of_any_whole_numbers(
    tmp_path: Path, image: Volume, dtype: str, ending: str
) -> None:
    save = save_nifti if ending == ".nii.gz" else save_itk
    path = save(tmp_path / f"label{ending}", labelled(dtype), OBLIQUE)
    label = read_label(path, image)
    assert label.dtype == np.int32
    np.testing.assert_array_equal(label, labelled())


def test_int64_labels(tmp_path: Path, image: Volume) -> None:
    array = nib.Nifti1Image(labelled("int64"), OBLIQUE, dtype="int64")
    array.to_filename(tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(read_label(tmp_path / "label.nii.gz", image), labelled())


@pytest.mark.parametrize(
    ("value", "word"),
    [(0.5, "0.5"), (np.nan, "NaN"), (-1, "-1"), (70000, "70000")],
)
def test_label_values_that_are_no_classes(
    tmp_path: Path, image: Volume, value: float, word: str
) -> None:
    array = labelled("float32")
    array[0, 0, 0] = value
    path = save_nifti(tmp_path / "label.nii.gz", array, OBLIQUE)
    with pytest.raises(InputError, match=word) as caught:
        read_label(path, image)
    assert "label.nii.gz" in str(caught.value)


def test_masks_of_0_and_255_need_a_word(tmp_path: Path, image: Volume) -> None:
    path = save_nifti(tmp_path / "label.nii.gz", (labelled() > 1).astype("uint8") * 255, OBLIQUE)
    with pytest.raises(InputError, match="--set label_map=255:1"):
        read_label(path, image)
    np.testing.assert_array_equal(read_label(path, image, {255: 1}), labelled() > 1)


def test_maps_do_not_chain(tmp_path: Path, image: Volume) -> None:
    path = save_nifti(tmp_path / "label.nii.gz", labelled(), OBLIQUE)
    swapped = read_label(path, image, {1: 2, 2: 1, 3: 0})
    np.testing.assert_array_equal(swapped, np.array([0, 2, 1, 0])[labelled()])


def test_labels_on_another_grid_say_both(tmp_path: Path, image: Volume) -> None:
    path = save_nifti(tmp_path / "label.nii.gz", np.zeros((5, 4, 2), np.uint8), OBLIQUE)
    with pytest.raises(InputError, match="shape 5x4x2 against 5x4x3"):
        read_label(path, image)
    for entry, step in (((0, 3), 2e-3), ((2, 2), 0.01), ((0, 0), -1.0)):
        moved = OBLIQUE.copy()
        moved[entry] += step
        save_nifti(path, labelled(), moved)
        with pytest.raises(InputError, match=r"affine .* against .*resample") as caught:
            read_label(path, image)
        assert "image image" in str(caught.value)


def test_empty_label_warns(tmp_path: Path, image: Volume, caplog: pytest.LogCaptureFixture) -> None:
    read_label(save_nifti(tmp_path / "label.nii.gz", np.zeros(SHAPE, np.uint8), OBLIQUE), image)
    assert "empty" in caplog.text


# --- writing ------------------------------------------------------------------------------------


def test_nifti_geometry_is_copied_bit_by_bit(tmp_path: Path) -> None:
    source = nib.Nifti1Image(voxels(), OBLIQUE)
    source.set_qform(OBLIQUE, 2)
    source.set_sform(OBLIQUE, 4)
    source.header.set_xyzt_units("mm", "sec")
    source.header["descrip"] = b"Doe^John"
    source.header.set_slope_inter(2, 3)
    source.to_filename(tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    before = nib.load(tmp_path / "a.nii.gz").header
    written = write_label(volume, labelled("int64"), tmp_path / "out" / "b.nii.gz")
    after = nib.load(written)
    for name in before:
        if name.startswith(("q", "s_row", "srow", "sform")) or name == "xyzt_units":
            np.testing.assert_array_equal(after.header[name], before[name])
    np.testing.assert_array_equal(after.header["pixdim"][:4], before["pixdim"][:4])
    assert after.header["descrip"] == b""
    assert after.header.get_slope_inter() == (None, None)
    assert after.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(after.dataobj), labelled())


def test_more_than_255_classes_need_uint16(tmp_path: Path, image: Volume) -> None:
    written = write_label(image, labelled("int32") * 100, tmp_path / "b.nii")
    assert nib.load(written).get_data_dtype() == np.uint16


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("source", [".nii.gz", ".nrrd", ".mha"])
def test_every_format_to_every_format(tmp_path: Path, source: str, ending: str) -> None:
    save = save_nifti if source == ".nii.gz" else save_itk
    volume = read_volume(save(tmp_path / f"a{source}", voxels(), OBLIQUE))
    written = write_label(volume, labelled(), tmp_path / f"b{ending}")
    np.testing.assert_array_equal(read_label(written, volume), labelled())
    np.testing.assert_allclose(read_volume(written).affine, volume.affine, atol=1e-6)
    if source == ending:
        np.testing.assert_array_equal(read_volume(written).affine, volume.affine)


def test_bool_masks_can_be_written(tmp_path: Path, image: Volume) -> None:
    written = write_label(image, labelled() > 1, tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(read_label(written, image), labelled() > 1)


def test_what_cannot_be_written(tmp_path: Path, image: Volume) -> None:
    for label, name, word in (
        (labelled()[:-1], "b.nii.gz", "4x4x3"),
        (labelled() / 2, "b.nii.gz", "expected integers"),
        (labelled("int16") - 1, "b.nii.gz", "-1 to"),
        (labelled(), "b.mhd", ".mha"),
    ):
        with pytest.raises(InputError, match=word):
            write_label(image, label, tmp_path / name)
    assert not (tmp_path / "b.nii.gz").exists()


def test_sheared_grids_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.7
    image = nib.Nifti1Image(voxels(), None)
    image.set_sform(sheared, 1)
    image.set_qform(None, 0)
    image.to_filename(tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert "sheared" in caplog.text
    written = write_label(volume, labelled(), tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(nib.load(written).affine, volume.affine)
    for ending in (".mha", ".nrrd"):
        written = write_label(volume, labelled(), tmp_path / f"b{ending}")
        image = sitk.ReadImage(written)
        for index in ((0, 0, 0), (4, 0, 0), (0, 3, 0), (0, 0, 2), (4, 3, 2)):
            x, y, z = image.TransformContinuousIndexToPhysicalPoint([float(n) for n in index])
            np.testing.assert_allclose((-x, -y, z, 1), volume.affine @ (*index, 1), atol=1e-5)
