"""Metrics: exact values on hand-made masks, undefined numbers, and strict files."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import binary_erosion

from samonai.metrics import volumes as metrics
from samonai.metrics.summary import join_methods, metrics_document, summarise, write_metrics
from samonai.metrics.volumes import METRICS, case_rows, mask_metrics

SPACING = (0.5, 1.5, 4.0)
CLASSES = {1: "liver", 2: "spleen"}


def cube(shape: tuple[int, ...], *bounds: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(*b) for b in bounds)] = 1
    return mask


def surface_points(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    return np.argwhere(mask & ~binary_erosion(mask)) * np.asarray(spacing)


def brute_force(
    a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...], tolerance: float
) -> tuple[float, float]:
    distances = np.linalg.norm(
        surface_points(a, spacing)[:, None] - surface_points(b, spacing)[None], axis=-1
    )
    one, other = distances.min(axis=1), distances.min(axis=0)
    agreeing = (one <= tolerance).sum() + (other <= tolerance).sum()
    return agreeing / (one.size + other.size), max(np.percentile(d, 95) for d in (one, other))


def test_a_perfect_prediction_is_perfect_and_its_volume_is_in_millilitres() -> None:
    label = cube((12, 10, 6), (2, 7), (3, 8), (1, 5))
    (row,) = case_rows(label, label, spacing=SPACING, classes={1: "liver"}, case_id="a")
    assert row == {
        "case": "a",
        "class": "liver",
        "label": 1,
        "method": "finetuned",
        "dice": 1.0,
        "iou": 1.0,
        "surface_dice": 1.0,
        "hd95_mm": 0.0,
        "volume_ml": 5 * 5 * 4 * 3.0 / 1000,
        "reference_volume_ml": 5 * 5 * 4 * 3.0 / 1000,
        "volume_difference_ml": 0.0,
        "voxels": 100,
        "reference_voxels": 100,
        "status": "ok",
    }


@pytest.mark.parametrize(("axis", "surface_dice"), [(0, 1.0), (1, None), (2, None)])
def test_a_shift_by_one_voxel_costs_that_axis_spacing(
    axis: int, surface_dice: float | None
) -> None:
    label = cube((16, 16, 16), (4, 9), (4, 9), (4, 9))
    prediction = np.roll(label, 1, axis=axis)
    measured = mask_metrics(prediction == 1, label == 1, SPACING, surface_tolerance_mm=1.0)
    assert measured["dice"] == pytest.approx(2 * 100 / 250)
    assert measured["iou"] == pytest.approx(100 / 150)
    assert measured["hd95_mm"] == pytest.approx(SPACING[axis])
    if surface_dice is None:  # the two faces across the axis no longer agree
        assert 0.4 < measured["surface_dice"] < 0.9
    else:
        assert measured["surface_dice"] == surface_dice


def test_anisotropic_surface_metrics_equal_brute_force() -> None:
    rng = np.random.default_rng(3)
    for _ in range(4):
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in (14, 12, 8)), indexing="ij"), -1)
        masks = []
        for _ in range(2):
            centre = np.array([7, 6, 4]) + rng.uniform(-2, 2, 3)
            radius = rng.uniform(2, 5, 3)
            masks.append((((grid - centre) / radius) ** 2).sum(-1) <= 1)
        measured = mask_metrics(*masks, SPACING, surface_tolerance_mm=1.6)
        surface_dice, hd95 = brute_force(*masks, SPACING, 1.6)
        assert measured["surface_dice"] == pytest.approx(surface_dice, rel=1e-6)
        assert measured["hd95_mm"] == pytest.approx(hd95, rel=1e-6)


def test_cropping_changes_no_number_even_at_the_border() -> None:
    import torch

    label = cube((20, 18, 9), (0, 6), (2, 9), (5, 9))
    prediction = cube((20, 18, 9), (0, 8), (1, 7), (4, 9))
    y_pred, y = (torch.from_numpy(m)[None, None].bool() for m in (prediction, label))
    measured = mask_metrics(prediction == 1, label == 1, SPACING, 1.0)
    spacing = list(SPACING)
    assert measured["dice"] == compute_dice(y_pred.float(), y.float()).item()
    assert (
        measured["surface_dice"]
        == compute_surface_dice(y_pred, y, [1.0], include_background=True, spacing=spacing).item()
    )
    assert (
        measured["hd95_mm"]
        == compute_hausdorff_distance(
            y_pred, y, include_background=True, percentile=95, spacing=spacing
        ).item()
    )
    moved = np.pad(prediction, 5), np.pad(label, 5)
    assert mask_metrics(moved[0] == 1, moved[1] == 1, SPACING, 1.0) == measured


def test_a_false_positive_on_an_empty_slice_lowers_the_dice() -> None:
    label = cube((8, 8, 4), (2, 6), (2, 6), (0, 2))
    prediction = label.copy()
    prediction[2:6, 2:6, 3] = 1
    (row,) = case_rows(prediction, label, spacing=(1, 1, 5), classes={1: "x"}, case_id="a")
    assert row["dice"] == pytest.approx(2 * 32 / (32 + 48))
    assert row["volume_difference_ml"] == pytest.approx(16 * 5 / 1000)
    assert row["hd95_mm"] == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("predicted", "present", "status", "overlap"),
    [
        (False, False, "absent", None),
        (True, False, "missing_in_reference", 0.0),
        (False, True, "missing_in_prediction", 0.0),
        (True, True, "ok", 1.0),
    ],
)
def test_missing_classes_are_missing(
    predicted: bool, present: bool, status: str, overlap: float | None
) -> None:
    mask = cube((6, 6, 3), (1, 4), (1, 4), (1, 3))
    (row,) = case_rows(
        mask * predicted, mask * present, spacing=(1, 1, 1), classes={1: "x"}, case_id="a"
    )
    assert row["status"] == status
    assert [row[name] for name in METRICS[:3]] == [overlap] * 3
    assert row["hd95_mm"] == (0.0 if status == "ok" else None)
    assert row["volume_difference_ml"] == pytest.approx(18 / 1000 * (predicted - present))


def test_planes_are_measured_too_without_a_volume() -> None:
    label = cube((9, 9), (2, 5), (2, 5))
    (row,) = case_rows(
        np.roll(label, 1, axis=1), label, spacing=(1, 3), classes={1: "x"}, case_id="a"
    )
    assert row["hd95_mm"] == pytest.approx(3.0)
    assert row["volume_ml"] is None
    assert row["volume_difference_ml"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prediction": np.zeros((3, 3, 2), int)}, r"shape \(3, 3, 2\) and the reference"),
        ({"spacing": (1.0, 1.0)}, "3 positive spacings"),
        ({"spacing": (1.0, 1.0, math.nan)}, "3 positive spacings"),
        ({"method": "magic"}, "finetuned, zero_shot, box"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, message: str) -> None:
    label = np.zeros((3, 3, 3), int)
    good = {
        "prediction": label,
        "label": label,
        "spacing": (1, 1, 1),
        "classes": CLASSES,
        "case_id": "a",
    }
    with pytest.raises(ValueError, match=message):
        case_rows(**(good | arguments))


def two_cases() -> list[metrics.Row]:
    label = cube((8, 8, 4), (1, 5), (1, 5), (1, 3))
    label[6:8, 6:8, 0:2] = 2
    only_liver = np.where(label == 1, 1, 0)
    half = label.copy()
    half[:, :, 2] = 0
    rows = []
    for case_id, reference in (("a", label), ("b", only_liver)):
        for method, prediction in (("box", half), ("finetuned", reference), ("zero_shot", half)):
            rows += case_rows(
                prediction,
                reference,
                spacing=(1, 1, 2),
                classes=CLASSES,
                case_id=case_id,
                method=method,
            )
    return rows


def test_summary_averages_rows_and_counts_the_missing() -> None:
    found = summarise(two_cases())
    # The box misses one of the liver's two slices (2/3 twice), has the spleen (1), and invents
    # one (0) in case b, where it is absent.
    assert found["summary"]["dice"]["finetuned"] == 1.0
    assert found["summary"]["dice"]["box"] == pytest.approx((2 / 3 + 1 + 2 / 3 + 0) / 4)
    assert found["counts"]["dice"]["finetuned"] == {"n": 3, "missing": 1}
    assert found["counts"]["hd95_mm"]["box"] == {"n": 3, "missing": 1}
    assert found["per_class"]["spleen"]["dice"] == {
        "finetuned": 1.0,
        "zero_shot": pytest.approx(0.5),
        "box": pytest.approx(0.5),
    }
    assert set(found["summary"]) == set(METRICS)


def test_methods_stand_beside_each_other_in_one_row_per_case_and_class() -> None:
    rows = join_methods(two_cases())
    assert [(r["case"], r["class"]) for r in rows] == [
        ("a", "liver"),
        ("a", "spleen"),
        ("b", "liver"),
        ("b", "spleen"),
    ]
    assert list(rows[0])[:7] == ["case", "class", "label", *METRICS[:4]]
    assert rows[0]["dice"] == 1.0
    assert rows[0]["dice_box"] == pytest.approx(2 / 3)
    assert rows[3]["dice"] is None
    assert rows[3]["status_zero_shot"] == "missing_in_reference"
    assert "method" not in rows[0]


def test_a_method_that_was_not_measured_is_null_and_adds_no_columns() -> None:
    rows = [row for row in two_cases() if row["method"] == "zero_shot"]
    document = metrics_document(rows)
    assert document["cases"][0]["dice"] is None
    assert document["cases"][0]["dice_zero_shot"] == pytest.approx(2 / 3)
    assert "dice_box" not in document["cases"][0]
    assert document["summary"]["dice"]["finetuned"] is None


def test_files_are_strict_and_complete(tmp_path: Path) -> None:
    extra = {"prompts": {"kind": "box", "jitter": np.float32(0.5), "odd": math.nan}}
    document = write_metrics(tmp_path / "out", two_cases(), extra)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = (tmp_path / "out" / "metrics.json").read_text()
    assert json.loads(text, parse_constant=refuse) == document
    assert document["prompts"] == {"kind": "box", "jitter": 0.5, "odd": None}
    with (tmp_path / "out" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(document["cases"]) == 4
    assert float(rows[0]["dice_box"]) == document["cases"][0]["dice_box"]
    assert rows[3]["dice"] == ""
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["metrics.csv", "metrics.json"]


def test_no_rows_still_write_readable_files(tmp_path: Path) -> None:
    document = write_metrics(tmp_path, [])
    assert document["cases"] == []
    assert document["summary"]["dice"] == {"finetuned": None, "zero_shot": None, "box": None}
    assert (tmp_path / "metrics.csv").read_text().startswith("case,class,label,dice")
