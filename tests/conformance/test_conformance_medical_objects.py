"""RTSTRUCT and DICOM-SEG as label objects: areas, background, frames of reference, outlines."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_outputs import FACTS, ORIENTATIONS, make_source, tool
from label_factory import write_rtstruct, write_seg
from pydicom.dataset import Dataset
from scipy import ndimage

from samonai.core.errors import InputError
from samonai.domains.medical import Volume, read_label
from samonai.domains.medical.outputs import write_outputs

SHAPE = (6, 40, 48)  # slices, rows, columns
XOR = "CLOSEDPLANAR_XOR"

Corners = Sequence[tuple[float, float]]
Masks = Mapping[str, npt.NDArray[np.bool_]]

# Outlines along pixel edges: a 15 x 15 and a 13 x 15 block that share 5 x 7 pixels.
FIRST = [(9.5, 9.5), (24.5, 9.5), (24.5, 24.5), (9.5, 24.5)]
SECOND = [(19.5, 17.5), (32.5, 17.5), (32.5, 32.5), (19.5, 32.5)]
UNION = 15 * 15 + 13 * 15 - 5 * 7
HOLE = [(12.5, 12.5), (20.5, 12.5), (20.5, 20.5), (12.5, 20.5)]  # within FIRST
ISLAND = [(14.5, 14.5), (17.5, 14.5), (17.5, 17.5), (14.5, 17.5)]  # within HOLE


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Volume]:
    folder = tmp_path_factory.mktemp("scan") / "in"
    return folder, make_source(folder, shape=SHAPE)[1]


def write_contours(
    path: Path, volume: Volume, contours: Sequence[Corners], kind: str = "CLOSED_PLANAR"
) -> Dataset:
    """Write one region, `GTV`, on slices 1 to 3, and return it to be edited."""
    on_slices = [(k, corners) for k in (1, 2, 3) for corners in contours]
    write_rtstruct(volume, {"GTV": on_slices}, path, kind)
    return pydicom.dcmread(path)


def areas(path: Path, volume: Volume) -> list[int]:
    """Return the voxels of class 1 on each slice."""
    return np.count_nonzero(read_label(path, volume) == 1, axis=(0, 1)).tolist()


def theirs(path: Path, scan: Path) -> npt.NDArray[np.bool_]:
    """Return what plastimatch finds in all structures together, (K, J, I)."""
    found = path.with_suffix(".nrrd")
    command = [tool("plastimatch"), "convert", "--input", path, "--referenced-ct", scan]
    subprocess.run(
        [str(c) for c in [*command, "--output-labelmap", found]], check=True, capture_output=True
    )
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(found))) > 0)


def refused(call: Callable[[], object], *words: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# RTSTRUCT


@pytest.mark.conformance(
    domain="medical",
    condition="RTSTRUCT contours stored twice, moved by rounding, backwards or from another corner",
    source="PS3.3 C.8.8.6",
    right="each counts once; counted in the log",
    reader="plastimatch 1.9.4",
    severity=1,
)
def test_contours_stored_twice_count_once(
    tmp_path: Path, scan: tuple[Path, Volume], caplog: pytest.LogCaptureFixture
) -> None:
    folder, volume = scan
    moved = [(x + 0.02, y - 0.02) for x, y in FIRST]
    for other in (FIRST, moved, FIRST[::-1], [*FIRST[2:], *FIRST[:3]]):
        caplog.clear()
        write_contours(tmp_path / "rs.dcm", volume, [FIRST, other])
        assert areas(tmp_path / "rs.dcm", volume) == [0, 225, 225, 225, 0, 0]
        assert "3 contours stored twice" in caplog.text
    assert np.count_nonzero(theirs(tmp_path / "rs.dcm", folder)) == 3 * 225


@pytest.mark.conformance(
    domain="medical",
    condition="RTSTRUCT contours of one region that overlap in part",
    source="PS3.3 C.8.8.6",
    right="their union; counted in the log",
    reader="plastimatch 1.9.4",
    severity=1,
)
def test_contours_that_overlap_are_united(
    tmp_path: Path, scan: tuple[Path, Volume], caplog: pytest.LogCaptureFixture
) -> None:
    folder, volume = scan
    write_contours(tmp_path / "rs.dcm", volume, [FIRST, SECOND])
    assert areas(tmp_path / "rs.dcm", volume) == [0, UNION, UNION, UNION, 0, 0]
    assert "3 pairs that overlap are united" in caplog.text
    ours = read_label(tmp_path / "rs.dcm", volume).transpose(2, 1, 0) > 0
    np.testing.assert_array_equal(theirs(tmp_path / "rs.dcm", folder), ours)


@pytest.mark.conformance(
    domain="medical",
    condition="RTSTRUCT contours of type CLOSEDPLANAR_XOR that overlap or repeat",
    source="PS3.3 C.8.8.6.3",
    right="exclusive or of all contours of the region on the slice",
    reader="shapely 2.2.0",
    severity=1,
)
def test_xor_contours_cancel_out(tmp_path: Path, scan: tuple[Path, Volume]) -> None:
    geometry = pytest.importorskip("shapely.geometry")
    _, volume = scan
    contours = [FIRST, SECOND, HOLE]
    area = geometry.Polygon()
    for contour in contours:
        area = area.symmetric_difference(geometry.Polygon(contour))
    write_contours(tmp_path / "rs.dcm", volume, contours, XOR)
    assert areas(tmp_path / "rs.dcm", volume) == [0, *[int(area.area)] * 3, 0, 0]
    write_contours(tmp_path / "twice.dcm", volume, [FIRST, FIRST], XOR)
    assert not any(areas(tmp_path / "twice.dcm", volume))


@pytest.mark.conformance(
    domain="medical",
    condition="RTSTRUCT contours within one another, in any order, stored twice or overlapping",
    source="PS3.3 C.8.8.6.3",
    right="a contour wholly inside another is a hole, one inside the hole an island",
    reader="shapely 2.2.0",
    severity=1,
)
def test_contours_within_one_another_are_holes_and_islands(
    tmp_path: Path, scan: tuple[Path, Volume]
) -> None:
    polygon = pytest.importorskip("shapely.geometry").Polygon
    _, volume = scan
    ring = int((polygon(FIRST) - polygon(HOLE)).area)
    nested = int(ring + polygon(ISLAND).area)
    both = int(((polygon(FIRST) - polygon(HOLE)) | polygon(SECOND)).area)
    cases = {
        ring: ([FIRST, HOLE], [HOLE, FIRST, FIRST], [HOLE, HOLE, FIRST]),
        nested: ([FIRST, HOLE, ISLAND], [ISLAND, ISLAND, FIRST, HOLE]),
        both: ([FIRST, HOLE, SECOND], [SECOND, FIRST, HOLE]),  # a hole of the first only
    }
    for expected, orders in cases.items():
        for contours in orders:
            write_contours(tmp_path / "rs.dcm", volume, contours)
            assert areas(tmp_path / "rs.dcm", volume) == [0, expected, expected, expected, 0, 0]


@pytest.mark.conformance(
    domain="medical",
    condition="RTSTRUCT region drawn as a keyhole, stored twice, with an island in its hole",
    source="PS3.3 C.8.8.6.3",
    right="the ring and the island",
    reader="plastimatch 1.9.4",
    severity=1,
)
def test_a_keyhole_keeps_its_hole(tmp_path: Path, scan: tuple[Path, Volume]) -> None:
    folder, volume = scan
    keyhole = [*FIRST, FIRST[0], *HOLE, HOLE[0]]
    write_contours(tmp_path / "rs.dcm", volume, [keyhole, keyhole, ISLAND])
    area = 225 - 64 + 9
    assert areas(tmp_path / "rs.dcm", volume) == [0, area, area, area, 0, 0]
    ours = read_label(tmp_path / "rs.dcm", volume).transpose(2, 1, 0) > 0
    np.testing.assert_array_equal(theirs(tmp_path / "rs.dcm", folder), ours)


@pytest.mark.conformance(
    domain="medical",
    condition="RTSTRUCT regions of one name: the same outline, or outlines that overlap or nest",
    source="PS3.3 C.8.8.5, C.8.8.6",
    right="each region by itself, then their union; counted in the log",
    reader="plastimatch 1.9.4",
    severity=1,
)
def test_regions_of_one_name_are_united(
    tmp_path: Path, scan: tuple[Path, Volume], caplog: pytest.LogCaptureFixture
) -> None:
    folder, volume = scan
    for other, expected in ((FIRST, 225), (SECOND, UNION), (HOLE, 225)):
        caplog.clear()
        write_rtstruct(volume, {"GTV": [(2, FIRST)], "GTV ": [(2, other)]}, tmp_path / "rs.dcm")
        assert areas(tmp_path / "rs.dcm", volume) == [0, 0, expected, 0, 0, 0]
        assert "1 regions are united with another one of their name" in caplog.text
        assert np.count_nonzero(theirs(tmp_path / "rs.dcm", folder)) == expected


@pytest.mark.conformance(
    domain="medical",
    condition="RTSTRUCT contour of one or two points among others",
    source="PS3.3 C.8.8.6",
    right="left out and counted; the rest is read",
    reader="plastimatch 1.9.4",
    severity=2,
)
def test_contours_of_two_points_are_left_out(
    tmp_path: Path, scan: tuple[Path, Volume], caplog: pytest.LogCaptureFixture
) -> None:
    folder, volume = scan
    write_contours(tmp_path / "rs.dcm", volume, [FIRST, FIRST[:2], FIRST[:1]])
    assert areas(tmp_path / "rs.dcm", volume) == [0, 225, 225, 225, 0, 0]
    assert "left out 6 points" in caplog.text
    assert np.count_nonzero(theirs(tmp_path / "rs.dcm", folder)) == 3 * 225


@pytest.mark.conformance(
    domain="medical",
    condition="RTSTRUCT with a region that is not asked for and cannot be placed or read",
    source="PS3.3 C.8.8.6",
    right="the regions that are asked for; refused, naming the region, when it is asked for too",
    reader="none (refusal)",
    severity=2,
)
def test_a_bad_region_costs_only_itself(tmp_path: Path, scan: tuple[Path, Volume]) -> None:
    _, volume = scan
    path = tmp_path / "rs.dcm"
    write_rtstruct(volume, {"GTV": [(2, FIRST)], "couch": [(9, FIRST)]}, path)
    assert np.count_nonzero(read_label(path, volume, structures={"GTV": 1})) == 225
    refused(lambda: read_label(path, volume), "'couch'", "beyond the image's slices")
    dataset = pydicom.dcmread(path)
    dataset.ROIContourSequence[1].ContourSequence[0].ContourData = ["1", "2", "3", "4"]
    dataset.save_as(path)
    assert np.count_nonzero(read_label(path, volume, structures={"GTV": 1})) == 225
    refused(lambda: read_label(path, volume), "'couch'", "structures=")


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.conformance(
    domain="medical",
    condition="RTSTRUCT that samonai writes on axial, sagittal, coronal and oblique series",
    source="plastimatch 1.9.4 loses a corner of contours that close along a column",
    right="exactly the voxels of the label map",
    reader="plastimatch 1.9.4",
    severity=1,
)
def test_written_outlines_give_exactly_our_voxels(tmp_path: Path, orientation: str) -> None:
    program = tool("plastimatch")
    _, volume = make_source(tmp_path / "in", ORIENTATIONS[orientation], shape=(6, 24, 20))
    noise = np.random.default_rng(3).normal(size=volume.shape)
    smooth = ndimage.gaussian_filter(noise, (1.2, 1.2, 0.6))
    label = (smooth > np.quantile(smooth, 0.6)).astype(np.int32)  # blobs with holes
    label[0], label[-1] = 1, noise[-1] > 0  # up to the border, and ragged
    (path,) = write_outputs(volume, label, tmp_path / "out", ["rtstruct"], facts=FACTS)
    command = [program, "convert", "--input", path, "--referenced-ct", tmp_path / "in",
               "--output-prefix", tmp_path / "masks", "--prefix-format", "nrrd"]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    (found,) = (tmp_path / "masks").iterdir()
    image = sitk.ReadImage(str(found))
    physical = np.argwhere(label) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    ours = {image.TransformPhysicalPointToIndex((-x, -y, z)) for x, y, z in physical.tolist()}
    inside = np.argwhere(sitk.GetArrayFromImage(image).T > 0).tolist()
    assert {tuple(index) for index in inside} == ours


# DICOM-SEG


def seg_masks(volume: Volume) -> dict[str, npt.NDArray[np.bool_]]:
    """Two blocks that touch neither each other nor the border, and end on different slices."""
    liver, spleen = np.zeros(volume.shape, bool), np.zeros(volume.shape, bool)
    liver[3:20, 4:30, 1:4] = True
    spleen[30:40, 6:16, 2:5] = True
    return {"liver": liver, "spleen": spleen}


def write_label_map(folder: Path, masks: Masks, path: Path, background: int) -> None:
    """Write a label map SEG whose background is a value of its own."""
    write_seg(folder, masks, path, "LABELMAP")
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array
    dataset.PixelData = np.where(pixels == 0, background, pixels).astype(pixels.dtype).tobytes()
    dataset.PixelPaddingValue = background
    first, *others = dataset.SegmentSequence
    first.SegmentNumber = background
    dataset.SegmentSequence = sorted([first, *others], key=lambda item: item.SegmentNumber)
    dataset.save_as(path)


@pytest.mark.parametrize("background", [0, 9])
@pytest.mark.parametrize("is_coded", [True, False])
@pytest.mark.conformance(
    domain="medical",
    condition="Label map SEG whose background is described as a segment",
    source="PS3.3 C.8.20.2.4, Pixel Padding Value; PS3.16 CID 7151, 125040 DCM",
    right="the segment of the Pixel Padding Value is background and no class",
    reader="highdicom 0.28.2",
    severity=1,
)
def test_the_background_of_a_label_map_is_no_class(
    tmp_path: Path, scan: tuple[Path, Volume], background: int, is_coded: bool
) -> None:
    folder, volume = scan
    masks, path = seg_masks(volume), tmp_path / "seg.dcm"
    write_label_map(folder, masks, path, background)
    if not is_coded:
        dataset = pydicom.dcmread(path)
        (item,) = (i for i in dataset.SegmentSequence if i.SegmentNumber == background)
        item.SegmentedPropertyTypeCodeSequence[0].CodeValue = "85756007"
        item.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator = "SCT"
        dataset.save_as(path)
    label = read_label(path, volume)
    np.testing.assert_array_equal(label, np.where(masks["spleen"], 2, masks["liver"]))
    segmentation = hd.seg.segread(path)
    assert segmentation.segment_numbers == [1, 2]  # without the background
    stored = segmentation.get_volume(combine_segments=True).array
    for number in (1, 2):
        assert np.count_nonzero(label == number) == np.count_nonzero(stored == number)


@pytest.mark.conformance(
    domain="medical",
    condition="SEG with a segment of type 125040 DCM, Background, under any number and name",
    source="PS3.16 CID 7151, 125040 DCM",
    right="background and no class",
    reader="none (the written mask)",
    severity=1,
)
def test_a_segment_coded_as_background_is_no_class(
    tmp_path: Path, scan: tuple[Path, Volume]
) -> None:
    folder, volume = scan
    masks, path = seg_masks(volume), tmp_path / "seg.dcm"
    rest = ~(masks["liver"] | masks["spleen"])
    for kind in ("BINARY", "LABELMAP"):
        write_seg(folder, {"air and all else": rest, **masks}, path, kind)
        dataset = pydicom.dcmread(path)
        (item,) = (i for i in dataset.SegmentSequence if i.SegmentLabel == "air and all else")
        code = item.SegmentedPropertyTypeCodeSequence[0]
        code.CodeValue, code.CodingSchemeDesignator = "125040", "DCM"
        dataset.save_as(path)
        expected = np.where(masks["spleen"], 2, masks["liver"])
        np.testing.assert_array_equal(read_label(path, volume), expected)


@pytest.mark.conformance(
    domain="medical",
    condition="SEG whose segment number 0 is a structure: another value is its padding",
    source="PS3.3 C.8.20.2.3.3 and C.8.20.2.4, Pixel Padding Value",
    right="segment 0 is a class",
    reader="highdicom 0.28.2",
    severity=1,
)
def test_segment_zero_may_be_a_structure(tmp_path: Path, scan: tuple[Path, Volume]) -> None:
    folder, volume = scan
    masks, path = seg_masks(volume), tmp_path / "seg.dcm"
    write_label_map(folder, masks, path, background=9)
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array
    dataset.PixelData = np.where(pixels == 1, 0, pixels).astype(pixels.dtype).tobytes()
    dataset.SegmentSequence[0].SegmentNumber = 0
    dataset.save_as(path)
    label = read_label(path, volume)
    np.testing.assert_array_equal(label, np.where(masks["spleen"], 2, masks["liver"]))
    assert hd.seg.segread(path).segment_numbers == [0, 2]


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
@pytest.mark.conformance(
    domain="medical",
    condition="SEG or RTSTRUCT of another FrameOfReferenceUID",
    source="PS3.3 C.7.4.1",
    right="refused without a referenced series; one warning where it names the image's series",
    reader="none (refusal)",
    severity=1,
)
def test_another_frame_of_reference(
    tmp_path: Path, scan: tuple[Path, Volume], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, volume = scan
    path = tmp_path / "object.dcm"
    if kind == "SEG":
        write_seg(folder, seg_masks(volume), path)
    else:
        write_contours(path, volume, [FIRST])
    dataset = pydicom.dcmread(path)
    place = dataset if kind == "SEG" else dataset.ReferencedFrameOfReferenceSequence[0]
    references = "ReferencedSeriesSequence" if kind == "SEG" else "RTReferencedStudySequence"
    place.FrameOfReferenceUID = "1.2.3.99"
    dataset.save_as(path)
    assert read_label(path, volume).any()
    assert "another frame of reference" in caplog.text
    del place[references]
    dataset.save_as(path)
    refused(lambda: read_label(path, volume), "frame of reference 1.2.3.99", "1.2.3.4.5")
    place.FrameOfReferenceUID = "1.2.3.4.5"  # the image's own
    dataset.save_as(path)
    assert read_label(path, volume).any()


@pytest.mark.conformance(
    domain="medical",
    condition="SEG with a segment that is not asked for and lies beyond the image",
    source="PS3.3 C.8.20.2",
    right="the segments that are asked for; refused when it is asked for too",
    reader="dcmqi 1.5.7",
    severity=2,
)
def test_a_bad_segment_costs_only_itself(tmp_path: Path, scan: tuple[Path, Volume]) -> None:
    folder, volume = scan
    masks, path = seg_masks(volume), tmp_path / "seg.dcm"
    write_seg(folder, masks, path)
    dataset = pydicom.dcmread(path)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2:
            place = frame.PlanePositionSequence[0]
            x, y, z = place.ImagePositionPatient
            place.ImagePositionPatient = [x, y, float(z) + 100]
    dataset.save_as(path)
    label = read_label(path, volume, structures={"liver": 1})
    np.testing.assert_array_equal(label > 0, masks["liver"])
    refused(lambda: read_label(path, volume), "reaches out of the image")
    command = [tool("segimage2itkimage"), "--inputDICOM", path, "--outputDirectory", tmp_path]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    found = sitk.ReadImage(str(tmp_path / "1.nrrd"))
    assert np.count_nonzero(sitk.GetArrayFromImage(found)) == np.count_nonzero(label)


@pytest.mark.conformance(
    domain="medical",
    condition="`--format nifti --measure` of a DICOM series",
    source="issue 17 D.7; PS3.3 C.7.1.1, Patient's Name",
    right="measurements as JSON and CSV; no DICOM report, which names the patient, unless other "
    "DICOM objects are asked for",
    reader="pydicom, the name's bytes in every file",
    severity=1,
)
def test_measurements_beside_nifti_name_nobody(tmp_path: Path, scan: tuple[Path, Volume]) -> None:
    folder, volume = scan
    name = str(pydicom.dcmread(next(folder.iterdir())).PatientName).encode()
    label = np.where(seg_masks(volume)["liver"], 1, 0)
    for formats, named in ((["nifti"], set()), (["nifti", "dicom-seg"], {"a.seg.dcm", "a.sr.dcm"})):
        (tmp_path / formats[-1]).mkdir()
        paths = write_outputs(
            volume, label, tmp_path / formats[-1] / "a", formats, with_measurements=True,
            facts=FACTS,
        )  # fmt: skip
        assert {path.name for path in paths if name in path.read_bytes()} == named
        assert {"a.nii.gz", "a.measurements.json", "a.measurements.csv"} <= {p.name for p in paths}
