"""Volume metrics: Dice, surface Dice, HD95 and volume per case and class, in millimetres.

Every number comes from MONAI's metrics over the whole source at once, so a false positive on a
slice without the organ counts like any other. A number that is not defined is None (`null` in
JSON, an empty field in CSV), never 0, 1, NaN or infinity:

| status                 | reference | prediction | dice, iou, surface_dice | hd95_mm |
|------------------------|-----------|------------|-------------------------|---------|
| `ok`                   | present   | present    | measured                | measured|
| `missing_in_prediction`| present   | empty      | 0                       | None    |
| `missing_in_reference` | empty     | present    | 0 (all false positive)  | None    |
| `absent`               | empty     | empty      | None                    | None    |
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from monai.metrics.surface_dice import compute_surface_dice

Row = dict[str, Any]

METHODS = ("finetuned", "zero_shot", "box")
"""The model after fine-tuning, the same prompts before it, and the filled prompt itself."""

METRICS = ("dice", "iou", "surface_dice", "hd95_mm", "volume_difference_ml")
"""Names of the averaged metrics."""

_MM3_PER_ML = 1000.0


def case_rows(
    prediction: npt.NDArray[np.integer],
    label: npt.NDArray[np.integer],
    *,
    spacing: Sequence[float] | None,
    classes: Mapping[int, str],
    case_id: str,
    method: str = "finetuned",
    surface_tolerance_mm: float = 1.0,
    known: npt.NDArray[np.bool_] | None = None,
) -> list[Row]:
    """Measure one predicted label map against the reference, class by class.

    Args:
        prediction: Integer label map, (H, W) or (I, J, K), on the source's grid.
        label: The reference on the same grid.
        spacing: Size of a cell in mm along each array axis, in the arrays' axis order; None if
            unknown; metrics in mm or ml are then undefined.
        classes: Label value to class name; each gives one row. Background is not a class.
        case_id: Value of `case` in the rows.
        method: One of `METHODS`, the origin of the prediction.
        surface_tolerance_mm: Largest distance of matching surfaces, in mm.
        known: bool, the same shape, False on unlabelled voxels, which are
            ignored on both sides. None: all labelled.

    Returns:
        One row per class with the keys `case`, `class`, `label`, `method`, `dice`, `iou`,
        `surface_dice`, `hd95_mm` (the larger of both directions' 95th percentile),
        `volume_ml`, `reference_volume_ml`, `volume_difference_ml` (prediction minus reference;
        None for a 2D source), `voxels`, `reference_voxels` and `status`.
    """
    prediction, label = np.asarray(prediction), np.asarray(label)
    _check(prediction, label, spacing, method, case_id)
    rows: list[Row] = []
    for value, name in classes.items():
        predicted, reference = prediction == value, label == value
        if known is not None:
            predicted, reference = predicted & known, reference & known
        voxels, reference_voxels = int(predicted.sum()), int(reference.sum())
        volume, reference_volume = (
            _volume_ml(count, spacing) for count in (voxels, reference_voxels)
        )
        row: Row = {
            "case": case_id,
            "class": name,
            "label": int(value),
            "method": method,
            **mask_metrics(predicted, reference, spacing, surface_tolerance_mm),
            "volume_ml": volume,
            "reference_volume_ml": reference_volume,
            "volume_difference_ml": None
            if volume is None or reference_volume is None
            else volume - reference_volume,
            "voxels": voxels,
            "reference_voxels": reference_voxels,
            "status": status(voxels > 0, reference_voxels > 0),
        }
        rows.append(row)
    return rows


def mask_metrics(
    predicted: npt.NDArray[np.bool_],
    reference: npt.NDArray[np.bool_],
    spacing: Sequence[float] | None,
    surface_tolerance_mm: float = 1.0,
) -> dict[str, float | None]:
    """Measure one mask against another.

    Args:
        predicted: bool (H, W) or (I, J, K).
        reference: bool, the same shape.
        spacing: Size of a cell in mm along each array axis; None: metrics in mm are undefined.
        surface_tolerance_mm: Largest distance of matching surfaces.

    Returns:
        `dice`, `iou`, `surface_dice` and `hd95_mm`; None if a number is undefined.
    """
    names = METRICS[:4]
    if not predicted.any() and not reference.any():
        return dict.fromkeys(names)
    in_mm = dict.fromkeys(("surface_dice", "hd95_mm")) if spacing is None else {}
    if not predicted.any() or not reference.any():
        return {**dict.fromkeys(names, 0.0), "hd95_mm": None, **in_mm}
    window = _joint_window(predicted, reference)
    y_pred, y = (
        torch.from_numpy(np.ascontiguousarray(mask[window]))[None, None]
        for mask in (predicted, reference)
    )
    # MONAI takes spacing as Python numbers only; NumPy's float32 would be refused.
    steps = [1.0] * predicted.ndim if spacing is None else [float(step) for step in spacing]
    with warnings.catch_warnings():
        # MONAI passes an argument to itself that it has deprecated.
        warnings.filterwarnings("ignore", ".*get_mask_edges", FutureWarning)
        values = (
            compute_dice(y_pred.float(), y.float(), ignore_empty=False),
            compute_iou(y_pred.float(), y.float(), ignore_empty=False),
            compute_surface_dice(
                y_pred, y, [float(surface_tolerance_mm)], include_background=True, spacing=steps
            ),
            compute_hausdorff_distance(
                y_pred, y, include_background=True, percentile=95, spacing=steps
            ),
        )
    found = {name: float(value.item()) for name, value in zip(names, values, strict=True)}
    return {**found, **in_mm}


def _check(
    prediction: npt.NDArray[np.integer],
    label: npt.NDArray[np.integer],
    spacing: Sequence[float] | None,
    method: str,
    case_id: str,
) -> None:
    if prediction.shape != label.shape:
        raise ValueError(
            f"case {case_id}: the prediction has shape {prediction.shape} and the reference "
            f"{label.shape}; merge the prediction on the reference's grid first."
        )
    if label.ndim not in (2, 3):
        raise ValueError(f"case {case_id}: expected a 2D or 3D label map, got {label.ndim}D.")
    known = [1.0] * label.ndim if spacing is None else spacing
    if len(known) != label.ndim or not all(math.isfinite(s) and s > 0 for s in known):
        raise ValueError(
            f"case {case_id}: expected {label.ndim} positive spacings in mm, got {tuple(known)}."
        )
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; expected one of {', '.join(METHODS)}.")


def status(predicted: bool, reference: bool) -> str:
    """Return the status of a case by the table in the module's docstring."""
    if reference:
        return "ok" if predicted else "missing_in_prediction"
    return "missing_in_reference" if predicted else "absent"


def _volume_ml(voxels: int, spacing: Sequence[float] | None) -> float | None:
    if spacing is None or len(spacing) != 3:
        return None
    return voxels * math.prod(float(step) for step in spacing) / _MM3_PER_ML


def _joint_window(
    predicted: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]
) -> tuple[slice, ...]:
    # Outside both masks no metric changes, and MONAI counts the grid's border
    # as background of surfaces, so the tight window changes no number.
    either = predicted | reference
    window = []
    for axis in range(either.ndim):
        others = tuple(a for a in range(either.ndim) if a != axis)
        filled = np.flatnonzero(either.any(axis=others))
        window.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(window)
