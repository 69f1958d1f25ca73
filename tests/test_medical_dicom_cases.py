"""DICOM as it really comes: each case is read right or refused in one line (docs/dicom.md)."""

import base64
import io
import logging
import re
from pathlib import Path
from typing import Any

import gdcm
import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_factory import (
    AXIAL,
    CANARY,
    INTERCEPT,
    STEP,
    make_enhanced,
    make_slice,
    save,
    stored_values,
    write_series,
)
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from samonai.core.errors import InputError
from samonai.domains.medical import read_volume

LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])


def refused(path: Path, *words: str, **options: Any) -> None:
    with pytest.raises(InputError) as caught:
        read_volume(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert CANARY not in message
    for word in words:
        assert word in message


@pytest.fixture(autouse=True)
def _no_patient_in_logs(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    yield
    assert CANARY not in caplog.text


# Geometry


@pytest.mark.parametrize(
    "orientation",
    [AXIAL, (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), (0.8, 0.6, 0, -0.6, 0.8, 0)],
    ids=["axial", "sagittal", "coronal", "oblique"],
)
def test_geometry_equals_simpleitk_and_highdicom(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    write_series(tmp_path, orientation=orientation, order=[3, 0, 5, 1, 2, 4])
    volume = read_volume(tmp_path)

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    reader.SetOutputPixelType(sitk.sitkFloat32)
    image = reader.Execute()
    by_itk = np.eye(4)
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    by_itk[:3, :3], by_itk[:3, 3] = direction * image.GetSpacing(), image.GetOrigin()
    np.testing.assert_allclose(volume.affine, LPS_TO_RAS @ by_itk, atol=1e-6)
    np.testing.assert_array_equal(volume.data, sitk.GetArrayFromImage(image).T)

    datasets = [pydicom.dcmread(path) for path in tmp_path.iterdir()]
    other = hd.get_volume_from_series(datasets, dtype=np.float32, apply_presentation_lut=False)
    # highdicom counts (slice, row, column), and slices in either direction.
    swapped = other.affine[:, [2, 1, 0, 3]]
    array = other.array.transpose(2, 1, 0)
    if not np.allclose(LPS_TO_RAS @ swapped, volume.affine, atol=1e-6):
        swapped[:, 3] += swapped[:, 2] * (array.shape[2] - 1)
        swapped[:, 2] *= -1
        array = array[:, :, ::-1]
    np.testing.assert_allclose(LPS_TO_RAS @ swapped, volume.affine, atol=1e-6)
    np.testing.assert_array_equal(array, volume.data)


def test_enhanced_geometry_equals_highdicom(tmp_path: Path) -> None:
    dataset = make_enhanced(stored_values(), [4, 2, 0, 1, 5, 3])
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [Dataset()]
    save(dataset, tmp_path / "enhanced.dcm")
    volume = read_volume(tmp_path / "enhanced.dcm")
    frame_of = dataset.PerFrameFunctionalGroupsSequence
    positions = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in frame_of]
    step, order = hd.spatial.get_volume_positions(positions, AXIAL)
    assert step == pytest.approx(volume.spacing[2])
    stored = pydicom.dcmread(tmp_path / "enhanced.dcm").pixel_array
    sorted_by_highdicom = stored[np.argsort(order)] + np.float32(INTERCEPT)
    found = volume.data.T
    # highdicom may count slices in either direction.
    first = 0 if np.array_equal(found[0], sorted_by_highdicom[0]) else -1
    np.testing.assert_array_equal(found if first == 0 else found[::-1], sorted_by_highdicom)


def test_missing_slices_are_masked_when_gaps_are_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    series = write_series(tmp_path, skip=[2, 3])
    refused(tmp_path, "2 of 6 slices missing", "--allow-gaps")
    volume = read_volume(tmp_path, allow_gaps=True)
    assert volume.shape == (4, 5, 6)
    np.testing.assert_allclose(volume.affine, series.affine, atol=1e-9)
    there = [0, 1, 4, 5]
    np.testing.assert_array_equal(volume.data[:, :, there], series.expected[:, :, there])
    assert volume.valid is not None
    assert volume.valid.any(axis=(0, 1)).tolist() == [True, True, False, False, True, True]
    assert "2 of 6 slices are missing and masked" in caplog.text


def test_uneven_slices_are_interpolated_when_gaps_are_allowed(tmp_path: Path) -> None:
    # Values rise by 100 per mm along the normal, so that interpolation is exact.
    places = [0.0, 2.5, 5.0, 8.0, 10.5, 13.0]
    stored = np.stack([np.full((5, 4), 100 * place) for place in places]).astype(np.int16)

    def edit(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient[2] = -30 + places[number]

    write_series(tmp_path, stored, edit=edit)
    refused(tmp_path, "uneven slice spacing, 2.5 to 3 mm")
    volume = read_volume(tmp_path, allow_gaps=True)
    assert volume.spacing[2] == pytest.approx(2.5)
    assert volume.shape == (4, 5, 6)
    expected = 250.0 * np.arange(6) + INTERCEPT
    np.testing.assert_allclose(volume.data[0, 0], expected, atol=25)  # within a tenth of a step
    np.testing.assert_allclose(volume.data[0, 0, 3], expected[3], atol=1e-3)


def test_nothing_is_interpolated_across_a_wide_gap(tmp_path: Path) -> None:
    places = [0.0, 2.5, 5.0, 7.5, 7.5 + 1.85 * 2.5, 7.5 + 2.85 * 2.5]

    def edit(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient[2] = -30 + places[number]

    write_series(tmp_path, edit=edit)
    volume = read_volume(tmp_path, allow_gaps=True)
    assert volume.valid is not None
    masked = ~volume.valid.any(axis=(0, 1))
    assert masked.tolist() == [False, False, False, False, True, False, False]


def test_more_missing_than_there_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, stored_values((9, 5, 4)), skip=[2, 3, 4, 5, 6])
    refused(tmp_path, "5 of 9 slices missing, more than are there", allow_gaps=True)


def test_tilt_and_gap_together(tmp_path: Path) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient[1] = 20 + 0.3 * number

    write_series(tmp_path, edit=edit, skip=[2])
    volume = read_volume(tmp_path, allow_gaps=True)
    assert volume.valid is not None
    assert not volume.valid[:, :, 2].any()
    np.testing.assert_allclose(volume.affine[:3, 2], [0, -0.3, STEP], atol=1e-9)


def test_message_names_the_series(tmp_path: Path) -> None:
    series = write_series(tmp_path, skip=[2])
    refused(tmp_path, series.uid)


# Several volumes in one series


def _write_volumes(folder: Path, facts: list[dict[str, Any]]) -> list[np.ndarray]:
    uid, expected = generate_uid(), []
    for number, elements in enumerate(facts):

        def edit(dataset: Dataset, _: int, elements: dict[str, Any] = elements) -> None:
            for keyword, value in elements.items():
                setattr(dataset, keyword, value)

        stored = stored_values((3, 5, 4), seed=number)
        expected.append(write_series(folder / str(number), stored, uid=uid, edit=edit).expected)
    return expected


@pytest.mark.parametrize(
    "facts",
    [
        [{"DiffusionBValue": b} for b in (1000.0, 0.0, 500.0)],
        [{"EchoTime": t} for t in (80.0, 9.0, 20.0)],
        [{"TriggerTime": t} for t in (300.0, 0.0, 150.0)],
        [{"AcquisitionTime": t} for t in ("110300", "110100", "110200")],
        [{"DiffusionGradientOrientation": d} for d in ([1, 0, 0], [0, 0, 1], [0, 1, 0])],
    ],
    ids=["diffusion", "echoes", "cardiac", "times", "directions"],
)
def test_volumes_of_a_series_are_counted_in_their_order(
    tmp_path: Path, facts: list[dict[str, Any]]
) -> None:
    expected = _write_volumes(tmp_path, facts)
    refused(tmp_path, "3 volumes in one series", "time=N")
    for number, index in enumerate([1, 2, 0], start=1):
        np.testing.assert_array_equal(read_volume(tmp_path, time=number).data, expected[index])


def test_volumes_told_apart_by_two_facts(tmp_path: Path) -> None:
    facts = [{"EchoTime": e, "DiffusionBValue": b} for e in (9.0, 20.0) for b in (0.0, 800.0)]
    expected = _write_volumes(tmp_path, facts)
    refused(tmp_path, "4 volumes", "EchoTime 20.0, DiffusionBValue 800.0")
    np.testing.assert_array_equal(read_volume(tmp_path, time=3).data, expected[2])


def test_time_points_of_an_enhanced_object(tmp_path: Path) -> None:
    dataset = make_enhanced(stored_values(), list(range(6)))
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.TemporalPositionIndex = 1 + number % 2
        frame.FrameContentSequence = [content]
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, STEP * (number // 2)]
    save(dataset, tmp_path / "enhanced.dcm")
    refused(tmp_path, "2 volumes in one series", "3 slices")
    volume = read_volume(tmp_path, time=2)
    np.testing.assert_array_equal(volume.data.T, stored_values()[[1, 3, 5]] + np.float32(INTERCEPT))


def test_enhanced_rescaling_per_frame(tmp_path: Path) -> None:
    dataset = make_enhanced(stored_values(), list(range(6)))
    del dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        value = Dataset()
        value.RescaleSlope, value.RescaleIntercept = 0.25 * (number + 1), number
        frame.PixelValueTransformationSequence = [value]
    save(dataset, tmp_path / "enhanced.dcm")
    data = read_volume(tmp_path).data
    for number in range(6):
        expected = stored_values()[number] * (0.25 * (number + 1)) + number
        np.testing.assert_array_equal(data[:, :, number].T, expected.astype(np.float32))


def test_derived_images_are_never_merged(tmp_path: Path) -> None:
    write_series(tmp_path / "a", uid="1.2.3")

    def edit(dataset: Dataset, number: int) -> None:
        dataset.ImageType = ["DERIVED", "SECONDARY", "MPR"]
        dataset.ImagePositionPatient[2] += STEP * 6

    write_series(tmp_path / "b", uid="1.2.3", edit=edit)
    refused(tmp_path, "2 volumes in one series", "6 slices")


# Encodings


def _plain(stored: np.ndarray) -> Any:
    return make_slice(stored, (0, 0, 0))


def _read_one(path: Path) -> np.ndarray:
    return read_volume(path).data[..., 0].T


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8])
def test_compressed(tmp_path: Path, syntax: str, dtype: type) -> None:
    stored = stored_values((1, 64, 48))[0].astype(dtype)
    dataset = _plain(stored)
    dataset.compress(syntax, generate_instance_uid=False)
    save(dataset, tmp_path / "one.dcm")
    np.testing.assert_array_equal(_read_one(tmp_path / "one.dcm"), stored.astype(int) - 1024)


@pytest.mark.parametrize(
    "name", ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1"], ids=["57", "70"]
)
def test_jpeg_lossless(tmp_path: Path, name: str) -> None:
    stored = stored_values((1, 24, 16))[0].astype(np.uint16)
    save(_plain(stored), tmp_path / "plain")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(tmp_path / "plain"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "one.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    np.testing.assert_array_equal(_read_one(tmp_path / "one.dcm"), stored.astype(int) - 1024)


def _encapsulated(dataset: Any, syntax: str, code: bytes) -> Any:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([code])
    dataset["PixelData"].is_undefined_length = True
    return dataset


def test_jpeg_baseline(tmp_path: Path) -> None:
    picture = np.full((16, 16), 90, np.uint8)
    picture[:, 8:] = 200
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=100)
    dataset = _encapsulated(_plain(picture), JPEGBaseline8Bit, stream.getvalue())
    save(dataset, tmp_path / "one.dcm")
    np.testing.assert_allclose(_read_one(tmp_path / "one.dcm"), picture - 1024.0, atol=1)


def test_high_throughput_jpeg2000(tmp_path: Path) -> None:
    # No decoder that is a dependency can encode it: made once with imagecodecs 2026.3.6.
    code = base64.b64decode(
        "/0//UQApQAAAAAAIAAAABgAAAAAAAAAAAAAACAAAAAYAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUE"
        "BEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAFkAAf+TwAAm"
        "j/oFB3QAAADAABLAABMAUAGHdADS+QMHdADAABNAABMAJNIBAnQAyeQAIjQAwAAqYAAVYAiC/KAiMIJ2AE466aST"
        "wEIBvrYA/9k="
    )
    stored = (np.arange(48).reshape(6, 8) * 37 % 3000).astype(np.uint16)
    save(_encapsulated(_plain(stored), HTJ2KLossless, code), tmp_path / "one.dcm")
    np.testing.assert_array_equal(_read_one(tmp_path / "one.dcm"), stored.astype(int) - 1024)


def test_big_endian(tmp_path: Path) -> None:
    stored = stored_values()[0]
    image, dataset = _plain(stored), Dataset()  # a bare data set has no byte order yet
    dataset.update(image)
    dataset.file_meta = image.file_meta
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = stored.astype(">i2").tobytes()
    save(dataset, tmp_path / "one.dcm")
    np.testing.assert_array_equal(_read_one(tmp_path / "one.dcm"), stored - 1024)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [True, False])
def test_bit_depths(tmp_path: Path, bits: int, signed: bool) -> None:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    values = np.linspace(low, high, 20).reshape(5, 4).round().astype(int)
    size = 8 if bits == 8 else 16
    dataset = _plain((values & (2**bits - 1)).astype(f"u{size // 8}"))
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    save(dataset, tmp_path / "one.dcm")
    np.testing.assert_array_equal(_read_one(tmp_path / "one.dcm"), values - 1024)


def test_overlay_in_unused_bits_is_not_read(tmp_path: Path) -> None:
    values = stored_values()[0].astype(np.uint16)
    dataset = _plain(values | (5 << 12))
    dataset.BitsStored, dataset.HighBit = 12, 11
    save(dataset, tmp_path / "one.dcm")
    np.testing.assert_array_equal(_read_one(tmp_path / "one.dcm"), values.astype(int) - 1024)


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 192", "Müller^Jörg"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")],
)
def test_names_in_any_script(tmp_path: Path, charset: Any, name: str) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.SpecificCharacterSet, dataset.PatientName = charset, name

    series = write_series(tmp_path / "ordner ä 山", edit=edit)
    np.testing.assert_array_equal(read_volume(tmp_path).data, series.expected)


def test_unknown_character_set_is_no_obstacle(tmp_path: Path) -> None:
    series = write_series(tmp_path, edit=lambda d, n: setattr(d, "SpecificCharacterSet", "ISO_XX"))
    np.testing.assert_array_equal(read_volume(tmp_path).data, series.expected)


def test_zero_byte_file_leaves_a_gap(tmp_path: Path) -> None:
    write_series(tmp_path)
    (tmp_path / "slice003").write_bytes(b"")
    refused(tmp_path, "1 of 6 slices missing", "-22.50 mm")


# Pictures


def _colour(kind: str, frames: int | None = None) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*([frames] if frames else []), 6, 8, 3), dtype=np.uint8)
    dataset = make_slice(pixels[..., 0], (0, 0, 0))
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.PixelSpacing
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.Modality, dataset.SOPClassUID = "US", UltrasoundMultiFrameImageStorage
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, kind
    dataset.PlanarConfiguration, dataset.PixelData = 0, pixels.tobytes()
    if frames:
        dataset.NumberOfFrames = frames
    return dataset, pixels


def test_colour_ultrasound_loop_is_a_stack_of_pictures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, pixels = _colour("RGB", frames=3)
    region = Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.05, 0.04
    dataset.SequenceOfUltrasoundRegions = [region]
    save(dataset, tmp_path / "loop.dcm")
    volume = read_volume(tmp_path / "loop.dcm")
    expected = pixels @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(volume.data.T, expected, atol=1e-3)
    assert volume.spacing == pytest.approx((0.5, 0.4, 1))
    assert volume.facts.planar
    assert "burned into the pixels" in caplog.text


def test_ybr_equals_rgb(tmp_path: Path) -> None:
    dataset, pixels = _colour("YBR_FULL")
    save(dataset, tmp_path / "one.dcm")
    luminance = pixels[..., 0].astype(float)  # Y is the luminance
    inside = np.abs(pixels[..., 1:].astype(int) - 128).max(axis=-1) < 20  # RGB is not clipped
    inside &= (pixels[..., 0] > 60) & (pixels[..., 0] < 190)
    found = _read_one(tmp_path / "one.dcm")
    assert inside.any()
    np.testing.assert_allclose(found[inside], luminance[inside], atol=1.5)


def test_palette(tmp_path: Path) -> None:
    dataset, pixels = _colour("RGB")
    indices = pixels[..., 0] % 4
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "PALETTE COLOR"
    del dataset.PlanarConfiguration
    dataset.PixelData = indices.tobytes()
    tables = np.array([[0, 10, 20, 30], [50, 60, 70, 80], [90, 80, 70, 60]], np.uint8)
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 8])
        setattr(dataset, f"{name}PaletteColorLookupTableData", table.tobytes())
    save(dataset, tmp_path / "one.dcm")
    expected = tables.T[indices] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(_read_one(tmp_path / "one.dcm"), expected, atol=1e-3)


def test_pictures_of_a_series_are_stacked_by_their_numbers(tmp_path: Path) -> None:
    for number in (3, 1, 2):
        dataset, _ = _colour("RGB")
        dataset.InstanceNumber = number
        dataset.PixelData = bytes([number]) * (6 * 8 * 3)
        save(dataset, tmp_path / f"{9 - number}.dcm")
    np.testing.assert_allclose(read_volume(tmp_path).data[0, 0], [1, 2, 3], atol=1e-5)


def test_scan_without_positions_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, edit=lambda d, n: d.__delattr__("ImagePositionPatient"))
    refused(tmp_path, "no ImagePositionPatient")
    (tmp_path / "one").mkdir()
    (tmp_path / "slice003").rename(tmp_path / "one" / "slice")
    refused(tmp_path / "one", "series ", "no ImagePositionPatient", "nothing says where")


@pytest.mark.parametrize("position", [None, [0.0, 0.0, 0.0]])
def test_frames_of_a_scan_without_positions_are_refused(
    tmp_path: Path, position: list[float] | None
) -> None:
    # One position for all frames, as old multi-frame objects have it, places none of them.
    frames = make_enhanced(stored_values(), range(6))
    del frames.PerFrameFunctionalGroupsSequence, frames.SharedFunctionalGroupsSequence
    if position is not None:
        frames.ImagePositionPatient, frames.ImageOrientationPatient = position, list(AXIAL)
    frames.Modality = "MR"
    save(frames, tmp_path / "enhanced.dcm")
    refused(tmp_path, f"series {frames.SeriesInstanceUID}", "its frames do not say where they lie")


def test_screenshots_of_the_scanner_itself_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    series = write_series(tmp_path)
    for number in range(3):  # a dose report, say: marked CT, and without a place
        page = make_slice(np.full((9, 9), number, np.int16), (0, 0, 0), uid="4.5.6")
        del page.ImagePositionPatient
        save(page, tmp_path / f"page{number}")
    np.testing.assert_array_equal(read_volume(tmp_path).data, series.expected)
    assert "left out 3 images without a position" in caplog.text


def test_colour_of_a_scanner_that_measures_is_refused(tmp_path: Path) -> None:
    dataset, _ = _colour("RGB")
    dataset.Modality = "CT"
    save(dataset, tmp_path / "one.dcm")
    refused(tmp_path / "one.dcm", "a colour image")


# PET


def _pet(dataset: Dataset, **changes: Any) -> None:
    item = Dataset()
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = 370e6, 6586.2
    item.RadiopharmaceuticalStartTime = "100000"
    dataset.Modality, dataset.Units, dataset.DecayCorrection = "PT", "BQML", "START"
    dataset.CorrectedImage = ["ATTN", "DECY", "SCAT"]
    dataset.PatientWeight = 74
    dataset.SeriesDate = dataset.AcquisitionDate = "20200101"
    dataset.SeriesTime = dataset.AcquisitionTime = "110000"
    dataset.RadiopharmaceuticalInformationSequence = [item]
    for keyword, value in changes.items():
        target = item if keyword.startswith("Radio") else dataset
        setattr(target, keyword, value)


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 3600),
        ({"DecayCorrection": "ADMIN"}, 0),
        ({"SeriesTime": "110500.5"}, 3600),  # rewritten after the scan: the scan's own time counts
        ({"RadiopharmaceuticalStartDateTime": "20200101095000"}, 4200),
        ({"SeriesTime": "003000", "AcquisitionTime": "003000",
          "RadiopharmaceuticalStartTime": "233000"}, 3600),
    ],
    ids=["start", "admin", "series time", "date and time", "midnight"],
)  # fmt: skip
def test_pet_is_read_as_suv(tmp_path: Path, changes: dict[str, Any], seconds: float) -> None:
    series = write_series(tmp_path, edit=lambda d, n: _pet(d, **changes))
    volume = read_volume(tmp_path)
    factor = 74_000 / (370e6 * 2 ** (-seconds / 6586.2))
    np.testing.assert_allclose(volume.data, series.expected * factor, rtol=1e-5)
    assert volume.facts.unit == "SUVbw"
    stored = read_volume(tmp_path, suv=False)
    np.testing.assert_array_equal(stored.data, series.expected)
    assert stored.facts.unit == "BQML"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Units": "CNTS"}, "Units are not BQML"),
        ({"CorrectedImage": ["DECY"]}, "lacks ATTN"),
        ({"DecayCorrection": "NONE"}, "neither START nor ADMIN"),
        ({"RadionuclideTotalDose": 0}, "no RadionuclideTotalDose"),
        ({"RadionuclideHalfLife": None}, "no RadionuclideHalfLife"),
        ({"PatientWeight": None}, "no PatientWeight"),
        ({"RadiopharmaceuticalStartTime": None}, "no RadiopharmaceuticalStartTime"),
        ({"RadiopharmaceuticalStartDateTime": "20191201095000"}, "within the day"),
        ({"SeriesDate": None}, "no SeriesDate"),
    ],
)
def test_pet_without_what_an_suv_needs_stays_as_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], reason: str
) -> None:
    series = write_series(tmp_path, edit=lambda d, n: _pet(d, **changes))
    np.testing.assert_array_equal(read_volume(tmp_path).data, series.expected)
    assert reason in caplog.text
    refused(tmp_path, "no SUV", reason, suv=True)


def test_suv_of_another_modality_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path)
    refused(tmp_path, "SUV are for PET", suv=True)


def test_every_test_that_the_document_names_is_there() -> None:
    tests = Path(__file__).parent
    written = "".join(path.read_text() for path in tests.rglob("test_*medical_*.py"))
    document = (tests.parent / "docs" / "dicom.md").read_text()
    rows = [line.split(" | ")[-1] for line in document.splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`(?!test_medical)(\w+)`", row)}
    assert len(named) > 50
    assert [name for name in sorted(named) if f"def test_{name}(" not in written] == []
