"""Statistics of an evaluation: intervals over patients, paired tests, agreement of volumes.

The unit of resampling and of tests is the patient (a case without a group is its own): cases of one
patient are not independent. Undefined numbers (a structure that is neither in the reference nor
predicted) are left out, and counted.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Row = Mapping[str, Any]
Values = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2000
STATUSES = ("ok", "missing_in_prediction", "missing_in_reference", "absent")
_LEAST_PATIENTS = 3
_LIMITS = 1.96


def describe(values: Sequence[float], patients: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Return n, mean, SD, median and the bootstrap confidence interval of the mean over patients.

    Args:
        values: One number per case and class.
        patients: The patient of each.
        seed: Seed of the bootstrap.

    Returns:
        `n` and `patients`, `mean`, `sd` (of the sample), `median`, `ci95` (low, high; BCa). A
        number that too few values define is None.
    """
    array = np.asarray(values, float)
    found: dict[str, Any] = {"n": len(array), "patients": len(set(patients))}
    if not len(array):
        return {**found, **dict.fromkeys(("mean", "sd", "median", "ci95"))}
    return {
        **found,
        "mean": float(array.mean()),
        "sd": float(array.std(ddof=1)) if len(array) > 1 else None,
        "median": float(np.median(array)),
        "ci95": _interval(*_by_patient(array, patients), seed),
    }


def paired(
    values: Sequence[float], others: Sequence[float], patients: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Compare two methods on the same cases: mean difference, Wilcoxon signed-rank test, effect.

    Args:
        values: One number per case and class.
        others: The other method's numbers on the same.
        patients: The patient of each; differences are averaged per patient before the test.
        seed: Seed of the bootstrap.

    Returns:
        `n` and `patients`; `difference` (mean of values minus others) with `ci95`; `wilcoxon_p`
        (two-sided) and `rank_biserial` (matched pairs, -1..1; above 0: values are larger). The
        last two are None where all differences are 0 or there are none.
    """
    differences = np.asarray(values, float) - np.asarray(others, float)
    found = describe(differences.tolist(), patients, seed)
    sums, counts = _by_patient(differences, patients)
    each = sums / counts if len(sums) else sums
    test: dict[str, float | None] = {"wilcoxon_p": None, "rank_biserial": None}
    moved = each[np.abs(each) > 0]
    if len(moved):
        with warnings.catch_warnings():
            # Of few or tied differences, for which the normal approximation is used.
            warnings.simplefilter("ignore")
            test["wilcoxon_p"] = float(stats.wilcoxon(moved).pvalue)
        ranks = stats.rankdata(np.abs(moved))
        test["rank_biserial"] = float((ranks * np.sign(moved)).sum() / ranks.sum())
    return {
        "n": found["n"],
        "patients": found["patients"],
        "difference": found["mean"],
        "ci95": found["ci95"],
        **test,
    }


def bland_altman(volumes: Sequence[float], references: Sequence[float]) -> dict[str, Any]:
    """Return bias and 95 % limits of agreement of volumes (Bland and Altman), in their unit.

    Args:
        volumes: Predicted volumes.
        references: Reference volumes of the same structures.
    """
    differences = np.asarray(volumes, float) - np.asarray(references, float)
    count = len(differences)
    bias = float(differences.mean()) if count else None
    sd = float(differences.std(ddof=1)) if count > 1 else None
    limits = None if bias is None or sd is None else [bias - _LIMITS * sd, bias + _LIMITS * sd]
    return {"n": count, "bias": bias, "sd": sd, "limits": limits}


def evaluation_statistics(
    rows: Iterable[Row],
    metrics: Sequence[str],
    patients: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the statistics of an evaluation's rows, over all classes and per class.

    Args:
        rows: Rows of `case_rows`, of any number of methods; the first method is compared with each
            of the others.
        metrics: The described columns.
        patients: Case to patient; None: each case is a patient.
        seed: Seed of the bootstrap.

    Returns:
        `cases`, `patients`; `all` and `per_class` (by name), each with `described` (metric, then
        method), `paired` (method, then metric), `volumes` (Bland-Altman in ml, where measured) and
        `statuses` (see `metrics.volumes`); `worst`: cases by their mean of the first metric, lowest
        first, five at most.
    """
    rows = list(rows)
    known = patients or {}
    names = list(dict.fromkeys(str(row["class"]) for row in rows))
    cases = list(dict.fromkeys(str(row["case"]) for row in rows))
    return {
        "cases": len(cases),
        "patients": len({known.get(case, case) for case in cases}),
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "all": _group(rows, metrics, known, seed),
        "per_class": {
            name: _group([row for row in rows if row["class"] == name], metrics, known, seed)
            for name in names
        },
        "worst": worst_cases(rows, metrics[0]),
    }


def worst_cases(rows: Sequence[Row], metric: str, count: int = 5) -> list[dict[str, Any]]:
    """Return the cases with the lowest mean of a metric by the first method, lowest first."""
    first = rows[0]["method"] if rows else ""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == first and row[metric] is not None:
            values.setdefault(str(row["case"]), []).append(row[metric])
    means = sorted((math.fsum(found) / len(found), case) for case, found in values.items())
    return [{"case": case, metric: mean} for mean, case in means[:count]]


def _group(
    rows: Sequence[Row], metrics: Sequence[str], patients: Mapping[str, str], seed: int
) -> dict[str, Any]:
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    tables = {m: {_key(row): row for row in rows if row["method"] == m} for m in methods}
    first = methods[0] if methods else ""

    def of(row: Row) -> str:
        return patients.get(str(row["case"]), str(row["case"]))

    described = {
        metric: {
            method: describe(
                [row[metric] for row in table.values() if row[metric] is not None],
                [of(row) for row in table.values() if row[metric] is not None],
                seed,
            )
            for method, table in tables.items()
        }
        for metric in metrics
    }
    compared: dict[str, dict[str, Any]] = {}
    for method in methods[1:]:
        compared[method] = {}
        for metric in metrics:
            both = [
                (row[metric], tables[method][key][metric], of(row))
                for key, row in tables[first].items()
                if row[metric] is not None and tables[method].get(key, {}).get(metric) is not None
            ]
            mine, theirs, whose = zip(*both, strict=True) if both else ((), (), ())
            compared[method][metric] = paired(mine, theirs, whose, seed)
    found: dict[str, Any] = {"described": described, "paired": compared}
    own = list(tables.get(first, {}).values())
    measured = [
        row for row in own if None not in (row.get("volume_ml"), row.get("reference_volume_ml"))
    ]
    if measured:
        found["volumes"] = bland_altman(
            [row["volume_ml"] for row in measured],
            [row["reference_volume_ml"] for row in measured],
        )
    if any("status" in row for row in own):
        counts = Counter(row.get("status") for row in own)
        found["statuses"] = {name: counts[name] for name in STATUSES}
    return found


def _key(row: Row) -> tuple[str, str]:
    return str(row["case"]), str(row["class"])


def _by_patient(values: Values, patients: Sequence[str]) -> tuple[Values, Values]:
    """Return the sum and the number of each patient's values."""
    names = {name: number for number, name in enumerate(dict.fromkeys(patients))}
    place = np.array([names[name] for name in patients], int)
    sums = np.bincount(place, values, len(names)).astype(np.float64)
    return sums, np.bincount(place, minlength=len(names)).astype(np.float64)


def _interval(sums: Values, counts: Values, seed: int) -> list[float] | None:
    """Return the confidence interval of the mean over resampled patients."""
    means = sums / counts
    if len(sums) < _LEAST_PATIENTS:
        return None
    if np.ptp(means) == 0:
        return [float(means[0])] * 2

    def mean(total: Values, number: Values, axis: int = -1) -> Values:
        found: Values = total.sum(axis=axis) / number.sum(axis=axis)
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples that are all alike
        interval = stats.bootstrap(
            (sums, counts),
            mean,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="BCa",
            random_state=np.random.default_rng(seed),
        ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    return [low, high] if math.isfinite(low) and math.isfinite(high) else None
