"""How good a mask is: per case and class, on the source's own grid, in millimetres.

Every number comes from MONAI's metrics over the whole source at once, so a false positive on a
slice without the organ counts like any other. A number that is not defined is None (`null` in
JSON, an empty field in CSV), never 0, 1, NaN or infinity:

| status                 | reference | prediction | dice, iou, surface_dice | hd95_mm |
|------------------------|-----------|------------|-------------------------|---------|
| `ok`                   | present   | present    | measured                | measured|
| `missing_in_prediction`| present   | empty      | 0                       | None    |
| `missing_in_reference` | empty     | present    | 0 (all false positive)  | None    |
| `absent`               | empty     | empty      | None                    | None    |

`metrics.json`, as `write_metrics` writes it, holds

- `cases`: one row per case and class with the fine-tuned model's numbers under plain names
  (`case`, `class`, `label`, `dice`, `iou`, `surface_dice`, `hd95_mm`, `volume_ml`, ...) and the
  two baselines' beside them under the same names with an ending (`dice_zero_shot`, `dice_box`);
- `summary`: for each metric the means `finetuned`, `zero_shot` and `box`, over all rows that
  define it, each case and class counting once;
- `per_class`: the same, for each class name;
- `calibration`: how far probabilities are from frequencies, where that was measured;
- `members`, `members_mean`: of an ensemble, whose own numbers are those called `finetuned`;
- `counts`: for each metric and method, over how many rows the mean was taken (`n`), and in how
  many it was not defined (`missing`).

`metrics.csv` holds the rows of `cases`.
"""

import csv
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from monai.metrics.surface_dice import compute_surface_dice

from samonai.files import write_atomically

Row = dict[str, Any]

METHODS = ("finetuned", "zero_shot", "box")
"""The model after fine-tuning, the same prompts before it, and the filled prompt itself."""

METRICS = ("dice", "iou", "surface_dice", "hd95_mm", "volume_difference_ml")
"""What is averaged."""

_KEYS = ("case", "class", "label")
_PER_METHOD = (
    *METRICS[:4],
    "volume_ml",
    "volume_difference_ml",
    "voxels",
    "status",
)
_PER_REFERENCE = ("reference_volume_ml", "reference_voxels")
_MM3_PER_ML = 1000.0


def case_rows(
    prediction: npt.NDArray[np.integer],
    label: npt.NDArray[np.integer],
    *,
    spacing: Sequence[float],
    classes: Mapping[int, str],
    case_id: str,
    method: str = "finetuned",
    surface_tolerance_mm: float = 1.0,
) -> list[Row]:
    """Measure one predicted label map against the reference, class by class.

    Args:
        prediction: Integer label map, (H, W) or (I, J, K), on the source's grid.
        label: The reference on the same grid.
        spacing: Size of a cell in mm along each array axis, in the arrays' axis order.
        classes: Label value to class name; each gives one row. Background is no class.
        case_id: What the rows carry as `case`.
        method: One of `METHODS`: what made the prediction.
        surface_tolerance_mm: How far two surfaces may lie apart, in mm, and still agree.

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
    spacing: Sequence[float],
    surface_tolerance_mm: float = 1.0,
) -> dict[str, float | None]:
    """Measure one mask against another.

    Args:
        predicted: bool (H, W) or (I, J, K).
        reference: bool, the same shape.
        spacing: Size of a cell in mm along each array axis.
        surface_tolerance_mm: How far two surfaces may lie apart and still agree.

    Returns:
        `dice`, `iou`, `surface_dice` and `hd95_mm`; None where a number is not defined.
    """
    names = METRICS[:4]
    if not predicted.any() and not reference.any():
        return dict.fromkeys(names)
    if not predicted.any() or not reference.any():
        return {**dict.fromkeys(names, 0.0), "hd95_mm": None}
    window = _joint_window(predicted, reference)
    y_pred, y = (
        torch.from_numpy(np.ascontiguousarray(mask[window]))[None, None]
        for mask in (predicted, reference)
    )
    # MONAI takes spacing as Python numbers only; NumPy's float32 would be refused.
    spacing = [float(step) for step in spacing]
    with warnings.catch_warnings():
        # MONAI passes an argument to itself that it has deprecated.
        warnings.filterwarnings("ignore", ".*get_mask_edges", FutureWarning)
        values = (
            compute_dice(y_pred.float(), y.float(), ignore_empty=False),
            compute_iou(y_pred.float(), y.float(), ignore_empty=False),
            compute_surface_dice(
                y_pred, y, [float(surface_tolerance_mm)], include_background=True, spacing=spacing
            ),
            compute_hausdorff_distance(
                y_pred, y, include_background=True, percentile=95, spacing=spacing
            ),
        )
    return {name: float(value.item()) for name, value in zip(names, values, strict=True)}


def join_methods(rows: Iterable[Row]) -> list[Row]:
    """Put the rows of all methods for one case and class into one row, as in `cases`.

    Args:
        rows: What `case_rows` returned, for any number of cases and methods.

    Returns:
        One row per case and class, in the order of first appearance. The fine-tuned model's
        columns keep their names, the others' end in `_zero_shot` and `_box`. A method that was
        not measured at all adds no columns, except that the fine-tuned ones are always there.
    """
    rows = list(rows)
    measured = [m for m in METHODS if m == METHODS[0] or any(r["method"] == m for r in rows)]
    per_method, per_reference = _columns(rows)
    joined: dict[tuple[str, int], Row] = {}
    for row in rows:
        key = (row["case"], row["label"])
        if key not in joined:
            joined[key] = {
                **{name: row[name] for name in (*_KEYS, *per_reference)},
                **{_column(name, m): None for m in measured for name in per_method},
            }
        joined[key] |= {_column(name, row["method"]): row[name] for name in per_method}
    first = (*_KEYS, *per_method, *per_reference)
    return [{name: row[name] for name in dict.fromkeys((*first, *row))} for row in joined.values()]


def summarise(rows: Iterable[Row], metrics: Sequence[str] = METRICS) -> dict[str, Any]:
    """Average the rows over cases and classes, per method.

    Args:
        rows: What `case_rows` returned, for any number of cases and methods.
        metrics: The columns that are averaged.

    Returns:
        `summary`, `per_class` and `counts` as the module's docstring describes them. A mean
        over no row, or of a method that was not measured, is None.
    """
    rows = list(rows)
    names = list(dict.fromkeys(row["class"] for row in rows))
    return {
        "summary": _means(rows, metrics),
        "per_class": {
            name: _means([r for r in rows if r["class"] == name], metrics) for name in names
        },
        "counts": {
            metric: {method: _counts(rows, metric, method) for method in METHODS}
            for metric in metrics
        },
    }


def summarise_members(rows: Iterable[Row], metrics: Sequence[str] = METRICS) -> dict[str, Any]:
    """Average the rows of an ensemble's members, each by itself.

    Args:
        rows: What `case_rows` returned for each of them, with the member's name under `member`.
        metrics: The columns that are averaged.

    Returns:
        `members`: by name, `summary` and `per_class` with the mean of each metric;
        `members_mean`: of each metric the mean over the members.
    """
    by_member: dict[str, list[Row]] = {}
    for row in rows:
        by_member.setdefault(row["member"], []).append(row)
    members: dict[str, dict[str, Any]] = {
        name: {
            "summary": _own_means(own, metrics),
            "per_class": {
                label: _own_means([row for row in own if row["class"] == label], metrics)
                for label in dict.fromkeys(row["class"] for row in own)
            },
        }
        for name, own in by_member.items()
    }
    mean: dict[str, float | None] = {}
    for metric in metrics:
        known = [member["summary"][metric] for member in members.values()]
        known = [value for value in known if value is not None]
        mean[metric] = math.fsum(known) / len(known) if known else None
    return {"members": members, "members_mean": mean}


def metrics_document(
    rows: Iterable[Row],
    extra: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = METRICS,
) -> dict[str, Any]:
    """Return what `metrics.json` holds, as plain JSON values.

    Args:
        rows: What `case_rows` returned, for any number of cases and methods.
        extra: More top-level entries, such as the prompts that were used. They cannot replace
            `cases`, `summary`, `per_class` or `counts`.
        metrics: The columns that are averaged.
    """
    rows = list(rows)
    document = {**(extra or {}), "cases": join_methods(rows), **summarise(rows, metrics)}
    return {str(key): _json_value(value) for key, value in document.items()}


def write_metrics(
    out_dir: Path | str,
    rows: Iterable[Row],
    extra: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = METRICS,
) -> dict[str, Any]:
    """Write `metrics.json` and `metrics.csv` into a folder.

    Args:
        out_dir: The folder, made when missing.
        rows: What `case_rows` returned, for any number of cases and methods.
        extra: More top-level entries of the JSON file.
        metrics: The columns that are averaged.

    Returns:
        What `metrics.json` holds.
    """
    out_dir = Path(out_dir)
    document = metrics_document(rows, extra, metrics)
    with write_atomically(out_dir / "metrics.json") as path:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
    columns = list(document["cases"][0]) if document["cases"] else [*_KEYS, *_PER_METHOD]
    with (
        write_atomically(out_dir / "metrics.csv") as path,
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(document["cases"])
    return document


def _check(
    prediction: npt.NDArray[np.integer],
    label: npt.NDArray[np.integer],
    spacing: Sequence[float],
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
    if len(spacing) != label.ndim or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise ValueError(
            f"case {case_id}: expected {label.ndim} positive spacings in mm, got {tuple(spacing)}."
        )
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; expected one of {', '.join(METHODS)}.")


def status(predicted: bool, reference: bool) -> str:
    """Return what the table in the module's docstring calls a case."""
    if reference:
        return "ok" if predicted else "missing_in_prediction"
    return "missing_in_reference" if predicted else "absent"


def _volume_ml(voxels: int, spacing: Sequence[float]) -> float | None:
    if len(spacing) != 3:
        return None
    return voxels * math.prod(float(step) for step in spacing) / _MM3_PER_ML


def _joint_window(
    predicted: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]
) -> tuple[slice, ...]:
    # Outside both masks nothing contributes to any metric, and MONAI counts the grid's border
    # as background when it looks for surfaces, so the tight window changes no number.
    either = predicted | reference
    window = []
    for axis in range(either.ndim):
        others = tuple(a for a in range(either.ndim) if a != axis)
        filled = np.flatnonzero(either.any(axis=others))
        window.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(window)


def _columns(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what each method has a column of, and what the reference has one of."""
    if not rows:
        return _PER_METHOD, _PER_REFERENCE
    names = [name for name in rows[0] if name not in (*_KEYS, "method")]
    references = tuple(name for name in names if name.startswith("reference_"))
    return tuple(name for name in names if name not in references), references


def _column(name: str, method: str) -> str:
    return name if method == METHODS[0] else f"{name}_{method}"


def _defined(rows: Sequence[Row], metric: str, method: str) -> list[float]:
    return [r[metric] for r in rows if r["method"] == method and r[metric] is not None]


def _means(rows: Sequence[Row], metrics: Sequence[str]) -> dict[str, dict[str, float | None]]:
    means: dict[str, dict[str, float | None]] = {}
    for metric in metrics:
        means[metric] = {}
        for method in METHODS:
            values = _defined(rows, metric, method)
            means[metric][method] = math.fsum(values) / len(values) if values else None
    return means


def _own_means(rows: Sequence[Row], metrics: Sequence[str]) -> dict[str, float | None]:
    return {metric: means[METHODS[0]] for metric, means in _means(rows, metrics).items()}


def _counts(rows: Sequence[Row], metric: str, method: str) -> dict[str, int]:
    n = len(_defined(rows, metric, method))
    return {"n": n, "missing": sum(r["method"] == method for r in rows) - n}


def _json_value(value: Any) -> Any:
    """Return `value` in JSON's types; numbers that JSON has not (NaN, infinity) become None."""
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _json_value(value.tolist())
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
