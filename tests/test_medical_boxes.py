"""Boxes from files: where they land on slices, and one clear line for each that cannot."""

import json
from pathlib import Path

import numpy as np
import pytest

from samonai.core.errors import InputError
from samonai.domains.medical import MedicalDomain, Volume
from samonai.domains.medical.prompts.boxes import VoxelBoxes, boxes_on_slices, read_boxes

SHAPE = (12, 10, 8)
NAMES = {1: "liver", 3: "left kidney"}


@pytest.fixture
def volume() -> Volume:
    return Volume(np.zeros(SHAPE, np.float32), np.eye(4), "case_1")


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_json_boxes_keep_their_numbers_and_classes(tmp_path: Path, volume: Volume) -> None:
    boxes = [[0, 0, 0, 12, 10, 8], [1, 2, 3, 4, 5, 6], [1.5, 2, 3, 4, 5.25, 6]]
    path = write(tmp_path / "b.json", {"boxes": boxes, "classes": ["left kidney", 1, "7"]})
    read = read_boxes(path, volume, class_names=NAMES)
    assert np.array_equal(read.boxes, boxes)
    assert read.classes.tolist() == [3, 1, 7]


def test_csv_boxes_of_this_case_are_taken(tmp_path: Path, volume: Volume) -> None:
    path = write(
        tmp_path / "b.csv",
        "case,k0,j0,i0,i1,j1,k1,class\ncase_1,0,1,2,3,4,5,liver\n"
        "case_10,0,0,0,1,1,1,liver\ncase_1, 0, 0, 0, 1, 1, 1,\n",
    )
    read = read_boxes(path, volume, class_names=NAMES, only_case=False)
    assert read.boxes.tolist() == [[2, 1, 0, 3, 4, 5], [0, 0, 0, 1, 1, 1]]
    assert read.classes.tolist() == [1, 1]


def test_json_of_several_cases(tmp_path: Path, volume: Volume) -> None:
    own = {"boxes": [[0, 0, 0, 1, 2, 3]]}
    path = write(tmp_path / "b.json", {"cases": {"case_1": own, "other": {"boxes": []}}})
    assert read_boxes(path, volume, only_case=False).boxes.tolist() == [[0, 0, 0, 1, 2, 3]]


@pytest.mark.parametrize(("names", "expected"), [({}, 1), ({4: "spleen"}, 4), (NAMES, 1)])
def test_boxes_without_a_class(tmp_path, volume, names, expected) -> None:
    path = write(tmp_path / "b.json", {"boxes": [[0, 0, 0, 1, 1, 1]]})
    assert read_boxes(path, volume, class_names=names).classes.tolist() == [expected]


@pytest.mark.parametrize(
    ("axis", "indices", "box"),
    [(2, [3, 4, 5], [1, 2, 4, 6]), (1, [2, 3, 4, 5], [1, 3, 4, 6]), (0, [1, 2, 3], [2, 3, 6, 6])],
)
def test_a_box_lands_on_the_slices_across_an_axis(axis, indices, box) -> None:
    boxes = VoxelBoxes(np.array([[1.0, 2, 3, 4, 6, 6]]), np.array([5]))
    slices = boxes_on_slices(boxes, axis)
    assert list(slices) == indices
    for found, classes in slices.values():
        assert found.dtype == np.float32
        assert found.tolist() == [box]
        assert classes.tolist() == [5]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_is_where_the_voxels_are(axis: int, volume: Volume) -> None:
    """The box of a block of voxels, cut by slice, is the box of the block on each slice."""
    domain = MedicalDomain(axis=axis, window="percentile")
    label = np.zeros(SHAPE, np.int32)
    label[2:5, 3:9, 1:4] = 1
    labelled = domain.with_label(volume, label)
    boxes = VoxelBoxes(np.array([[2.0, 3, 1, 5, 9, 4]]), np.array([1]))
    slices = boxes_on_slices(boxes, axis)
    for index in range(SHAPE[axis]):
        frame = domain.frame(labelled, index)
        rows, columns = np.nonzero(frame.label)
        assert (index in slices) == (len(rows) > 0)
        if index in slices:
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert slices[index][0].tolist() == [expected]


def test_a_fraction_of_a_slice_counts(volume: Volume) -> None:
    boxes = VoxelBoxes(np.array([[0.0, 0, 1.5, 1, 1, 3.25]]), np.array([1]))
    assert list(boxes_on_slices(boxes, 2)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("b.json", {"boxes": [[0, 0, 0, 13, 1, 1]]}, "leaves the volume case_1 of 12x10x8 voxels"),
        ("b.json", {"boxes": [[-1, 0, 0, 1, 1, 1]]}, "leaves the volume"),
        ("b.json", {"boxes": [[0, 0, 2, 1, 1, 2]]}, "box 1 .* is empty"),
        ("b.json", {"boxes": [[3, 0, 0, 1, 1, 2]]}, "is empty"),
        ("b.json", {"boxes": [[0, 0, 1, 1]]}, "expected six numbers"),
        ("b.json", {"boxes": [[0, 0, 0, 1, 1, None]]}, "expected six numbers"),
        ("b.json", {"boxes": [[0, 0, 0, 1, 1, float("nan")]]}, "expected six numbers"),
        ("b.json", {"boxes": [[0, 0, 0, 1, 1, True]]}, "expected six numbers"),
        ("b.json", {"boxes": "all"}, "expected {.boxes.:"),
        ("b.json", [[0, 0, 0, 1, 1, 1]], "expected {.boxes.:"),
        ("b.json", {"boxes": [], "classes": []}, "no boxes for case case_1"),
        ("b.json", {"boxes": [[0, 0, 0, 1, 1, 1]], "labels": [1]}, "unknown key 'labels'"),
        ("b.json", {"boxes": [[0, 0, 0, 1, 1, 1]], "classes": []}, "1 boxes but 0 classes"),
        ("b.json", {"boxes": [[0, 0, 0, 1, 1, 1]], "classes": ["lung"]}, "'lung' is not known"),
        ("b.json", {"boxes": [[0, 0, 0, 1, 1, 1]], "classes": [0]}, "'0' is not known"),
        ("b.json", {"boxes": [[0, 0, 0, 1, 1, 1]], "classes": [1.5]}, "'1.5' is not known"),
        ("b.json", {"cases": {"other": {"boxes": []}}}, "no boxes for case case_1"),
        ("b.json", "{boxes", "not valid JSON"),
        ("b.csv", "i0,j0,k0,i1,j1\n0,0,0,1,1\n", "no column k1"),
        ("b.csv", "case,i0,j0,k0,i1,j1,k1\nother,0,0,0,1,1,1\n", "no row for case case_1"),
        ("b.csv", "i0,j0,k0,i1,j1,k1\n0,0,0,1,1,one\n", "expected six numbers"),
        ("b.csv", "i0,j0,k0,i1,j1,k1\n0,0,0\n", "expected six numbers"),
        ("b.txt", "0 0 0 1 1 1", "read from .json or .csv"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path, volume, name, content, said) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=said) as error:
        read_boxes(path, volume, class_names=NAMES)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("b.json", {"boxes": [[0, 0, 0, 1, 1, 1]]}, "which of several cases"),
        ("b.csv", "i0,j0,k0,i1,j1,k1\n0,0,0,1,1,1\n", "needs a case column"),
    ],
)
def test_several_cases_need_a_file_that_names_them(tmp_path, volume, name, content, said) -> None:
    with pytest.raises(InputError, match=said):
        read_boxes(write(tmp_path / name, content), volume, only_case=False)


def test_a_missing_file_is_named(tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(InputError, match=r"nothing\.json: no such file"):
        read_boxes(tmp_path / "nothing.json", volume)
