"""Labels as they come: one file per structure, DICOM-SEG, RTSTRUCT; found, placed, numbered."""

import subprocess
from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_factory import STEP, make_slice, save, stored_values
from dicom_outputs import FACTS, ORIENTATIONS, make_label, make_source, tool
from label_factory import square, write_rtstruct, write_seg
from matplotlib.path import Path as Polygon
from pydicom.dataset import Dataset

from samonai.core.errors import InputError
from samonai.domains.base import Case
from samonai.domains.medical import MedicalDomain, Volume, read_label, read_volume
from samonai.domains.medical.outputs import write_outputs
from samonai.domains.outlines import fill_polygons
from samonai.inference.checkpoint_context import trained_domain

SHAPE = (12, 10, 6)
# A square from 0.5 to 8.5 with a square hole from 2.5 to 6.5, in one line.
KEYHOLE = [
    *[(0.5, 0.5), (8.5, 0.5), (8.5, 8.5), (0.5, 8.5), (0.5, 4.5)],
    *[(2.5, 4.5), (2.5, 6.5), (6.5, 6.5), (6.5, 2.5), (2.5, 2.5), (2.5, 4.5), (0.5, 4.5)],
]


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def block(value: int = 1, **ranges: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[
        ranges.get("i", slice(2, 6)), ranges.get("j", slice(2, 6)), ranges.get("k", slice(1, 4))
    ] = 1
    return mask * np.uint8(value)


def refused(call, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# One file per structure


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two cases; `b` has no spleen, and its liver is stored as 255."""
    for case in "ab":
        save_nifti(tmp_path / "images" / f"{case}.nii.gz", np.ones(SHAPE, np.int16))
    save_nifti(tmp_path / "labels" / "a" / "liver.nii.gz", block())
    save_nifti(tmp_path / "labels" / "a" / "spleen.nii.gz", block(i=slice(8, 10)))
    save_nifti(tmp_path / "labels" / "b" / "liver.nii.gz", block(255))
    save_nifti(tmp_path / "labels" / "b" / "aorta.nii.gz", block(i=slice(4, 5)))
    return tmp_path / "images", tmp_path / "labels"


def test_structures_are_numbered_alike_in_all_cases(folders: tuple[Path, Path]) -> None:
    domain = MedicalDomain()
    a, b = domain.find_cases(*folders)
    assert domain.class_names(*folders) == {1: "aorta", 2: "liver", 3: "spleen"}
    label = domain.read(a).label
    np.testing.assert_array_equal(label, 2 * block() + 3 * block(i=slice(8, 10)))
    # The aorta lies in the liver: the smaller one is on top.
    aorta = block(i=slice(4, 5))
    np.testing.assert_array_equal(domain.read(b).label, np.where(aorta, 1, 2 * block()))


@pytest.mark.parametrize(
    ("structures", "expected"),
    [
        ("liver", {1: "liver"}),
        ("spleen,liver", {1: "spleen", 2: "liver"}),
        ({"liver": 7}, {7: "liver"}),
        ("liver:3,aorta:9", {3: "liver", 9: "aorta"}),
        ("aorta:2,spleen:2,liver:1", {1: "liver", 2: "aorta // spleen"}),
    ],
)
def test_structures_are_chosen_and_numbered_as_asked(
    folders: tuple[Path, Path], structures: object, expected: dict[int, str]
) -> None:
    domain = MedicalDomain(structures=structures)
    assert domain.class_names(*folders) == expected
    label = domain.read(domain.find_cases(*folders)[0]).label
    assert set(np.unique(label)) <= {0, *expected}
    value = next(value for value, name in expected.items() if name == "liver")
    np.testing.assert_array_equal(label == value, block() == 1)


def test_structures_that_do_not_occur_are_refused(folders: tuple[Path, Path]) -> None:
    refused(lambda: MedicalDomain(structures="livr").find_cases(*folders), "'livr'", "aorta, liver")
    refused(lambda: MedicalDomain(structures="a,a"), "expected distinct names")
    refused(lambda: MedicalDomain(structures="a:0"), "expected distinct names")
    # A value that nobody wrote is no wish to join.
    refused(lambda: MedicalDomain(structures="a,b:1"), "expected distinct names")


@pytest.mark.parametrize("form", ["files", "seg", "rtstruct"])
def test_structures_of_one_value_are_joined(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, volume = make_source(tmp_path / "images" / "x", shape=(6, 12, 10))
    # Left and right overlap each other, the heart overlaps the left, and is smaller than it.
    squares = {"left": (0.5, 5.5), "right": (4.5, 9.5), "heart": (1.5, 3.5)}
    masks = {}
    for name, (low, high) in squares.items():
        masks[name] = np.zeros(volume.shape, np.uint8)
        inside = slice(round(low + 0.5), round(high + 0.5))
        masks[name][inside, inside, 1] = 1
    labels = tmp_path / "labels"
    if form == "files":
        for name, mask in masks.items():
            save_nifti(labels / "x" / f"{name}.nii.gz", mask, volume.affine)
    elif form == "seg":
        write_seg(tmp_path / "images" / "x", masks, labels / "seg.dcm")
    else:
        contours = {name: [(1, square(*sides))] for name, sides in squares.items()}
        write_rtstruct(volume, contours, labels / "rt.dcm")
    domain = MedicalDomain(structures="left:1,right:1,heart:2")
    (case,) = domain.find_cases(tmp_path / "images", labels)
    assert domain.class_names(tmp_path / "images", labels) == {1: "left // right", 2: "heart"}
    both = masks["left"] | masks["right"]
    np.testing.assert_array_equal(domain.read(case).label, np.where(masks["heart"], 2, both))
    # Only what two classes claim is told: the heart's four voxels, not the lungs' one.
    assert "4 voxels are in several structures" in caplog.text
    # A run that knows the class by its joined name finds the parts again.
    trained = MedicalDomain(structures={"left // right": 4, "heart": 2})
    (case,) = trained.find_cases(tmp_path / "images", labels)
    assert case.classes == (("heart", 2), ("left", 4), ("right", 4))
    expected = np.where(masks["heart"], 2, 4 * both)
    np.testing.assert_array_equal(trained.read(case).label, expected)
    coarse = trained.with_label(volume, labels / "x" if form == "files" else next(labels.iterdir()))
    np.testing.assert_array_equal(coarse.label, expected)


def test_trained_classes_give_structures_their_values(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Metadata:
        domain, domain_settings = "medical", MedicalDomain().settings()
        classes: ClassVar[dict[str, str]] = {"5": "spleen", "2": "liver"}

    monkeypatch.setattr(
        "samonai.inference.checkpoint_context.read_decoder_metadata", lambda _: Metadata
    )
    domain = trained_domain("decoder.safetensors")
    assert domain.class_names(*folders) == {2: "liver", 5: "spleen"}
    coarse = domain.with_label(domain.read(Case("a", folders[0] / "a.nii.gz")), folders[1] / "a")
    np.testing.assert_array_equal(coarse.label == 5, block(i=slice(8, 10)) == 1)
    # Another tool calls them otherwise: that is no empty label.
    (folders[1] / "a" / "liver.nii.gz").rename(folders[1] / "a" / "Leber.nii.gz")
    (folders[1] / "a" / "spleen.nii.gz").unlink()
    image = domain.read(Case("a", folders[0] / "a.nii.gz"))
    words = ("'Leber'", "'spleen', 'liver'", "--set structures='Leber:5'")
    refused(lambda: domain.with_label(image, folders[1] / "a"), *words)
    renamed = trained_domain("decoder.safetensors", structures="Leber:2")
    np.testing.assert_array_equal(renamed.with_label(image, folders[1] / "a").label, 2 * block())


def test_several_values_in_a_structures_file_are_refused(folders: tuple[Path, Path]) -> None:
    save_nifti(folders[1] / "a" / "liver.nii.gz", block() + block(i=slice(3, 4)))
    domain = MedicalDomain()
    refused(lambda: domain.read(domain.find_cases(*folders)[0]), "liver.nii.gz", "2 label values")


def test_a_case_without_its_folder_is_refused(folders: tuple[Path, Path]) -> None:
    save_nifti(folders[0] / "c.nii.gz", np.ones(SHAPE, np.int16))
    refused(lambda: MedicalDomain().find_cases(*folders), "1 images without a label (c)")


def test_structures_on_another_grid_are_refused(folders: tuple[Path, Path]) -> None:
    save_nifti(folders[1] / "a" / "liver.nii.gz", block(), np.diag([2.0, 1, 1, 1]))
    domain = MedicalDomain()
    refused(lambda: domain.read(domain.find_cases(*folders)[0]), "another grid")


# DICOM-SEG


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_seg_lies_on_the_voxels_that_it_was_written_from(tmp_path: Path, orientation: str) -> None:
    _, volume = make_source(tmp_path / "in", ORIENTATIONS[orientation], order=(3, 0, 5, 1, 4, 2))
    label = make_label(volume.shape)
    (path,) = write_outputs(volume, label, tmp_path / "out", ["dicom-seg"], facts=FACTS)
    names = {name: value for value, name in FACTS.classes.items()}
    np.testing.assert_array_equal(read_label(path, volume, structures=names), label)


def seg_masks(shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    liver, tumour = np.zeros(shape), np.zeros(shape)
    liver[1:4, 1:7, 1:5] = 1
    tumour[2:4, 3:5, 2:3] = 1  # within the liver, on one slice: other frames are left out
    return {"liver": liver, "tumour": tumour}


def test_overlapping_segments_put_the_smaller_on_top(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, volume = make_source(tmp_path / "in")
    masks = seg_masks(volume.shape)
    write_seg(tmp_path / "in", masks, tmp_path / "seg.dcm")
    assert pydicom.dcmread(tmp_path / "seg.dcm").NumberOfFrames == 5  # sparse
    label = read_label(tmp_path / "seg.dcm", volume)
    np.testing.assert_array_equal(label, np.where(masks["tumour"], 2, masks["liver"]))
    assert "4 voxels are in several structures" in caplog.text
    # And so it is whichever comes first.
    reversed_masks = dict(reversed(masks.items()))
    write_seg(tmp_path / "in", reversed_masks, tmp_path / "other.dcm")
    np.testing.assert_array_equal(read_label(tmp_path / "other.dcm", volume), label)


def test_fractional_segments_count_from_a_half_on(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in")
    shares = np.zeros(volume.shape)
    shares[1, 1, :4] = [0.25, 0.49, 0.5, 1.0]
    write_seg(tmp_path / "in", {"liver": shares}, tmp_path / "seg.dcm", "FRACTIONAL")
    label = read_label(tmp_path / "seg.dcm", volume)
    assert label[1, 1, :4].tolist() == [0, 0, 1, 1]


def test_label_map_segmentation(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in")
    masks = seg_masks(volume.shape)
    apart = {"liver": masks["liver"] * (1 - masks["tumour"]), "tumour": masks["tumour"]}
    write_seg(tmp_path / "in", apart, tmp_path / "seg.dcm", "LABELMAP")
    expected = np.where(masks["tumour"], 2, masks["liver"])
    np.testing.assert_array_equal(read_label(tmp_path / "seg.dcm", volume), expected)


def test_seg_of_another_series_is_refused(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "a")
    write_seg(tmp_path / "a", seg_masks(volume.shape), tmp_path / "seg.dcm")
    _, other = make_source(tmp_path / "b")
    refused(lambda: read_label(tmp_path / "seg.dcm", other), "labels series", "the image is series")


def test_seg_between_the_voxels_is_refused(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "a")
    write_seg(tmp_path / "a", seg_masks(volume.shape), tmp_path / "seg.dcm")
    moved = volume.affine.copy()
    moved[0, 3] += 0.2
    shifted = Volume(volume.data, moved, "a", volume.facts)
    refused(lambda: read_label(tmp_path / "seg.dcm", shifted), "does not lie on the voxels")


def test_seg_on_a_series_with_a_gap_and_a_tilt(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in")
    write_seg(tmp_path / "in", seg_masks(volume.shape), tmp_path / "seg.dcm")
    next(f for f in (tmp_path / "in").iterdir() if f.name == "slice002").unlink()
    gapped = read_volume(tmp_path / "in", allow_gaps=True)
    np.testing.assert_array_equal(
        read_label(tmp_path / "seg.dcm", gapped), read_label(tmp_path / "seg.dcm", volume)
    )


def test_damaged_seg_is_refused(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in")
    write_seg(tmp_path / "in", seg_masks(volume.shape), tmp_path / "seg.dcm")
    raw = (tmp_path / "seg.dcm").read_bytes()
    (tmp_path / "seg.dcm").write_bytes(raw[:-20])
    refused(lambda: read_label(tmp_path / "seg.dcm", volume), "seg.dcm")


# RTSTRUCT


def test_contours_along_pixel_edges_give_these_pixels(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in", shape=(6, 12, 10))
    contours = [(1, square(0.5, 7.5)), (4, square(1.5, 3.5)), (4, square(5.5, 8.5))]
    write_rtstruct(volume, {"liver": contours}, tmp_path / "rt.dcm")
    expected = np.zeros(volume.shape, int)
    expected[1:8, 1:8, 1] = 1
    expected[2:4, 2:4, 4] = expected[6:9, 6:9, 4] = 1  # two contours on one slice
    np.testing.assert_array_equal(read_label(tmp_path / "rt.dcm", volume), expected)


def test_holes_islands_and_keyholes(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in", shape=(6, 12, 10))
    nested = [(1, square(0.5, 8.5)), (1, square(2.5, 6.5)), (1, square(3.5, 5.5))]
    write_rtstruct(volume, {"organ": [*nested, (3, KEYHOLE)]}, tmp_path / "rt.dcm")
    ring = np.zeros(volume.shape[:2], int)
    ring[1:9, 1:9] = 1
    ring[3:7, 3:7] = 0
    label = read_label(tmp_path / "rt.dcm", volume)
    np.testing.assert_array_equal(label[:, :, 3], ring)
    ring[4:6, 4:6] = 1  # the island
    np.testing.assert_array_equal(label[:, :, 1], ring)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_written_rtstruct_comes_back(tmp_path: Path, orientation: str) -> None:
    _, volume = make_source(tmp_path / "in", ORIENTATIONS[orientation], shape=(6, 12, 10))
    contours = [(2, [(0.5, 1.5), (8.5, 1.5), (8.5, 9.5)])]
    write_rtstruct(volume, {"wedge": contours}, tmp_path / "rt.dcm")
    label = read_label(tmp_path / "rt.dcm", volume)
    rows, columns = np.mgrid[: volume.shape[1], : volume.shape[0]]
    inside = Polygon(contours[0][1]).contains_points(np.stack([columns.ravel(), rows.ravel()], 1))
    np.testing.assert_array_equal(label[:, :, 2].T, inside.reshape(rows.shape))
    assert label.sum() == inside.sum() > 0


def test_random_polygons_agree_with_matplotlib() -> None:
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:20, :30]
    centres = np.stack([columns.ravel(), rows.ravel()], 1)
    for _ in range(50):
        angles = np.sort(generator.uniform(0, 2 * np.pi, generator.integers(3, 12)))
        radii = generator.uniform(3, 18, len(angles))
        corners = np.stack([14 + radii * np.cos(angles), 9 + radii * np.sin(angles)], 1)
        inside = Polygon(corners).contains_points(centres).reshape(rows.shape)
        np.testing.assert_array_equal(fill_polygons([corners], (20, 30)), inside)


def test_centres_on_an_outline_belong_to_its_left_and_upper_side() -> None:
    filled = fill_polygons([np.array(square(1, 4), float)], (6, 6))
    expected = np.zeros((6, 6), bool)
    expected[1:4, 1:4] = True
    np.testing.assert_array_equal(filled, expected)
    # Neighbours that share an outline share no pixel, and leave none out.
    halves = [[(0.0, 0), (3, 0), (3, 6), (0, 6)], [(3.0, 0), (6, 0), (6, 6), (3, 6)]]
    left, right = (fill_polygons([np.array(half)], (6, 6)) for half in halves)
    assert not (left & right).any()
    assert (left | right).all()


@pytest.mark.parametrize("orientation", ["axial", "oblique"])
def test_rtstruct_equals_plastimatch(tmp_path: Path, orientation: str) -> None:
    program = tool("plastimatch")
    _, volume = make_source(tmp_path / "in", ORIENTATIONS[orientation], shape=(6, 24, 20))
    regions = {
        # plastimatch joins a region's contours, and knows holes as keyholes only.
        "edges": [(1, KEYHOLE), (2, square(2.5, 5.5)), (2, square(8.5, 11.5))],
        "slanted": [(4, [(1.3, 2.2), (16.7, 5.1), (9.4, 20.6)])],
    }
    write_rtstruct(volume, regions, tmp_path / "rt.dcm")
    command = [program, "convert", "--input", tmp_path / "rt.dcm", "--referenced-ct",
               tmp_path / "in", "--output-prefix", tmp_path / "masks",
               "--prefix-format", "nrrd"]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    label = read_label(tmp_path / "rt.dcm", volume)
    for name, value in (("edges", 1), ("slanted", 2)):
        (path,) = (tmp_path / "masks").glob(f"*{name}*")
        image = sitk.ReadImage(str(path))
        physical = np.argwhere(label == value) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        indices = [
            image.TransformPhysicalPointToIndex((-x, -y, z)) for x, y, z in physical.tolist()
        ]
        theirs = np.argwhere(sitk.GetArrayFromImage(image).T > 0)
        assert {tuple(i) for i in indices} == {tuple(i) for i in theirs.tolist()}


def test_contour_between_slices_is_refused(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in", shape=(6, 12, 10))
    moved = volume.affine.copy()
    moved[2, 3] += STEP / 2
    shifted = Volume(volume.data, moved, "a", volume.facts)
    write_rtstruct(shifted, {"liver": [(1, square(1, 5))]}, tmp_path / "rt.dcm")
    refused(lambda: read_label(tmp_path / "rt.dcm", volume), "does not lie on a slice")


def test_contour_beyond_the_series_is_refused(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in", shape=(6, 12, 10))
    write_rtstruct(volume, {"liver": [(9, square(1, 5))]}, tmp_path / "rt.dcm")
    refused(lambda: read_label(tmp_path / "rt.dcm", volume), "beyond the image's slices")


def test_points_and_open_lines_are_no_structures(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in", shape=(6, 12, 10))
    write_rtstruct(volume, {"isocentre": [(1, [(2, 2)])]}, tmp_path / "rt.dcm", kind="POINT")
    refused(lambda: read_label(tmp_path / "rt.dcm", volume), "rt.dcm")


# Matching by UID


def test_objects_find_their_series_by_uid(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volumes = {}
    for name in ("x", "y", "z"):
        _, volumes[name] = make_source(tmp_path / "images" / name)
    masks = seg_masks(volumes["x"].shape)
    write_seg(tmp_path / "images" / "y", masks, tmp_path / "labels" / "nameless" / "1")
    write_rtstruct(volumes["x"], {"liver": [(1, square(0.5, 2.5))]}, tmp_path / "labels" / "2")
    domain = MedicalDomain()
    cases = domain.find_cases(tmp_path / "images", tmp_path / "labels")
    first, second = sorted(cases, key=lambda case: case.image.name)
    assert (first.image.name, second.image.name) == ("x", "y")
    assert domain.class_names(tmp_path / "images", tmp_path / "labels") == {
        1: "liver",
        2: "tumour",
    }
    assert domain.read(first).label.sum() == 4
    expected = np.where(masks["tumour"], 2, masks["liver"])
    np.testing.assert_array_equal(domain.read(second).label, expected)
    assert "1 folders without a label are left out" in caplog.text


def test_folders_of_labels_beside_their_scan_are_no_scans(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = tmp_path / "study"
    _, volume = make_source(study / "image")
    write_seg(study / "image", seg_masks(volume.shape), study / "mask" / "seg")
    write_rtstruct(volume, {"liver": [(1, square(0.5, 2.5))]}, study / "contours" / "rt")
    (case,) = MedicalDomain().find_cases(study)
    assert case.image == study / "image"
    assert "left out 2 folders that hold DICOM-SEG or RTSTRUCT objects only" in caplog.text
    # A scan with its contours beside it stays; labels alone are told by whoever reads them.
    write_rtstruct(volume, {"liver": [(1, square(0.5, 2.5))]}, study / "image" / "contours")
    assert len(MedicalDomain().find_cases(study)) == 1
    (study / "image").rename(tmp_path / "elsewhere")
    label, _ = MedicalDomain().find_cases(study)
    refused(lambda: MedicalDomain().read(label), "no DICOM images in it")


def test_label_chooses_among_the_series_of_a_patient(tmp_path: Path) -> None:
    make_source(tmp_path / "study" / "a")
    _, wanted = make_source(tmp_path / "study" / "b")
    write_seg(tmp_path / "study" / "b", seg_masks(wanted.shape), tmp_path / "study" / "seg.dcm")
    domain = MedicalDomain()
    (case,) = domain.find_cases(tmp_path / "study", tmp_path / "study" / "seg.dcm")
    assert case.series == wanted.facts.series_uid
    np.testing.assert_array_equal(domain.read(case).data, wanted.data)


def test_objects_of_one_series_in_one_folder_are_put_together(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "images" / "x")
    masks = seg_masks(volume.shape)
    for name, mask in masks.items():
        write_seg(
            tmp_path / "images" / "x", {name: mask}, tmp_path / "labels" / "x" / f"{name}.dcm"
        )
    domain = MedicalDomain()
    (case,) = domain.find_cases(tmp_path / "images", tmp_path / "labels")
    expected = np.where(masks["tumour"], 2, masks["liver"])
    np.testing.assert_array_equal(domain.read(case).label, expected)


def test_objects_without_their_series_are_refused(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "images" / "x")
    make_source(tmp_path / "elsewhere")
    write_seg(tmp_path / "elsewhere", seg_masks(volume.shape), tmp_path / "labels" / "s.dcm")
    refused(
        lambda: MedicalDomain().find_cases(tmp_path / "images", tmp_path / "labels"),
        "none of the 1 DICOM-SEG and RTSTRUCT objects",
    )


def test_dicom_images_as_label_maps_still_work(tmp_path: Path) -> None:
    make_source(tmp_path / "images" / "x", shape=(6, 9, 5))
    stored = (stored_values((6, 9, 5)) % 3).astype(np.int16)

    for number in range(6):
        image = make_slice(stored[number], (-10, 20, -30 + STEP * number), uid="9.9")
        image.RescaleIntercept = 0
        save(image, tmp_path / "labels" / "x" / f"{number}.dcm")
    domain = MedicalDomain()
    (case,) = domain.find_cases(tmp_path / "images", tmp_path / "labels")
    assert case.classes == ()
    np.testing.assert_array_equal(domain.read(case).label.T, stored)


def test_edited_object_is_read_anew(tmp_path: Path) -> None:
    _, volume = make_source(tmp_path / "in")
    write_seg(tmp_path / "in", seg_masks(volume.shape), tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    item: Dataset = dataset.SegmentSequence[0]
    item.SegmentLabel = "kidney"
    dataset.save_as(tmp_path / "seg.dcm")
    label = read_label(tmp_path / "seg.dcm", volume, structures={"kidney": 4})
    np.testing.assert_array_equal(label, 4 * seg_masks(volume.shape)["liver"])
