"""Scans as real files hold them: units, images of one series told apart, pictures, stated sizes."""

import gzip
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_factory import make_enhanced, make_slice, save, stored_values
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from samonai.core import memory
from samonai.core.errors import InputError
from samonai.domains.base import metric_spacing
from samonai.domains.medical import Volume, read_label, read_volume, write_label
from samonai.domains.medical.objects.measurements import measure
from samonai.domains.medical.objects.segments import segment_of
from samonai.domains.medical.prompts.boxes import read_boxes
from samonai.metrics.volumes import case_rows

SHAPE = (12, 10, 6)
MM = np.array([[0, -1, 0, -20], [1.5, 0, 0, -30], [0, 0, 2, 40], [0, 0, 0, 1]], float)


def refusal(path: Path, **options: Any) -> str:
    """Return the one line that refuses a scan."""
    with pytest.raises(InputError) as caught:
        read_volume(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def block() -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[3:7, 2:7, 1:4] = 1
    return label


def nifti(path: Path, unit: str = "mm", per_mm: float = 1.0) -> Path:
    """Write the block on a grid that is the same in mm, in another unit."""
    affine = MM.copy()
    affine[:3] *= per_mm
    image = nib.Nifti1Image(block(), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


UNITS = [("mm", 1.0), ("micron", 1000.0), ("meter", 0.001), ("unknown", 1.0)]


@pytest.mark.parametrize(("unit", "per_mm"), UNITS)
@pytest.mark.conformance(
    domain="medical",
    condition="NIfTI xyzt_units of metres, micrometres, mm, unknown",
    source="NIfTI-1 xyzt_units; issue 17 A.1",
    right="geometry in mm, the same ml; the label keeps the file's numbers and unit code",
    reader="SimpleITK (converts), nibabel (the file's own numbers)",
    severity=1,
)
def test_units_of_nifti(tmp_path: Path, unit: str, per_mm: float) -> None:
    path = nifti(tmp_path / "a.nii.gz", unit, per_mm)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.affine, MM, atol=1e-4)
    theirs = sitk.ReadImage(path)
    np.testing.assert_allclose(volume.spacing, theirs.GetSpacing(), rtol=1e-5)
    (found,) = measure(volume, block(), [segment_of(1)])
    assert found.volume_ml == pytest.approx(60 * 3 / 1000)
    written = nib.load(write_label(volume, block(), tmp_path / "b.nii.gz"))
    np.testing.assert_array_equal(written.affine, nib.load(path).affine)
    assert written.header.get_xyzt_units()[0] == unit
    nrrd = sitk.ReadImage(write_label(volume, block(), tmp_path / "b.nrrd"))
    np.testing.assert_allclose(nrrd.GetSpacing(), (1.5, 1, 2), rtol=1e-5)
    # Label and image need not use one unit.
    np.testing.assert_array_equal(read_label(nifti(tmp_path / "mm.nii.gz"), volume), block())


@pytest.mark.conformance(
    domain="medical",
    condition="NRRD space units, MetaImage DistanceUnits other than mm",
    source="teem NRRD 'space units'; MetaIO DistanceUnits; issue 17 A.1",
    right="refused, naming the unit; mm is read",
    reader="none (refusal)",
    severity=1,
)
def test_units_of_nrrd_and_metaimage(tmp_path: Path) -> None:
    volume = read_volume(nifti(tmp_path / "a.nii.gz"))
    nrrd = write_label(volume, block(), tmp_path / "b.nrrd")
    whole = nrrd.read_bytes()
    for unit, read in (("mm", True), ("um", False), ("furlong", False)):
        line = b'space units: "%s" "%s" "%s"\n' % ((unit.encode(),) * 3)
        nrrd.write_bytes(whole.replace(b"encoding:", line + b"encoding:", 1))
        if read:
            np.testing.assert_allclose(read_volume(nrrd).affine, MM, atol=1e-5)
        else:
            assert f"'{unit}'; expected mm" in refusal(nrrd)
    mha = write_label(volume, block(), tmp_path / "b.mha")
    mha.write_bytes(
        mha.read_bytes().replace(b"ElementDataFile", b"DistanceUnits = um\nElementDataFile", 1)
    )
    assert "DistanceUnits 'um'" in refusal(mha)


def edited(whole: bytes, path: Path, key: str, value: str | None, sign: str) -> Path:
    """Write a header's text with another value of a key, or without its line."""
    head, _, rest = whole.partition(f"{key}{sign}".encode())
    line = b"" if value is None else f"{key}{sign}{value}\n".encode()
    path.write_bytes(head + line + rest.partition(b"\n")[2])
    return path


@pytest.mark.conformance(
    domain="medical",
    condition="MetaImage and NRRD without the size of their voxels, or with numbers that are none",
    source="SimpleITK 2.5.7 takes no size for 1 mm and an Offset that is no number for 0",
    right="refused, naming the field",
    reader="none (refusal)",
    severity=1,
)
def test_numbers_of_nrrd_and_metaimage(tmp_path: Path) -> None:
    volume = read_volume(nifti(tmp_path / "a.nii.gz"))
    whole = write_label(volume, block(), tmp_path / "b.mha").read_bytes()
    for key, value in (
        ("ElementSpacing", None), ("ElementSpacing", "1 2"), ("ElementSpacing", "nan 1 1"),
        ("Offset", "x y z"), ("TransformMatrix", "1 0 0"), ("NDims", "x"), ("DimSize", "12 10"),
        ("ElementType", "MET_OTHER"),
    ):  # fmt: skip
        assert key in refusal(edited(whole, tmp_path / "c.mha", key, value, " = "))
    whole = write_label(volume, block(), tmp_path / "b.nrrd").read_bytes()
    for key, value in (
        ("space directions", None),
        ("space directions", "none (0,1,0) (0,0,1)"),
    ):
        assert key in refusal(edited(whole, tmp_path / "c.nrrd", key, value, ": "))
    # A digit of another script is a digit to Python, and no number to anybody else.
    bad = edited(whole, tmp_path / "c.nrrd", "sizes", "12 10 \N{SUPERSCRIPT TWO}", ": ")
    assert "sizes" in refusal(bad) or "dimensions" in refusal(bad)


@pytest.mark.conformance(
    domain="medical",
    condition="NRRD whose space is not the patient's: scanner-xyz, 3D-right-handed",
    source="teem, definition of the NRRD file format, 'space'",
    right="left-posterior-superior, as ITK takes it, with a warning",
    reader="SimpleITK 2.5.7",
    severity=1,
)
def test_spaces_of_nrrd(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volume = read_volume(nifti(tmp_path / "a.nii.gz"))
    whole = write_label(volume, block(), tmp_path / "b.nrrd").read_bytes()
    for space, warned in (("left-posterior-superior", False), ("scanner-xyz", True)):
        caplog.clear()
        path = edited(whole, tmp_path / "c.nrrd", "space", space, ": ")
        np.testing.assert_allclose(read_volume(path).affine, MM, atol=1e-5)
        np.testing.assert_allclose(sitk.ReadImage(path).GetOrigin(), (20, 30, 40), atol=1e-5)
        assert ("not one of the patient's axes" in caplog.text) == warned


def header_field(path: Path, offset: int, value: Any, dtype: str = "<f4") -> Path:
    """Put a value at an offset of a NIfTI-1 header."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    number = np.array(value, dtype).tobytes()
    raw[offset : offset + len(number)] = number
    path.write_bytes(gzip.compress(bytes(raw)))
    return path


@pytest.mark.parametrize("coded", [True, False])
@pytest.mark.conformance(
    domain="medical",
    condition="NIfTI pixdim of 0",
    source="NIfTI-1 pixdim; nibabel sets it to 1; issue 17 A.1",
    right="refused, not read as 1 mm",
    reader="none (refusal)",
    severity=1,
)
def test_pixdim_of_zero(tmp_path: Path, coded: bool) -> None:
    path = header_field(nifti(tmp_path / "a.nii.gz"), 84, 0.0)
    if not coded:
        header_field(path, 252, [0, 0], "<i2")
    assert "pixdim says voxels of 1.5x0x2" in refusal(path)


@pytest.mark.conformance(
    domain="medical",
    condition="NIfTI slope, intercept or vox_offset of NaN or infinity",
    source="NIfTI-1 scl_slope, scl_inter, vox_offset; issue 17 A.6",
    right="a NaN slope means none, as nibabel reads it; the others are refused",
    reader="nibabel",
    severity=2,
)
def test_header_numbers_that_are_none(tmp_path: Path) -> None:
    vox_offset, slope, inter = 108, 112, 116
    path = header_field(nifti(tmp_path / "a.nii.gz"), slope, np.nan)
    np.testing.assert_array_equal(read_volume(path).data, nib.load(path).get_fdata())
    for offset, value in (
        *((slope, np.inf), (vox_offset, np.nan), (vox_offset, np.inf), (vox_offset, -8)),
    ):
        refusal(header_field(nifti(tmp_path / "b.nii.gz"), offset, value))
    path = header_field(header_field(nifti(tmp_path / "c.nii.gz"), slope, 2.0), inter, np.nan)
    assert "scl_inter nan" in refusal(path)


@pytest.mark.conformance(
    domain="medical",
    condition="qform and sform that differ by rounding (1.4 micrometres)",
    source="issue 17 A.6",
    right="read; geometries that part by a twentieth of a voxel at a corner are refused",
    reader="nibabel",
    severity=3,
)
def test_qform_and_sform_apart_by_rounding(tmp_path: Path) -> None:
    image = nib.load(nifti(tmp_path / "a.nii.gz"))
    for shift, read in ((0.0014, True), (0.2, False)):
        moved = MM.copy()
        moved[0, 3] += shift
        image.set_qform(moved, 1)
        image.set_sform(MM, 1)
        nib.save(image, tmp_path / "b.nii.gz")
        if read:
            np.testing.assert_allclose(read_volume(tmp_path / "b.nii.gz").affine, MM, atol=1e-5)
        else:
            assert "contradict" in refusal(tmp_path / "b.nii.gz")


@pytest.mark.conformance(
    domain="medical",
    condition="Mask of 0 and 1 stored by nibabel with a slope (1.0000000591)",
    source="nibabel set_data_dtype on float data; issue 17 A.6",
    right="whole within 1e-3 is whole; 0.996 is refused",
    reader="nibabel",
    severity=2,
)
def test_scaled_masks(tmp_path: Path) -> None:
    volume = read_volume(nifti(tmp_path / "a.nii.gz"))
    for name, mask in (("one", block() * 1.0), ("two", np.where(np.arange(6) < 1, 2.0, block()))):
        image = nib.Nifti1Image(mask, MM)
        image.set_data_dtype(np.uint8)
        nib.save(image, tmp_path / f"{name}.nii.gz")
    assert nib.load(tmp_path / "one.nii.gz").dataobj.slope != 1
    np.testing.assert_array_equal(read_label(tmp_path / "one.nii.gz", volume), block())
    stored = np.unique(np.asarray(nib.load(tmp_path / "two.nii.gz").dataobj))
    assert np.abs(stored - np.rint(stored)).max() > 1e-3
    with pytest.raises(InputError, match=r"expected whole numbers .*scale factor"):
        read_label(tmp_path / "two.nii.gz", volume)


@pytest.mark.conformance(
    domain="medical",
    condition="Sheared NRRD",
    source="NRRD 'space directions'; issue 17 A.6",
    right="read, and written as NRRD, MHA and NIfTI with its shear",
    reader="SimpleITK, nibabel",
    severity=2,
)
def test_sheared_nrrd(tmp_path: Path) -> None:
    sheared = MM.copy()
    sheared[1, 2] = 0.9
    image = sitk.GetImageFromArray(np.ascontiguousarray(block().T))
    spacing = np.sqrt((sheared[:3, :3] ** 2).sum(axis=0))
    lps = np.diag([-1, -1, 1]) @ sheared[:3, :3]
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps / spacing).ravel().tolist())
    image.SetOrigin([20, 30, 40])
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    volume = read_volume(tmp_path / "a.nrrd")
    np.testing.assert_allclose(volume.affine, sheared, atol=1e-5)
    for ending in (".nrrd", ".mha"):
        written = sitk.ReadImage(write_label(volume, block(), tmp_path / f"b{ending}"))
        for index in ((0, 0, 0), (11, 9, 5), (0, 0, 5)):
            x, y, z = written.TransformIndexToPhysicalPoint(index)
            np.testing.assert_allclose((-x, -y, z, 1), sheared @ (*index, 1), atol=1e-4)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(written).T, block())
    written = nib.load(write_label(volume, block(), tmp_path / "b.nii.gz"))
    np.testing.assert_allclose(written.affine, sheared, atol=1e-5)


@pytest.mark.conformance(
    domain="medical",
    condition="A 4D label map; a .seg.nrrd of 3D Slicer in two layers",
    source="issue 17 A.6; Slicer, .seg.nrrd: segments that overlap are layers",
    right="refused without advising time=, which labels do not follow; the layers are named",
    reader="none (refusal)",
    severity=3,
)
def test_labels_of_several_volumes(tmp_path: Path) -> None:
    volume = read_volume(nifti(tmp_path / "a.nii.gz"))
    nib.save(nib.Nifti1Image(np.stack([block()] * 2, -1), MM), tmp_path / "4d.nii.gz")
    with pytest.raises(InputError, match="one 3D label map: split it") as caught:
        read_label(tmp_path / "4d.nii.gz", volume)
    assert "time" not in str(caught.value)
    assert "time=N" in refusal(tmp_path / "4d.nii.gz")
    layers = sitk.GetImageFromArray(np.stack([block().T] * 2, -1), isVector=True)
    for key, value in {"Segment0_Name": "liver", "Segment0_Layer": "0"}.items():
        layers.SetMetaData(key, value)
    sitk.WriteImage(layers, str(tmp_path / "b.seg.nrrd"))
    with pytest.raises(InputError, match="2 layers, because its segments overlap"):
        read_label(tmp_path / "b.seg.nrrd", volume)


@pytest.mark.conformance(
    domain="medical",
    condition="CSV of boxes: class 1.0, case named with its ending",
    source="issue 17 A.6",
    right="class 1 of that case; 1.5 is refused",
    reader="none (a table)",
    severity=3,
)
def test_tables_of_boxes(tmp_path: Path) -> None:
    volume = read_volume(nifti(tmp_path / "scan.nii.gz"))
    path = tmp_path / "boxes.csv"
    path.write_text("case,i0,j0,k0,i1,j1,k1,class\nscan.nii.gz,3,2,1,7,7,4,1.0\n")
    assert read_boxes(path, volume, only_case=False).classes.tolist() == [1]
    path.write_text("case,i0,j0,k0,i1,j1,k1,class\nscan,3,2,1,7,7,4,1.5\n")
    with pytest.raises(InputError, match=r"class '1\.5' is not known"):
        read_boxes(path, volume, only_case=False)


# --- several images in one series ---------------------------------------------------------------


def write_slices(folder: Path, slices: list[tuple[float, int, dict[str, Any]]]) -> Path:
    """Write slices of one series: place along z, value of all pixels, elements."""
    uid = generate_uid()
    for number, (place, value, elements) in enumerate(slices):
        dataset = make_slice(np.full((5, 4), value, np.int16), (0, 0, place), uid=uid)
        dataset.Modality, dataset.InstanceNumber = "MR", number + 1
        dataset.RescaleIntercept, dataset.SliceThickness = 0, 6
        for keyword, element in elements.items():
            setattr(dataset, keyword, element)
        save(dataset, folder / f"{number:03d}")
    return folder


def values(volume: Volume) -> list[int]:
    return volume.data[0, 0].astype(int).tolist()


M, P = (["ORIGINAL", "PRIMARY", kind, "ND"] for kind in "MP")
IMAGES = {
    "echoes": ("EchoTime", [20.0, 90.0], "EchoTime 20.0"),
    "b-values": ("DiffusionBValue", [0.0, 1000.0], "DiffusionBValue 1000.0"),
    "kernels": ("ConvolutionKernel", ["B30f", "B70f"], "ConvolutionKernel B70f"),
    "frames of reference": ("FrameOfReferenceUID", ["1.2.3", "1.2.4"], "FrameOfReferenceUID 1 of"),
    "magnitude and phase": ("ImageType", [M, P], "ImageType M"),
    "contrast": ("ContrastBolusAgent", ["", "agent"], "without ContrastBolusAgent"),
    "acquisitions": ("AcquisitionNumber", [1, 2], "AcquisitionNumber 2"),
    "times": ("TemporalPositionIdentifier", [1, 2], "TemporalPositionIdentifier 2"),
}


@pytest.mark.parametrize("offset", [3.0, 0.0, 0.01])
@pytest.mark.parametrize("count", [6, 4])
@pytest.mark.parametrize("kind", list(IMAGES))
@pytest.mark.conformance(
    domain="medical",
    condition="Two echoes, b-values, kernels, frames of reference, magnitude and phase, before and "
    "after contrast in one series: half a step apart, at one place, in unequal numbers",
    source="issue 17 A.2",
    right="never one volume; the list says what tells them apart, time=N and UID#N choose",
    reader="the generator's own values",
    severity=1,
)
def test_images_of_one_series_do_not_mix(
    tmp_path: Path, kind: str, count: int, offset: float
) -> None:
    keyword, (first, second), told = IMAGES[kind]
    slices = [(6.0 * k, 100 + k, {keyword: first}) for k in range(6)]
    slices += [(6.0 * k + offset, 200 + k, {keyword: second}) for k in range(count)]
    write_slices(tmp_path, slices)
    message = refusal(tmp_path)
    assert "2 volumes in one series" in message
    assert told in message
    assert values(read_volume(tmp_path, time=1)) == [100 + k for k in range(6)]
    second_volume = read_volume(tmp_path, series=re.findall(r"series (\S+#2)", message)[0])
    assert values(second_volume) == [200 + k for k in range(count)]
    assert second_volume.spacing[2] == pytest.approx(6)


@pytest.mark.conformance(
    domain="medical",
    condition="One volume whose slices were acquired in two passes, or in blocks",
    source="reports gathered in issue 17",
    right="one volume",
    reader="the generator's own values",
    severity=2,
)
def test_passes_of_one_volume_stay_together(tmp_path: Path) -> None:
    spacing = {"SpacingBetweenSlices": 6, "AcquisitionNumber": 1}
    odd = [
        (6.0 * k, k, {**spacing, "AcquisitionTime": f"12{k % 2:02d}00", "EchoTime": 20 + 0.002 * k})
        for k in range(8)
    ]
    assert values(read_volume(write_slices(tmp_path / "a", odd))) == list(range(8))
    blocks = [(6.0 * k, k, {"AcquisitionNumber": 1 + k // 4}) for k in range(8)]
    assert values(read_volume(write_slices(tmp_path / "b", blocks))) == list(range(8))
    # Where the header's own spacing is that of each pass, they are two volumes.
    for _, _, elements in odd:
        elements["SpacingBetweenSlices"] = 12
    assert "2 volumes" in refusal(write_slices(tmp_path / "c", odd))


SLICES, TIMES = 5, 4
CLOCKS: dict[str, Any] = {
    "trigger times that vary with the heart rate": lambda k, p: {
        "TriggerTime": round(p * (900 + 13 * k) / TIMES, 1)
    },
    "a clock per slice": lambda k, p: {"AcquisitionTime": f"1201{p * 10 + k * 0.35:05.2f}"},
    "two table positions": lambda k, p: {
        "AcquisitionTime": f"1202{(k > 1) * 30 + p * 2:05.2f}",
        "ContentTime": f"1202{(k > 1) * 30 + p * 2:05.2f}",
    },
    "over midnight": lambda k, p: {
        "AcquisitionDate": "20200101" if p < 2 else "20200102",
        "AcquisitionTime": f"{'2359' if p < 2 else '0000'}{p * 10 + k:02d}",
    },
}


@pytest.mark.parametrize("clock", list(CLOCKS))
@pytest.mark.conformance(
    domain="medical",
    condition="4D series with trigger times or clocks that vary per slice; two table positions",
    source="issue 17 A.2",
    right="as many volumes as each position has slices, each with all positions, by rank in time",
    reader="dcm2niix 1.0.20260724",
    severity=1,
)
def test_times_are_whole_volumes(tmp_path: Path, clock: str) -> None:
    series = tmp_path / "series"
    write_slices(
        series,
        [
            (8.0 * k, 100 * (p + 1) + k, {"AcquisitionNumber": 1, **CLOCKS[clock](k, p)})
            for k in range(SLICES)
            for p in range(TIMES)
        ],
    )
    message = refusal(series)
    assert "4 volumes in one series" in message
    assert "1 of 4 at each position" in message
    for p in range(TIMES):
        assert values(read_volume(series, time=p + 1)) == [100 * (p + 1) + k for k in range(SLICES)]
    if program := dcm2niix():
        (theirs,) = converted(program, series, tmp_path / "converted")
        assert theirs.shape[2:] == (SLICES, TIMES)
        for p in range(TIMES):
            volume = read_volume(series, time=p + 1)
            np.testing.assert_array_equal(volume.data[:, ::-1], theirs[..., p])


def dcm2niix() -> str | None:
    """Return the converter of this environment, None where there is none for the platform."""
    return shutil.which("dcm2niix", path=str(Path(sys.executable).parent)) or shutil.which(
        "dcm2niix"
    )


def converted(program: str, source: Path, out: Path) -> list[np.ndarray]:
    """Return the volumes that dcm2niix makes of a series: (I, J, K, ...), rows flipped."""
    out.mkdir()
    command = [program, "-z", "n", "-b", "n", "-f", "%s_%e", "-o", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return [np.asarray(nib.load(path).dataobj) for path in sorted(out.glob("*.nii"))]


def concatenation(folder: Path, cuts: list[int], skip: int = 0, offset: int = 0) -> np.ndarray:
    """Write one enhanced object in parts that end at the cuts; return its stored values."""
    stored = stored_values()
    whole = make_enhanced(stored, range(len(stored)))
    starts = [0, *cuts]
    for number, (start, end) in enumerate(zip(starts, [*cuts, len(stored)], strict=True), 1):
        part = make_enhanced(stored, range(start, end))
        part.PerFrameFunctionalGroupsSequence = whole.PerFrameFunctionalGroupsSequence[start:end]
        part.SeriesInstanceUID, part.NumberOfFrames = "1.2.3", end - start
        part.StudyInstanceUID = part.FrameOfReferenceUID = "1.2"
        part.ConcatenationUID, part.InConcatenationNumber = "1.2.3.4", number
        part.InConcatenationTotalNumber = len(starts)
        part.ConcatenationFrameOffsetNumber = start + offset * (number > 1)
        if number != skip:
            save(part, folder / f"{9 - number}.dcm")
    return stored


@pytest.mark.conformance(
    domain="medical",
    condition="A concatenation: one multi-frame object in several files",
    source="PS3.3 C.7.6.16.2.2.4; issue 17 A.2",
    right="one volume; a missing part, or offsets that leave frames out, are refused",
    reader="the generator's own values",
    severity=1,
)
def test_concatenations(tmp_path: Path) -> None:
    stored = concatenation(tmp_path / "a", [2, 5])
    np.testing.assert_array_equal(read_volume(tmp_path / "a").data.T + 1024, stored)
    for skip in (1, 2, 3):
        concatenation(tmp_path / f"without{skip}", [2, 5], skip=skip)
        assert f"part {skip} of the 3 files" in refusal(tmp_path / f"without{skip}")
    concatenation(tmp_path / "b", [2, 5], offset=1)
    assert "does not begin at frame 3" in refusal(tmp_path / "b")


# --- pictures ------------------------------------------------------------------------------------


def picture(path: Path, modality: str, frames: int = 0, **elements: Any) -> Path:
    pixels = np.arange(20, dtype=np.uint8).reshape(5, 4)
    dataset = make_slice(np.stack([pixels] * frames) if frames else pixels, (0, 0, 0))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, keyword)
    dataset.Modality, dataset.RescaleIntercept, dataset.InstanceNumber = modality, 0, 1
    if frames:
        dataset.NumberOfFrames = frames
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    save(dataset, path)
    return path


def region() -> Dataset:
    found = Dataset()
    found.PhysicalUnitsXDirection = found.PhysicalUnitsYDirection = 3
    found.PhysicalDeltaX, found.PhysicalDeltaY = 0.02, 0.03
    return found


PICTURES: list[tuple[str, dict[str, Any], tuple[float, float] | None, float]] = [
    ("US", {"frames": 3}, None, 1),
    ("OT", {}, None, 1),
    ("OT", {"PixelAspectRatio": [2, 1]}, None, 2),
    ("DX", {"ImagerPixelSpacing": [0.3, 0.2]}, None, 1.5),
    ("DX", {"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.2, 0.2]}, None, 1),
    ("XA", {"ImagerPixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 1.3},
     None, 1),
    ("DX", {"ImagerPixelSpacing": [0.3, 0.2], "PixelSpacing": [0.15, 0.1],
            "PixelSpacingCalibrationType": "GEOMETRY"}, (0.1, 0.15), 1.5),
    ("US", {"frames": 3, "SequenceOfUltrasoundRegions": [region()]}, (0.2, 0.3), 1.5),
]  # fmt: skip


@pytest.mark.parametrize(("modality", "elements", "pixel", "ratio"), PICTURES)
@pytest.mark.conformance(
    domain="medical",
    condition="Pictures without calibration: loops, secondary captures, PixelAspectRatio, spacing "
    "of a detector",
    source="PS3.3 10.7, C.7.6.3.1.7, C.8.5.5; issue 17 A.1",
    right="no mm and no ml in measurements and metrics, and why; a calibrated picture has mm in "
    "its plane and no ml",
    reader="none (nothing is measured)",
    severity=1,
)
def test_pictures_without_calibration(
    tmp_path: Path,
    modality: str,
    elements: dict[str, Any],
    pixel: tuple[float, float] | None,
    ratio: float,
) -> None:
    volume = read_volume(picture(tmp_path / "a.dcm", modality, **elements))
    assert volume.spacing[1] / volume.spacing[0] == pytest.approx(ratio)
    label = np.ones(volume.shape, np.int32)
    (found,) = measure(volume, label, [segment_of(1)])
    assert volume.unmeasurable
    assert (found.volume_ml, found.centroid_mm) == (None, None)
    assert found.voxels == label.size
    if pixel is None:
        assert found.extents_mm is None
    else:
        assert found.extents_mm == (pytest.approx(4 * pixel[0]), pytest.approx(5 * pixel[1]), None)
    assert metric_spacing(volume) is None
    (row,) = case_rows(label, label, spacing=None, classes={1: "a"}, case_id="a")
    assert (row["dice"], row["hd95_mm"], row["volume_ml"], row["surface_dice"]) == (
        *(1, None, None, None),
    )
    written = nib.load(write_label(volume, label, tmp_path / "b.nii.gz"))
    assert written.header.get_xyzt_units()[0] == ("unknown" if pixel is None else "mm")


@pytest.mark.conformance(
    domain="medical",
    condition="A slice with a position and without PixelSpacing; a single one without thickness",
    source="PS3.3 C.7.6.2, C.7.6.16.2.1; issue 17 A.1, A.4",
    right="refused, not read as 1 mm; no ml; one frame's thickness is that of its PixelMeasures",
    reader="the generator's own values",
    severity=1,
)
def test_slices_without_a_size(tmp_path: Path) -> None:
    dataset = make_slice(np.zeros((5, 4), np.int16), (0, 0, 0))
    dataset.pixel_array[0, 0] = 1
    save(dataset, tmp_path / "b" / "a.dcm")
    assert "how thick" in read_volume(tmp_path / "b").unmeasurable
    del dataset.PixelSpacing
    save(dataset, tmp_path / "a" / "a.dcm")
    assert "no PixelSpacing" in refusal(tmp_path / "a")
    frame = make_enhanced(stored_values((1, 5, 4)), [0])
    (shared,), (own,) = (
        frame.SharedFunctionalGroupsSequence, frame.PerFrameFunctionalGroupsSequence
    )  # fmt: skip
    shared.PixelMeasuresSequence[0].SliceThickness = 7
    for name in ("shared", "per frame"):
        if name == "per frame":
            own.PixelMeasuresSequence = shared.PixelMeasuresSequence
            del shared.PixelMeasuresSequence
        save(frame, tmp_path / name / "a.dcm")
        volume = read_volume(tmp_path / name)
        np.testing.assert_allclose(volume.spacing, (0.7, 0.8, 7))
        assert volume.unmeasurable == ""


@pytest.mark.parametrize("modality", ["PX", "IO", "RF", "XA", "OT", "CR", "DX", "MG", "US", "CT"])
@pytest.mark.conformance(
    domain="medical",
    condition="MONOCHROME1 of PX, IO, RF, XA, OT and other pictures",
    source="PS3.3 C.7.6.3.1.2; issue 17 A.6",
    right="inverted, as CR, DX, MG and US are; the numbers of CT, MR, PT, NM stay",
    reader="stored values by pydicom, inverted by hand",
    severity=1,
)
def test_monochrome1(tmp_path: Path, modality: str) -> None:
    path = picture(tmp_path / "a.dcm", modality, PhotometricInterpretation="MONOCHROME1")
    stored = pydicom.dcmread(path).pixel_array.astype(int)
    if modality == "CT":
        dataset = make_slice(stored.astype(np.uint8), (0, 0, 0))
        dataset.PhotometricInterpretation, dataset.RescaleIntercept = "MONOCHROME1", 0
        save(dataset, path)
    expected = stored if modality == "CT" else 255 - stored
    np.testing.assert_array_equal(read_volume(path).data[:, :, 0].T, expected)


# --- stated sizes --------------------------------------------------------------------------------


@pytest.mark.conformance(
    domain="medical",
    condition="NumberOfFrames of 2000000000 in a tiny file, or of 0",
    source="issue 17 D.5",
    right="refused at once: the number is compared with the file's length",
    reader="none (refusal)",
    severity=2,
)
def test_promised_frames(tmp_path: Path) -> None:
    for frames in (2_000_000_000, 0, -3):
        path = picture(tmp_path / "a.dcm", "US", NumberOfFrames=frames)
        assert "NumberOfFrames is 2000000000" in refusal(path) or frames < 1


@pytest.mark.conformance(
    domain="medical",
    condition="A small gzip, NRRD, MHA or DICOM that wants more memory than there is",
    source="issue 17 D.5",
    right="refused before anything is unpacked, saying how much it needs",
    reader="none (refusal)",
    severity=2,
)
def test_promised_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.zeros((64, 64, 64), np.int16)
    nib.save(nib.Nifti1Image(large, MM), tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    paths = [tmp_path / "a.nii.gz"]
    paths += [write_label(volume, large, tmp_path / f"b{end}") for end in (".nrrd", ".mha")]
    slices = [(6.0 * k, 0, {}) for k in range(4)]
    paths.append(write_slices(tmp_path / "series", slices))
    for free, path in zip((1 << 19, 1 << 17, 1 << 17, 50), paths, strict=True):
        monkeypatch.setattr(memory, "available_memory", lambda free=free: free)
        assert "GiB of memory" in refusal(path)


@pytest.mark.conformance(
    domain="medical",
    condition="Memory that runs out while a scan is read",
    source="issue 17 D.5",
    right="one line, no traceback",
    reader="none (refusal)",
    severity=2,
)
def test_memory_that_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any) -> None:
        raise MemoryError

    path = nifti(tmp_path / "a.nii.gz")
    monkeypatch.setattr("samonai.domains.medical.formats.nifti.apply_read_scaling", exhausted)
    assert "more voxels than memory holds" in refusal(path)


@pytest.mark.conformance(
    domain="medical",
    condition="A slice of a series whose Rows or Columns are 0",
    source="PS3.3 C.7.6.3 Image Pixel Module: Rows and Columns are of type 1",
    right="refused as damaged, not left out of the volume",
    reader="none (refusal)",
    severity=1,
)
def test_slices_without_rows(tmp_path: Path) -> None:
    for number in range(3):
        one = make_slice(stored_values((1, 5, 4))[0], (0, 0, 2.5 * number))
        one.InstanceNumber = number + 1
        if number == 2:
            one.Rows = 0
        save(one, tmp_path / f"{number}.dcm")
    assert "without a size" in refusal(tmp_path)


def multiframe(path: Path, order: list[int], **frames: list[Any] | None) -> Volume:
    """Write an enhanced CT of 6 slices (10 times the slice's number), frames as ordered; read it.

    Args:
        path: The file.
        order: The slice that each frame holds.
        frames: `stacks`: StackID of each frame; `slopes`: RescaleSlope of each frame.
    """
    stored = np.stack([np.full((3, 4), 10 * k, np.int16) for k in range(6)])
    dataset = make_enhanced(stored, order)
    (shared,) = dataset.SharedFunctionalGroupsSequence
    shared.PixelMeasuresSequence[0].SpacingBetweenSlices = 2.5
    for n, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        if stacks := frames.get("stacks"):
            content = Dataset()
            content.StackID, content.InStackPositionNumber = str(stacks[n]), 1
            frame.FrameContentSequence = [content]
        if slopes := frames.get("slopes"):
            value = Dataset()
            value.RescaleSlope, value.RescaleIntercept, value.RescaleType = slopes[n], -5, "HU"
            frame.PixelValueTransformationSequence = [value]
    if frames.get("slopes"):
        del shared.PixelValueTransformationSequence
    save(dataset, path)
    return read_volume(path)


@pytest.mark.conformance(
    domain="medical",
    condition="Enhanced multi-frame: frames in any order, or in several stacks of one volume",
    source="github.com/horosproject/horos/issues/543; github.com/rordenlab/dcm2niix/issues/839",
    right="one volume in the order of positions, where the slice spacing is that of all stacks",
    reader="the generator's own values (SimpleITK 2.5.7 leaves the frames as stored)",
    severity=1,
)
def test_frames_in_any_order(tmp_path: Path) -> None:
    for order, stacks in (([3, 0, 5, 1, 4, 2], None), ([0, 3, 1, 4, 2, 5], [1, 1, 2, 2, 3, 3])):
        volume = multiframe(tmp_path / "a.dcm", order, stacks=stacks)
        assert volume.data[0, 0].tolist() == [10 * k - 1024 for k in range(6)]
        np.testing.assert_allclose(volume.spacing, (0.7, 0.8, 2.5))
        assert volume.affine[:3, 3].tolist() == [10, -20, -30]


@pytest.mark.conformance(
    domain="medical",
    condition="Enhanced multi-frame: slope and intercept of each frame",
    source="github.com/pydicom/pydicom/issues/2353",
    right="each frame by its own; pydicom's apply_rescale leaves them as stored",
    reader="the generator's own values",
    severity=1,
)
def test_slopes_of_frames(tmp_path: Path) -> None:
    order = [2, 0, 1, 3, 5, 4]
    volume = multiframe(tmp_path / "a.dcm", order, slopes=[k + 1 for k in order])
    assert volume.data[0, 0].tolist() == [10 * k * (k + 1) - 5 for k in range(6)]
