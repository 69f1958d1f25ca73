"""Summary of the metrics of all cases, averaged and written: `metrics.json` and `metrics.csv`.

`metrics.json`, written by `write_metrics`, holds

- `cases`: one row per case and class with the fine-tuned model's numbers under plain names
  (`case`, `class`, `label`, `dice`, `iou`, `surface_dice`, `hd95_mm`, `volume_ml`, ...) and the
  two baselines' beside them under the same names with an ending (`dice_zero_shot`, `dice_box`);
- `summary`: for each metric the means `finetuned`, `zero_shot` and `box`, over all rows that
  define it, each case and class counting once;
- `per_class`: the same, for each class name;
- `calibration`: calibration of the probabilities, if measured;
- `members`, `members_mean`: of an ensemble, whose own numbers are those of `finetuned`;
- `counts`: for each metric and method, the number of averaged rows (`n`), and of
  rows where it is undefined (`missing`);
- `statistics`: intervals over patients, paired tests, agreement of volumes, statuses and the worst
  cases; see `metrics.statistics`;
- `patients`: number of each case's patient, of no meaning elsewhere;
- `sha256`: digest of the other entries, by which commands that read the file back find damage.

`metrics.csv` holds the rows of `cases`.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samonai.core.csv_cells import csv_row
from samonai.core.files import write_atomically
from samonai.core.sealed import sealed
from samonai.metrics.statistics import evaluation_statistics
from samonai.metrics.volumes import METHODS, METRICS, Row

_KEYS = ("case", "class", "label")
_PER_METHOD = (
    *METRICS[:4],
    "volume_ml",
    "volume_difference_ml",
    "voxels",
    "status",
)
_PER_REFERENCE = ("reference_volume_ml", "reference_voxels")


def join_methods(rows: Iterable[Row]) -> list[Row]:
    """Put the rows of all methods for one case and class into one row, as in `cases`.

    Args:
        rows: Rows of `case_rows`, for any number of cases and methods.

    Returns:
        One row per case and class, in the order of first appearance. The fine-tuned model's
        columns keep their names, the others' end in `_zero_shot` and `_box`. A method without
        rows adds no columns, except that the fine-tuned ones are always there.
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
        rows: Rows of `case_rows`, for any number of cases and methods.
        metrics: The averaged columns.

    Returns:
        `summary`, `per_class` and `counts` as the module's docstring describes them. A mean
        over no row, or of a method without rows, is None.
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
        rows: Rows of `case_rows` for each of them, with the member's name under `member`.
        metrics: The averaged columns.

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
    patients: Mapping[str, str] | None = None,
    others: Iterable[Row] = (),
) -> dict[str, Any]:
    """Return the content of `metrics.json`, as plain JSON values.

    Args:
        rows: Rows of `case_rows`, for any number of cases and methods.
        extra: Further top-level entries, such as the kind of prompts. They cannot replace
            `cases`, `summary`, `per_class` or `counts`.
        metrics: The averaged columns.
        patients: Case to patient, for the statistics; None: each case is a patient.
        others: Rows of further methods that are compared in the statistics only.
    """
    rows = list(rows)
    document = {
        **(extra or {}),
        "cases": join_methods(rows),
        **summarise(rows, metrics),
        "statistics": evaluation_statistics([*rows, *others], metrics, patients),
        "patients": numbered_patients(rows, patients),
    }
    return {str(key): _json_value(value) for key, value in document.items()}


def write_metrics(
    out_dir: Path | str,
    rows: Iterable[Row],
    extra: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = METRICS,
    patients: Mapping[str, str] | None = None,
    others: Iterable[Row] = (),
) -> dict[str, Any]:
    """Write `metrics.json` and `metrics.csv` into a folder.

    Args:
        out_dir: The folder, made when missing.
        rows: Rows of `case_rows`, for any number of cases and methods.
        extra: Further top-level entries of the JSON file.
        metrics: The averaged columns.
        patients: See `metrics_document`, like the others.
        others: As there.

    Returns:
        Content of `metrics.json`.
    """
    out_dir = Path(out_dir)
    document = sealed(metrics_document(rows, extra, metrics, patients, others))
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
        writer.writerows(map(csv_row, document["cases"]))
    return document


def numbered_patients(
    rows: Iterable[Row], patients: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Return the number of each case's patient, in the order of the cases."""
    known = patients or {}
    cases = list(dict.fromkeys(str(row["case"]) for row in rows))
    numbers = {
        name: number
        for number, name in enumerate(dict.fromkeys(known.get(case, case) for case in cases), 1)
    }
    return {case: numbers[known.get(case, case)] for case in cases}


def _columns(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns of each method, and those of the reference."""
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
    """Return `value` in JSON's types; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _json_value(value.tolist())
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
