"""Pixels, outlines and objects: numbers that can be counted by hand."""

import numpy as np
import pytest

from samonai.domains.base import LabelMaps
from samonai.metrics.objects import (
    METRICS,
    boundary_f1,
    match_objects,
    object_rows,
    pooled_instances,
)
from samonai.metrics.summary import join_methods, metrics_document

CLASSES = {1: "roof"}


def boxes(*corners: tuple[int, int, int, int]) -> np.ndarray:
    """Return int (20, 40) with numbered boxes (x0, y0, x1, y1)."""
    numbers = np.zeros((20, 40), int)
    for number, (x0, y0, x1, y1) in enumerate(corners, 1):
        numbers[y0:y1, x0:x1] = number
    return numbers


def maps(numbers: np.ndarray, known: np.ndarray | None = None) -> LabelMaps:
    return LabelMaps((numbers > 0).astype(int), numbers, known)


REFERENCE = boxes((0, 0, 10, 10), (10, 0, 20, 10), (30, 10, 38, 18))
PREDICTED = boxes((0, 0, 10, 8), (10, 0, 24, 10), (2, 15, 4, 17))


def test_objects_pixels_and_counts() -> None:
    (row,) = object_rows(maps(PREDICTED), maps(REFERENCE), spacing=(1, 1), classes=CLASSES,
                         case_id="a")  # fmt: skip
    # IoU 80/100 and 100/140 match; one is missed, one is false.
    assert (row["matched"], row["objects"], row["reference_objects"]) == (2, 3, 3)
    assert row["instance_precision"] == row["instance_recall"] == row["instance_f1"] == 2 / 3
    common, either = 180, 200 + 64 + 40 + 4
    assert row["iou"] == common / either
    assert row["dice"] == 2 * common / (common + either)
    assert row["status"] == "ok"


def test_without_objects_what_touches_is_one() -> None:
    (row,) = object_rows(LabelMaps((PREDICTED > 0).astype(int)), maps(REFERENCE), spacing=(1, 1),
                         classes=CLASSES, case_id="a")  # fmt: skip
    assert (row["matched"], row["objects"]) == (0, 2)


def test_what_is_not_known_counts_for_neither_side() -> None:
    known = np.ones((20, 40), bool)
    known[:, 20:] = False
    known[8:] = False
    (row,) = object_rows(maps(PREDICTED), maps(REFERENCE, known), spacing=(1, 1),
                         classes=CLASSES, case_id="a")  # fmt: skip
    assert row["iou"] == row["dice"] == row["instance_f1"] == row["boundary_f1"] == 1


@pytest.mark.parametrize(("tolerance", "expected"), [(0.4, 0.0), (0.5, 1.0)])
def test_outlines_agree_within_metres(tolerance: float, expected: float) -> None:
    ours, theirs = boxes((5, 5, 11, 6)) > 0, boxes((5, 6, 11, 7)) > 0
    assert boundary_f1(ours, theirs, (0.5, 9.0), tolerance) == expected


def test_each_object_matches_once() -> None:
    halves = boxes((0, 0, 5, 10), (5, 0, 10, 10))
    assert match_objects(halves, boxes((0, 0, 10, 10))) == [(1, 1, 0.5)]


def test_means_and_pooled_objects() -> None:
    empty = np.zeros_like(REFERENCE)
    rows = [
        *object_rows(maps(PREDICTED), maps(REFERENCE), spacing=(1, 1), classes=CLASSES,
                     case_id="a"),
        *object_rows(maps(empty), maps(boxes((1, 1, 5, 5))), spacing=(1, 1), classes=CLASSES,
                     case_id="b"),
        *object_rows(maps(empty), maps(empty), spacing=(1, 1), classes=CLASSES, case_id="c"),
        *object_rows(maps(REFERENCE), maps(REFERENCE), spacing=(1, 1), classes=CLASSES,
                     case_id="a", method="box"),
    ]  # fmt: skip
    assert [rows[2][name] for name in METRICS] == [None] * len(METRICS)
    document = metrics_document(rows, metrics=METRICS)
    assert document["summary"]["instance_f1"] == {
        "finetuned": pytest.approx(1 / 3), "zero_shot": None, "box": 1.0}  # fmt: skip
    assert join_methods(rows)[0]["instance_f1_box"] == 1
    pooled = pooled_instances(rows)["roof"]
    assert pooled["finetuned"]["instance_f1"] == 2 * 2 / (3 + 4)
    assert set(pooled) == {"finetuned", "box"}
