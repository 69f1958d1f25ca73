"""DICOM series: order, geometry and values exact; whatever is not one whole volume is refused."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_factory import (
    AXIAL,
    CANARY,
    STEP,
    make_enhanced,
    make_slice,
    save,
    stored_values,
    write_series,
)
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    ComprehensiveSRStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    RLELossless,
    RTDoseStorage,
    RTStructureSetStorage,
    SegmentationStorage,
    generate_uid,
)

from samonai.core.errors import InputError
from samonai.domains.medical import read_volume
from samonai.domains.medical.volume import is_sheared


def refused(path: Path, *words: str, series: str | None = None, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, series, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert CANARY not in message
    return message


@pytest.fixture(autouse=True)
def _no_patient_in_logs(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    yield
    assert CANARY not in caplog.text


def test_values_and_geometry_of_a_plain_series(tmp_path: Path) -> None:
    series = write_series(tmp_path / "case")
    volume = read_volume(tmp_path / "case")
    np.testing.assert_array_equal(volume.data, series.expected)
    np.testing.assert_allclose(volume.affine, series.affine, atol=1e-12)
    assert volume.spacing == pytest.approx((0.7, 0.8, 2.5))
    assert volume.source_id == "case"
    assert volume.facts.modality == "CT"
    assert volume.valid is None
    assert CANARY not in repr(volume.facts)


@pytest.mark.parametrize(
    "orientation",
    [
        (0, 1, 0, 0, 0, -1),  # sagittal
        (1, 0, 0, 0, 0, -1),  # coronal
        (-1, 0, 0, 0, 1, 0),
        (0.8, 0.6, 0, -0.6, 0.8, 0),
    ],
)
def test_orientations(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    series = write_series(tmp_path, orientation=orientation, order=[3, 0, 5, 1, 2, 4])
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.data, series.expected)
    np.testing.assert_allclose(volume.affine, series.affine, atol=1e-9)


@pytest.mark.parametrize("name", ["{:d}", "{:d}.dcm", "deep/{:d}/IM.weird"])
def test_names_and_order_do_not_matter(tmp_path: Path, name: str) -> None:
    series = write_series(tmp_path, order=[3, 0, 5, 1, 2, 4], name=name)
    np.testing.assert_array_equal(read_volume(tmp_path).data, series.expected)


@pytest.mark.parametrize("change", ["equal", "absent", "reversed"])
def test_instance_numbers_are_not_believed(tmp_path: Path, change: str) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        if change == "absent":
            del dataset.InstanceNumber
        else:
            dataset.InstanceNumber = 1 if change == "equal" else 100 - number

    series = write_series(tmp_path, edit=edit)
    np.testing.assert_array_equal(read_volume(tmp_path).data, series.expected)


def test_other_files_are_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    series = write_series(tmp_path)
    (tmp_path / "DICOMDIR").write_bytes((tmp_path / "slice000").read_bytes())
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.7 " + bytes(500))
    (tmp_path / "empty").touch()
    (tmp_path / "notes.txt").write_text("hello " * 100)
    np.testing.assert_array_equal(read_volume(tmp_path).data, series.expected)
    assert "skipped 4 not DICOM" in caplog.text


def test_links_are_followed_once_and_never_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    series = write_series(tmp_path / "elsewhere" / "slices")
    folder = tmp_path / "archive" / "scan"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "link").symlink_to(series.folder)
    (folder / "again").symlink_to(folder / "inner")
    (folder / "up").symlink_to(tmp_path / "archive")
    (series.folder / "round").symlink_to(folder)
    (series.folder / "back").symlink_to(tmp_path / "elsewhere")
    (folder / "fetched").symlink_to(tmp_path / "nowhere")
    write_series(tmp_path / "archive" / "other")
    np.testing.assert_array_equal(read_volume(folder).data, series.expected)
    assert "skipped 1 links that lead nowhere" in caplog.text
    assert "copies" not in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_nobody_may_read_is_refused(tmp_path: Path, what: str) -> None:
    write_series(tmp_path / "scan")
    (tmp_path / "scan" / "inner").mkdir()
    forbidden = tmp_path / "scan" / ("slice003" if what == "file" else "inner")
    forbidden.chmod(0)
    refused(tmp_path / "scan", str(forbidden), "check its permissions")
    forbidden.chmod(0o700)


def test_missing_slices_are_named_by_position(tmp_path: Path) -> None:
    write_series(tmp_path, skip=[2, 3])
    refused(tmp_path, "2 of 6 slices missing", "-25.00, -22.50 mm")


def test_uneven_spacing_is_refused(tmp_path: Path) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient[2] = -30 + STEP * number + (0.9 if number > 3 else 0)

    write_series(tmp_path, edit=edit)
    refused(tmp_path, "uneven slice spacing, 2.5 to 3.4 mm")


def test_tilted_gantry_gives_a_sheared_affine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tangent = np.tan(np.deg2rad(15))

    def edit(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient[1] = 20 + number * STEP * tangent

    series = write_series(tmp_path, edit=edit, order=[3, 0, 5, 1, 2, 4])
    volume = read_volume(tmp_path)
    expected = series.affine.copy()
    expected[1, 2] = -STEP * tangent  # RAS: y points the other way
    np.testing.assert_allclose(volume.affine, expected, atol=1e-9)
    np.testing.assert_array_equal(volume.data, series.expected)
    assert is_sheared(volume.affine)
    assert "lean by 15.0 degrees" in caplog.text


def test_one_shifted_slice_is_refused(tmp_path: Path) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient[1] = 20 + (3 if number == 2 else 0)

    write_series(tmp_path, edit=edit)
    refused(tmp_path, "shifted sideways")


def test_identical_copies_are_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series = write_series(tmp_path)
    shutil.copy(tmp_path / "slice002", tmp_path / "copy")
    np.testing.assert_array_equal(read_volume(tmp_path).data, series.expected)
    assert "dropped 1 identical copies" in caplog.text


def test_different_slices_at_one_position_are_refused(tmp_path: Path) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.FrameOfReferenceUID = "1.2"

    write_series(tmp_path, uid="1.2.3", edit=edit)
    save(make_slice(stored_values(seed=9)[0], (-10, 20, -25), AXIAL, "1.2.3"), tmp_path / "other")
    refused(tmp_path, "2 different slices at -25.00 mm")


def test_time_points_are_listed_and_can_be_chosen(tmp_path: Path) -> None:
    uid = generate_uid()

    def edit(time: int):
        def set_time(dataset: Dataset, number: int) -> None:
            dataset.TemporalPositionIdentifier = time

        return set_time

    write_series(tmp_path / "a", uid=uid, edit=edit(1))
    second = write_series(tmp_path / "b", stored_values(seed=1), uid=uid, edit=edit(2))
    message = refused(tmp_path, "2 volumes in one series", f"{uid}#1", f"{uid}#2", "time=N")
    assert "TemporalPositionIdentifier 2, series" in message
    np.testing.assert_array_equal(read_volume(tmp_path, f"{uid}#2").data, second.expected)
    np.testing.assert_array_equal(read_volume(tmp_path, time=2).data, second.expected)
    refused(tmp_path, "no volume 3", "has 2", time=3)


def test_two_series_are_listed_and_can_be_chosen(tmp_path: Path) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.Modality = "MR"

    first = write_series(tmp_path / "a")
    second = write_series(tmp_path / "b", stored_values((3, 5, 4), seed=1), edit=edit)
    refused(tmp_path, "--series", "CT, 6 slices", "MR, 3 slices", first.uid, second.uid)
    refused(tmp_path, "no series 9.9", first.uid, series="9.9")
    np.testing.assert_array_equal(read_volume(tmp_path, second.uid).data, second.expected)


@pytest.mark.parametrize("marked", [True, False], ids=["named so", "unnamed"])
def test_localizer_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, marked: bool
) -> None:
    series = write_series(tmp_path, uid="1.2.3")
    scout = make_slice(stored_values()[0], (0, 0, 0), (0, 1, 0, 0, 0, -1), "1.2.3")
    if marked:
        scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    save(scout, tmp_path / "scout")
    np.testing.assert_array_equal(read_volume(tmp_path).data, series.expected)
    assert "left out 1 localizer" in caplog.text


def test_mixed_matrix_sizes_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "a", uid="1.2.3")
    write_series(tmp_path / "b", stored_values((6, 7, 4)), uid="1.2.3")
    refused(tmp_path, "2 volumes in one series", "4x5", "4x7", "1.2.3#1")


def test_slice_without_position_in_a_series_is_refused(tmp_path: Path) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        if number == 5:
            del dataset.ImagePositionPatient

    write_series(tmp_path, edit=edit)
    refused(tmp_path, "slice005", "no ImagePositionPatient")


def test_screenshot_of_another_series_is_left_out(tmp_path: Path) -> None:
    series = write_series(tmp_path)
    screenshot = make_slice(np.zeros((9, 9), np.int16), (0, 0, 0), uid="4.5.6")
    del screenshot.ImagePositionPatient
    save(screenshot, tmp_path / "screenshot")
    np.testing.assert_array_equal(read_volume(tmp_path).data, series.expected)


def test_slopes_per_slice_are_exact(tmp_path: Path) -> None:
    slopes = [0.1 + 0.37 * number for number in range(6)]

    def edit(dataset: Dataset, number: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = slopes[number], number + 0.5

    series = write_series(tmp_path, edit=edit)
    data = read_volume(tmp_path).data
    for number, slope in enumerate(slopes):
        stored = series.stored[number].astype(np.float64)
        expected = (stored * slope + number + 0.5).astype(np.float32)
        np.testing.assert_array_equal(data[:, :, number], expected.T)


@pytest.mark.parametrize(
    ("keyword", "value", "word"),
    [
        ("RescaleSlope", "nan", "RescaleSlope"),
        ("RescaleSlope", 0, "RescaleSlope"),
        ("RescaleIntercept", "inf", "RescaleIntercept"),
        ("ImagePositionPatient", ["0", "nan", "0"], "ImagePositionPatient"),
        ("ImageOrientationPatient", ["1", "0", "0", "0", "nan", "0"], "ImageOrientationPatient"),
        ("ImageOrientationPatient", [1, 0, 0, 0, 2, 0], "right angles"),
        ("ImageOrientationPatient", [1, 0, 0, 0.7, 0.714, 0], "right angles"),
        ("PixelSpacing", ["nan", "1"], "PixelSpacing"),
        ("PixelSpacing", [0, 1], "PixelSpacing"),
    ],
)
def test_unusable_numbers_are_refused(
    tmp_path: Path, keyword: str, value: object, word: str
) -> None:
    write_series(tmp_path, edit=lambda d, n: setattr(d, keyword, value) if n == 3 else None)
    refused(tmp_path, "slice003", word)


@pytest.mark.parametrize("written", [-2000, 63536])
def test_padding_is_masked(tmp_path: Path, written: int) -> None:
    stored = stored_values()
    stored[:, 0, :] = -2000

    def edit(dataset: Dataset, number: int) -> None:
        dataset.add_new("PixelPaddingValue", "SS" if written < 0 else "US", written)

    write_series(tmp_path, stored, edit=edit)
    volume = read_volume(tmp_path)
    assert volume.valid is not None
    assert not volume.valid[:, 0].any()
    assert volume.valid[:, 1:].all()
    assert volume.data.min() == volume.data[volume.valid].min() >= -1024


def test_a_range_of_padding_is_masked(tmp_path: Path) -> None:
    stored = stored_values()
    stored[:, 0, 0], stored[:, 0, 1], stored[:, 0, 2] = -2000, -1990, -1989

    def edit(dataset: Dataset, number: int) -> None:
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        dataset.add_new("PixelPaddingRangeLimit", "SS", -1990)

    write_series(tmp_path, stored, edit=edit)
    volume = read_volume(tmp_path)
    assert volume.valid is not None
    assert volume.valid[:, 0, 0].tolist() == [False, False, True, True]
    assert volume.minimum() == -1989 - 1024
    assert volume.quantiles(0, 100)[0] == -1989 - 1024


@pytest.mark.parametrize("modality", ["CT", "MR", "CR", "DX", "MG", "US"])
def test_monochrome1_is_inverted_for_projections_only(tmp_path: Path, modality: str) -> None:
    stored = stored_values()[0].astype(np.uint16)
    image = make_slice(stored, (0, 0, 0))
    image.PhotometricInterpretation, image.Modality = "MONOCHROME1", modality
    image.BitsStored, image.HighBit, image.RescaleIntercept = 12, 11, 0
    save(image, tmp_path / "one.dcm")
    inverted = modality not in ("CT", "MR")
    expected = 4095 - stored.astype(int) if inverted else stored
    np.testing.assert_array_equal(read_volume(tmp_path / "one.dcm").data[..., 0].T, expected)


def test_single_slice(tmp_path: Path) -> None:
    image = make_slice(stored_values()[0], (1, 2, 3))
    image.SliceThickness = 5
    save(image, tmp_path / "case7" / "slice")
    volume = read_volume(tmp_path / "case7")
    assert volume.shape == (4, 5, 1)
    assert volume.spacing == pytest.approx((0.7, 0.8, 5))
    np.testing.assert_allclose(volume.affine[:3, 3], [-1, -2, 3])


def test_enhanced_multiframe_equals_single_slices(tmp_path: Path) -> None:
    series = write_series(tmp_path / "plain")
    save(make_enhanced(series.stored, [4, 2, 0, 1, 5, 3]), tmp_path / "enhanced.dcm")
    volume = read_volume(tmp_path / "enhanced.dcm")
    np.testing.assert_array_equal(volume.data, series.expected)
    np.testing.assert_allclose(volume.affine, series.affine, atol=1e-12)


@pytest.mark.parametrize("syntax", [RLELossless, ImplicitVRLittleEndian])
def test_other_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    series = write_series(tmp_path)
    for path in list(tmp_path.iterdir()):
        dataset = pydicom.dcmread(path)
        if syntax == RLELossless:
            dataset.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
        else:
            dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path)
    np.testing.assert_array_equal(read_volume(tmp_path).data, series.expected)


def test_compression_without_a_decoder_is_named(tmp_path: Path) -> None:
    image = make_slice(stored_values()[0], (0, 0, 0))
    image.file_meta.TransferSyntaxUID = MPEG2MPML
    image.PixelData = encapsulate([b"\0" * 100])
    image["PixelData"].is_undefined_length = True
    save(image, tmp_path / "film.dcm")
    refused(tmp_path / "film.dcm", "MPEG2", "no decoder")


def test_truncated_pixels_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path)
    path = tmp_path / "slice003"
    path.write_bytes(path.read_bytes()[:-20])
    refused(tmp_path, "slice003", "cut short")


def test_file_cut_in_its_header_is_refused_or_leaves_a_gap(tmp_path: Path) -> None:
    write_series(tmp_path)
    path = tmp_path / "slice003"
    path.write_bytes(path.read_bytes()[:140])
    refused(tmp_path)


def test_missing_transfer_syntax_is_refused(tmp_path: Path) -> None:
    image = make_slice(stored_values()[0], (0, 0, 0))
    save(image, tmp_path / "one.dcm")
    raw = (tmp_path / "one.dcm").read_bytes()
    # The element's tag becomes a private one of the same group: all else stays readable.
    (tmp_path / "one.dcm").write_bytes(raw.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI", 1))
    refused(tmp_path / "one.dcm", "TransferSyntaxUID")


def test_deflate_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samonai.domains.medical.dicom.headers._LARGEST_INFLATED_BYTES", 100_000)
    image = make_slice(np.zeros((400, 400), np.int16), (0, 0, 0))
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    save(image, tmp_path / "bomb.dcm")
    refused(tmp_path / "bomb.dcm", "inflates")


def test_deflated_file_is_read(tmp_path: Path) -> None:
    stored = stored_values()[0]
    image = make_slice(stored, (0, 0, 0))
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    save(image, tmp_path / "one.dcm")
    np.testing.assert_array_equal(read_volume(tmp_path / "one.dcm").data[..., 0].T, stored - 1024)


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize(
    ("kind", "modality", "word"),
    [
        (SegmentationStorage, "SEG", "SEG"),
        (ComprehensiveSRStorage, "SR", "SR"),
        (RTStructureSetStorage, "RTSTRUCT", "RTSTRUCT"),
        (RTDoseStorage, "RTDOSE", "RTDOSE"),
        (GrayscaleSoftcopyPresentationStateStorage, "PR", "PR"),
        (SegmentationStorage, "OT", "SEG or registration"),
    ],
)
def test_segmentation_as_input_is_refused(
    tmp_path: Path, single: bool, kind: str, modality: str, word: str
) -> None:
    image = make_slice(np.zeros((4, 4), np.uint8), (0, 0, 0))
    image.SOPClassUID, image.Modality = kind, modality
    save(image, tmp_path / "mask.dcm")
    refused(tmp_path / "mask.dcm" if single else tmp_path, f"found 1 {word}")


def test_colour_is_refused(tmp_path: Path) -> None:
    image = make_slice(np.zeros((4, 4), np.uint8), (0, 0, 0))
    image.SamplesPerPixel, image.PhotometricInterpretation = 3, "RGB"
    image.PlanarConfiguration, image.PixelData = 0, bytes(48)
    save(image, tmp_path / "one.dcm")
    refused(tmp_path / "one.dcm", "colour")


def test_mosaic_is_refused(tmp_path: Path) -> None:
    image = make_slice(stored_values()[0], (0, 0, 0))
    image.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    save(image, tmp_path / "one.dcm")
    refused(tmp_path / "one.dcm", "mosaic", "dcm2niix")


def test_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "no DICOM images", "found nothing")


def test_file_without_preamble_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series = write_series(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.write_bytes(path.read_bytes()[132:])
    np.testing.assert_array_equal(read_volume(tmp_path).data, series.expected)
    assert "DICOM without its preamble" in caplog.text
    for path in list(tmp_path.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole.replace(CTImageStorage.encode(), b"1.2.840.10008.5.1.4.1.1.999", 1))
    refused(tmp_path, "no DICOM images in it", "6 not DICOM")


def test_nonsense_values_are_not_repeated(tmp_path: Path) -> None:
    write_series(tmp_path, edit=lambda d, n: d.add_new("RescaleSlope", "LO", CANARY))
    for path in tmp_path.iterdir():
        raw = path.read_bytes()
        path.write_bytes(raw.replace(b"\x28\x00\x53\x10LO", b"\x28\x00\x53\x10DS"))
    refused(tmp_path, "RescaleSlope")


def test_identifiers_that_climb_out_stay_text(tmp_path: Path) -> None:
    write_series(tmp_path / "case", uid="../../x")
    assert read_volume(tmp_path / "case").source_id == "case"


@pytest.mark.parametrize("enhanced", [False, True])
def test_the_slices_that_were_read_are_known_in_order(tmp_path: Path, enhanced: bool) -> None:
    if enhanced:
        save(make_enhanced(stored_values(), (3, 0, 5, 1, 4, 2)), tmp_path / "a.dcm")
    else:
        write_series(tmp_path, order=(3, 0, 5, 1, 4, 2))
    slices = read_volume(tmp_path).facts.slices
    assert len(slices) == 6
    if enhanced:
        assert [each.frame for each in slices] == [1, 3, 5, 0, 4, 2]
    else:
        heights = [pydicom.dcmread(each.path).ImagePositionPatient[2] for each in slices]
        assert heights == sorted(heights)
