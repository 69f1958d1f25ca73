"""Clicks from files: where they land on slices, and one clear line for each that cannot."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_scans import write_scans

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.domains.medical import MedicalDomain, Volume
from samonai.domains.medical.prompts.points import holds_points

SHAPE = (12, 10, 8)
NAMES = {1: "liver", 3: "left kidney"}


@pytest.fixture
def volume() -> Volume:
    return Volume(np.zeros(SHAPE, np.float32), np.eye(4), "case_1")


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(path: Path, volume: Volume, axis: int = 2, **options):
    return MedicalDomain(axis=axis).read_boxes(volume, path, class_names=NAMES, **options)


@pytest.mark.parametrize(
    ("axis", "index", "xy"), [(2, 5, (3.5, 4.5)), (1, 4, (3.5, 5.5)), (0, 3, (4.5, 5.5))]
)
def test_a_voxel_is_clicked_at_its_centre(tmp_path, volume, axis, index, xy) -> None:
    path = write(tmp_path / "p.json", {"points": [[3, 4, 5]]})
    prompts = read(path, volume, axis)
    assert list(prompts) == [index]
    assert prompts[index].point_coords.tolist() == [[list(xy)]]
    assert prompts[index].point_labels.tolist() == [[1]]
    assert prompts[index].classes.tolist() == [1]
    assert np.isnan(prompts[index].boxes).all()


def test_objects_have_points_and_classes_of_their_own(tmp_path, volume) -> None:
    path = write(
        tmp_path / "p.json",
        {
            "points": [[1, 1, 2], [2, 2, 2], [6, 6, 2], [1, 1, 3]],
            "labels": [1, 0, 1, 1],
            "object": ["a", "a", 7, "a"],
            "classes": {"a": "left kidney", "7": 5},
        },
    )
    prompts = read(path, volume)
    assert list(prompts) == [2, 3]
    assert prompts[2].classes.tolist() == [3, 5]
    assert prompts[2].point_labels.tolist() == [[1, 0], [1, -1]]
    assert prompts[2].point_coords[0].tolist() == [[1.5, 1.5], [2.5, 2.5]]
    assert prompts[3].classes.tolist() == [3]


def test_clicks_refine_the_box_of_their_object(tmp_path, volume) -> None:
    path = write(
        tmp_path / "p.json",
        {
            "boxes": [[0, 0, 1, 5, 5, 3], [6, 6, 1, 9, 9, 2]],
            "classes": ["left kidney", "liver"],
            "points": [[4, 4, 2], [8, 2, 2]],
            "labels": [0, 1],
            "object": [0, "other"],
        },
    )
    prompts = read(path, volume)
    assert list(prompts) == [1, 2]
    assert prompts[1].boxes.tolist() == [[0, 0, 5, 5], [6, 6, 9, 9]]
    assert prompts[1].point_coords is None
    assert prompts[2].classes.tolist() == [3, 1]
    assert prompts[2].boxes[0].tolist() == [0, 0, 5, 5]
    assert np.isnan(prompts[2].boxes[1]).all()
    assert prompts[2].point_labels.tolist() == [[0], [1]]


def test_points_of_several_cases(tmp_path, volume) -> None:
    cases = {"case_1": {"points": [[0, 0, 0]]}, "case_2": {"points": [[1, 1, 1]]}}
    path = write(tmp_path / "p.json", {"cases": cases})
    assert holds_points(path)
    assert list(read(path, volume, only_case=False)) == [0]


POINT = {"points": [[1, 1, 1]]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"points": []}, "no points for case case_1"),
        ({"points": 3}, r'expected \{"points": \[\[i, j, k\]'),
        ({"points": [[1, 2]]}, "point 1 is .*expected three numbers i, j, k"),
        ({"points": [[1, 2, "x"]]}, "expected three numbers"),
        ({"points": [[1, 2, float("nan")]]}, "expected three numbers"),
        ({"points": [[1, 2, True]]}, "expected three numbers"),
        ({"points": [[1, 1, 1], [12, 0, 0]]}, r"point 2 \[12, 0, 0\] leaves the volume case_1"),
        ({"points": [[-1, 0, 0]]}, "leaves the volume"),
        ({**POINT, "labels": [1, 1]}, "1 points but 2 labels; give one for each point"),
        ({**POINT, "labels": [2]}, r"label 2; a point is 1 \(inside\) or 0 \(outside\)"),
        ({**POINT, "labels": [True]}, "label True"),
        ({**POINT, "labels": [0]}, "slice 1 has only points outside an object"),
        ({**POINT, "object": "a"}, "1 points but no list of object"),
        ({**POINT, "object": [1.5]}, "object 1.5; expected a text or a whole number"),
        ({**POINT, "classes": {"b": 1}}, "classes names object 'b', which has no point"),
        ({**POINT, "object": ["a"], "classes": {"a": "spleen"}}, "class 'spleen' is not known"),
        ({**POINT, "boxes": [[0, 0, 0, 1, 1]]}, "expected six numbers"),
        ({**POINT, "boxes": []}, "no boxes for case"),
        ({**POINT, "boxs": []}, "unknown key 'boxs'"),
        ({"cases": {"case_2": POINT}}, "no points for case case_1"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, volume, content, said) -> None:
    path = write(tmp_path / "p.json", content)
    with pytest.raises(InputError, match=said) as caught:
        read(path, volume)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_for_one_case_is_not_taken_for_several(tmp_path, volume) -> None:
    with pytest.raises(InputError, match="does not say which of several cases its points belong"):
        read(write(tmp_path / "p.json", POINT), volume, only_case=False)


def test_predict_takes_clicks(tmp_path: Path, capsys) -> None:
    images, _ = write_scans(tmp_path)
    path = write(tmp_path / "p.json", {"points": [[12, 10, 1], [2, 2, 1]], "labels": [1, 0]})
    scan = str(images / "case_a.nii.gz")
    argv = ["predict", "medical", "--model", "micro", "--input", scan, "--boxes", str(path)]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    label = np.asarray(nib.load(tmp_path / "out" / "case_a.nii.gz").dataobj)
    assert label.shape == (24, 20, 3)
    assert not label[..., [0, 2]].any()
    assert label[12, 10, 1] == 1
    write(path, {"points": [[40, 10, 1]]})
    assert main([*argv, "--out", str(tmp_path / "other")]) == 2
    assert "leaves the volume" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
