"""Object metrics: F1 of pixels, outlines and whole objects, per case and class.

| metric               | meaning                                                                |
|----------------------|------------------------------------------------------------------------|
| `dice`               | F1 of the pixels                                                       |
| `iou`                | intersection over union of the pixels                                  |
| `boundary_f1`        | F1 of the outlines' pixels, matched within a tolerance                 |
| `instance_precision` | share of the predicted objects that match one of the reference         |
| `instance_recall`    | share of the reference's objects that are matched                      |
| `instance_f1`        | F1 of the objects, SpaceNet's measure                                  |

Two objects match if their IoU is at least 0.5; each matches at most one. In a map without
objects, connected pixels of a class (by side or corner) are one. Pixels that the reference
does not label are ignored. An undefined value is None, as in `metrics`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from samonai.domains.base import LabelMaps
from samonai.domains.coco_masks import decode_rle
from samonai.metrics.volumes import METHODS, Row, status

METRICS = (
    "dice",
    "iou",
    "boundary_f1",
    "instance_precision",
    "instance_recall",
    "instance_f1",
)
"""Names of the averaged metrics."""

MATCH_IOU = 0.5

_EVERY_NEIGHBOUR = np.ones((3, 3), bool)

Mask = npt.NDArray[np.bool_]


def object_rows(
    prediction: LabelMaps,
    reference: LabelMaps,
    *,
    spacing: Sequence[float],
    classes: Mapping[int, str],
    case_id: str,
    method: str = "finetuned",
    boundary_tolerance: float = 1.0,
) -> list[Row]:
    """Measure one predicted map against the reference, class by class.

    Args:
        prediction: Class per pixel, with objects if there are any.
        reference: Likewise, on the same grid.
        spacing: Size of a pixel (down, across).
        classes: Label value to class name; each gives one row.
        case_id: Value of `case` in the rows.
        method: One of `metrics.METHODS`.
        boundary_tolerance: Largest distance of matching outlines, in the unit of
            `spacing`.

    Returns:
        One row per class: `case`, `class`, `label`, `method`, `METRICS`, `matched`, `objects`,
        `reference_objects`, `pixels`, `reference_pixels`, `status`.
    """
    if prediction.label.shape != reference.label.shape:
        raise ValueError(
            f"case {case_id}: the prediction has shape {prediction.label.shape} and the reference "
            f"{reference.label.shape}"
        )
    known = np.ones(reference.label.shape, bool) if reference.known is None else reference.known
    rows: list[Row] = []
    for value, name in classes.items():
        masks = [(maps.label == value) & known for maps in (prediction, reference)]
        numbers = [
            objects_of(mask, maps)
            for mask, maps in zip(masks, (prediction, reference), strict=True)
        ]
        pixels, reference_pixels = (int(np.count_nonzero(mask)) for mask in masks)
        rows.append(
            {
                "case": case_id,
                "class": name,
                "label": int(value),
                "method": method,
                **pixel_metrics(masks[0], masks[1]),
                "boundary_f1": boundary_f1(masks[0], masks[1], spacing, boundary_tolerance),
                **instance_metrics(numbers[0], numbers[1], covered_masks(reference, value, known)),
                "pixels": pixels,
                "reference_pixels": reference_pixels,
                "status": status(pixels > 0, reference_pixels > 0),
            }
        )
    return rows


def pixel_metrics(predicted: Mask, reference: Mask) -> dict[str, float | None]:
    """Return F1 (`dice`) and IoU of two masks; None where both are empty."""
    common = np.count_nonzero(predicted & reference)
    either = np.count_nonzero(predicted | reference)
    if not either:
        return {"dice": None, "iou": None}
    return {"dice": 2 * common / (either + common), "iou": common / either}


def boundary_f1(
    predicted: Mask, reference: Mask, spacing: Sequence[float], tolerance: float
) -> float | None:
    """Return the F1 of two masks' outlines; None where both are empty.

    Args:
        predicted: bool (H, W).
        reference: bool (H, W).
        spacing: Size of a pixel (down, across).
        tolerance: Largest distance to the other outline of a matched pixel.
    """
    ours, theirs = _outline(predicted), _outline(reference)
    if not ours.any() and not theirs.any():
        return None
    if not ours.any() or not theirs.any():
        return 0.0
    steps = tuple(float(step) for step in spacing)
    shares = [
        float((ndimage.distance_transform_edt(~other, sampling=steps)[own] <= tolerance).mean())
        for own, other in ((ours, theirs), (theirs, ours))
    ]
    return _f1(*shares)


def instance_metrics(
    predicted: npt.NDArray[np.integer],
    reference: npt.NDArray[np.integer],
    covered: Mapping[int, npt.NDArray[np.uint8]] | None = None,
) -> dict[str, float | None]:
    """Match objects; return precision, recall, F1 and their counts.

    Args:
        predicted: integer (H, W), number of the object, 0 is none.
        reference: Likewise.
        covered: Whole masks of the reference's objects that others cover, by number.
    """
    objects = int(np.count_nonzero(np.unique(predicted)))
    numbers = {*np.unique(reference).tolist(), *(covered or {})}
    reference_objects = len(numbers - {0})
    matched = len(match_objects(predicted, reference, covered=covered))
    return {
        **_shares(matched, objects, reference_objects),
        "matched": matched,
        "objects": objects,
        "reference_objects": reference_objects,
    }


def match_objects(
    predicted: npt.NDArray[np.integer],
    reference: npt.NDArray[np.integer],
    least_iou: float = MATCH_IOU,
    covered: Mapping[int, npt.NDArray[np.uint8]] | None = None,
) -> list[tuple[int, int, float]]:
    """Pair objects one to one, the best pairs first.

    Args:
        predicted: integer (H, W), number of the object, 0 is none.
        reference: Likewise.
        least_iou: Least IoU of a pair.
        covered: Whole masks, uint8 (H, W), of the reference's objects that others cover.

    Returns:
        (number in `predicted`, number in `reference`, IoU) of each pair.
    """
    covered = covered or {}
    reference = np.where(np.isin(reference, list(covered)), 0, reference)
    areas = [dict(zip(*_counts(numbers), strict=True)) for numbers in (predicted, reference)]
    both = (predicted > 0) & (reference > 0)
    pairs, common = np.unique(
        np.column_stack([predicted[both], reference[both]]), axis=0, return_counts=True
    )
    scored = []
    for (own, other), count in zip(pairs.tolist(), common.tolist(), strict=True):
        iou = count / (areas[0][own] + areas[1][other] - count)
        if iou >= least_iou:
            scored.append((own, other, iou))
    for other, mask in covered.items():
        for own, count in zip(*_counts(predicted[mask > 0]), strict=True):
            iou = count / (areas[0][own] + np.count_nonzero(mask) - count)
            if own and iou >= least_iou:
                scored.append((own, other, iou))
    chosen: list[tuple[int, int, float]] = []
    taken: tuple[set[int], set[int]] = (set(), set())
    for own, other, iou in sorted(scored, key=lambda pair: -pair[2]):
        if own not in taken[0] and other not in taken[1]:
            chosen.append((own, other, iou))
            taken[0].add(own)
            taken[1].add(other)
    return chosen


def pooled_instances(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return precision, recall and F1 over the objects of all cases together, as SpaceNet does.

    Args:
        rows: Rows of `object_rows` for any number of cases and methods.

    Returns:
        By class and method.
    """
    rows = list(rows)
    pooled: dict[str, dict[str, dict[str, float | None]]] = {}
    for name in dict.fromkeys(row["class"] for row in rows):
        pooled[name] = {}
        for method in METHODS:
            chosen = [row for row in rows if row["class"] == name and row["method"] == method]
            if chosen:
                counts = (sum(r[k] for r in chosen) for k in _COUNTS)
                pooled[name][method] = _shares(*counts)
    return pooled


def objects_of(mask: Mask, maps: LabelMaps) -> npt.NDArray[np.integer]:
    """Return the number of the object at each pixel of a class, 0 is none."""
    if maps.instances is not None:
        return np.where(mask, maps.instances, 0)
    numbers: npt.NDArray[np.int32] = ndimage.label(mask, _EVERY_NEIGHBOUR)[0]
    return numbers


def covered_masks(
    maps: LabelMaps, value: int, known: Mask | None = None
) -> dict[int, npt.NDArray[np.uint8]]:
    """Return the whole masks, uint8 (H, W), of a class's objects that others cover, by number."""
    found = {}
    for one in maps.covered:
        if one.value == value:
            mask = decode_rle(one.rle, maps.label.shape[:2])
            mask = mask if known is None else mask & known
            if mask.any():
                found[one.number] = mask.astype(np.uint8)
    return found


_COUNTS = ("matched", "objects", "reference_objects")


def _shares(matched: int, objects: int, reference_objects: int) -> dict[str, float | None]:
    if not objects and not reference_objects:
        return dict.fromkeys(METRICS[3:])
    precision = matched / objects if objects else None
    recall = matched / reference_objects if reference_objects else None
    return {
        "instance_precision": precision,
        "instance_recall": recall,
        "instance_f1": 2 * matched / (objects + reference_objects),
    }


def _counts(numbers: npt.NDArray[np.integer]) -> tuple[list[Any], list[Any]]:
    values, counts = np.unique(numbers, return_counts=True)
    return values.tolist(), counts.tolist()


def _outline(mask: Mask) -> Mask:
    # The raster's own border is not an outline, since the pixels behind it are unknown.
    outline: Mask = mask & ~ndimage.binary_erosion(mask, border_value=1)
    return outline


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
