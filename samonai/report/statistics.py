"""Statistics of an evaluation as tables, diagrams and words: intervals, tests, counts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from samonai.metrics.statistics import STATUSES
from samonai.report.palette import FRACTIONS, METHOD_COLOURS, METHOD_LABELS, METRIC_LABELS
from samonai.report.plots import cleaned, save_figure
from samonai.report.tables import SHOWN, UNDEFINED

Cells = tuple[list[str], list[list[str]]]

_SMALL_P = 0.001
_STATUS_WORDS = {
    "ok": "in both",
    "missing_in_prediction": "missing in the prediction",
    "missing_in_reference": "not in the reference, predicted",
    "absent": "in neither",
}
_REGIMES = {
    "slices": "a box around each object of each slice, drawn from the reference masks",
    "volume": "one 3D box around each structure, drawn from the reference masks",
    "middle": "one box for each structure on its middle slice, drawn from the reference mask and "
    "propagated to the other slices",
    "middle_click": "one click for each structure on its middle slice, placed in the reference "
    "mask and propagated to the other slices",
    "keyframes": "boxes on the first, the middle and the last slice of each structure, drawn from "
    "the reference masks and interpolated",
    "clicks": "simulated clicks into each object of each slice, placed by the reference masks",
    "none": "no prompts: the semantic head",
}


def prompt_words(prompts: Mapping[str, Any] | None) -> str:
    """Return in words where the prompts of an evaluation came from."""
    given = dict(prompts or {})
    words = _REGIMES.get(str(given.get("regime")), f"regime {given.get('regime')}")
    jitter = float(given.get("box_jitter") or 0)
    if "box" in words and given.get("regime") != "none":
        words += (
            f", each side moved at random by up to {100 * jitter:g} % of the box"
            if jitter
            else ", exact"
        )
    return words


def measure_words(metrics: Mapping[str, Any]) -> list[str]:
    """Return lines with tolerances and units of the metrics."""
    lines = []
    if "surface_tolerance_mm" in metrics:
        lines.append(
            f"surface Dice at a tolerance of {metrics['surface_tolerance_mm']:g} mm; HD95: the "
            f"larger of both directions' 95th percentile of surface distances, in mm; volumes in ml"
        )
    if "boundary_tolerance" in metrics:
        lines.append(f"boundary F1 at a tolerance of {metrics['boundary_tolerance']:g}")
    found = metrics.get("statistics")
    if found:
        lines.append(
            f"{found['cases']} cases of {found['patients']} patients; intervals: "
            f"{100 * found['confidence']:g} % by bootstrap over patients (BCa, "
            f"{found['resamples']} resamples); p: two-sided Wilcoxon signed-rank test over "
            f"patients; effect: matched-pairs rank-biserial correlation, above 0 where the first "
            f"is larger"
        )
    return lines


def interval_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Return a line per class: mean of the first metric, its interval, n and patients."""
    lines = []
    for name, group in _groups(metrics):
        metric, methods = next(iter(group["described"].items()))
        method, found = next(iter(methods.items()), ("", None))
        if found is not None and found["ci95"] is not None:
            lines.append(
                f"{name}: {METRIC_LABELS.get(metric, metric)} {_number(found['mean'], metric)} "
                f"(95 % CI {_interval(found['ci95'], metric)}; n = {found['n']}, "
                f"{found['patients']} patients), {method_label(method)}"
            )
    return lines


def statistics_cells(metrics: Mapping[str, Any]) -> Cells:
    """Return a table of n, mean, SD, median and interval, by class, metric and method."""
    header = ["class", "metric", "method", "n", "mean", "SD", "median", "95 % CI"]
    rows = [
        [
            *(name, METRIC_LABELS.get(metric, metric), method_label(method)),
            str(found["n"]),
            *(_number(found[key], metric) for key in ("mean", "sd", "median")),
            _interval(found["ci95"], metric),
        ]
        for name, group in _groups(metrics)
        for metric, methods in group["described"].items()
        if metric in (*SHOWN, "volume_difference_ml")
        for method, found in methods.items()
        if found["n"]
    ]
    return header, rows


def paired_cells(metrics: Mapping[str, Any]) -> Cells:
    """Return a table of paired comparisons: difference, interval, p and effect size."""
    header = ["class", "metric", "against", "n", "difference", "95 % CI", "p", "effect"]
    rows = [
        [
            *(name, METRIC_LABELS.get(metric, metric), method_label(method)),
            str(found["n"]),
            _number(found["difference"], metric, signed=True),
            _interval(found["ci95"], metric, signed=True),
            p_value(found["wilcoxon_p"]),
            UNDEFINED if found["rank_biserial"] is None else f"{found['rank_biserial']:+.2f}",
        ]
        for name, group in _groups(metrics)
        for method, by_metric in group["paired"].items()
        for metric, found in by_metric.items()
        if metric in SHOWN and found["n"]
    ]
    return header, rows


def status_cells(metrics: Mapping[str, Any]) -> Cells:
    """Return a table of how many structures were found, missing, or in neither."""
    header = ["class", *(_STATUS_WORDS[name] for name in STATUSES)]
    rows = [
        [name, *(str(group["statuses"][status]) for status in STATUSES)]
        for name, group in _groups(metrics)
        if "statuses" in group
    ]
    return header, rows


def volume_cells(metrics: Mapping[str, Any]) -> Cells:
    """Return a table of the agreement of volumes: bias and limits of agreement."""
    header = ["class", "n", "bias (ml)", "95 % limits of agreement (ml)"]
    rows = []
    for name, group in _groups(metrics):
        found = group.get("volumes")
        if found and found["n"]:
            limits = found["limits"]
            shown = UNDEFINED if limits is None else f"{limits[0]:+.3g} to {limits[1]:+.3g}"
            rows.append([name, str(found["n"]), f"{found['bias']:+.3g}", shown])
    return header, rows


def metric_boxes(metrics: Mapping[str, Any], path: Path | str, metric: str = "dice") -> Path | None:
    """Draw box plots of a metric per structure: quartiles, whiskers of 1.5 IQR, single cases.

    Args:
        metrics: Content of `metrics.json`.
        path: The PNG file to write.
        metric: The column.

    Returns:
        The file, or None where no case has the metric.
    """
    endings = {"box": "_box", "zero_shot": "_zero_shot", "finetuned": ""}
    columns = {m: metric + end for m, end in endings.items() if metrics["cases"]}
    columns = {m: c for m, c in columns.items() if c in metrics["cases"][0]}
    names = list(metrics["per_class"])
    values = {
        method: [
            [r[column] for r in metrics["cases"] if r["class"] == name and r[column] is not None]
            for name in names
        ]
        for method, column in columns.items()
    }
    if not any(found for groups in values.values() for found in groups):
        return None
    figure = Figure(figsize=(max(5.0, 1.5 + 1.5 * len(names)), 4), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(values)
    for position, (method, groups) in enumerate(values.items()):
        places = [n - 0.4 + (position + 0.5) * width for n in range(len(names))]
        drawn = axes.boxplot(
            groups,
            positions=places,
            widths=width * 0.8,
            patch_artist=True,
            flierprops={"markersize": 3},
            medianprops={"color": "#222222"},
        )
        for box in drawn["boxes"]:
            box.set(facecolor=METHOD_COLOURS[method], alpha=0.7)
        axes.plot([], [], color=METHOD_COLOURS[method], linewidth=6, label=METHOD_LABELS[method])
    axes.set_xticks(range(len(names)), [name.replace("$", r"\$") for name in names])
    axes.set_ylabel(METRIC_LABELS.get(metric, metric))
    cleaned(axes, "y")
    figure.legend(loc="outside upper center", ncols=len(values), frameon=False)
    return save_figure(figure, Path(path))


def bland_altman_plot(metrics: Mapping[str, Any], path: Path | str) -> Path | None:
    """Draw predicted minus reference volume over their mean, with bias and limits of agreement.

    Args:
        metrics: Content of `metrics.json`.
        path: The PNG file to write.

    Returns:
        The file, or None where no volume was measured.
    """
    rows = [
        row
        for row in metrics["cases"]
        if None not in (row.get("volume_ml"), row.get("reference_volume_ml"))
        and row.get("status") != "absent"
    ]
    found = metrics.get("statistics", {}).get("all", {}).get("volumes")
    if not rows or not found or found["bias"] is None:
        return None
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in dict.fromkeys(row["class"] for row in rows):
        own = [row for row in rows if row["class"] == name]
        axes.plot(
            [(row["volume_ml"] + row["reference_volume_ml"]) / 2 for row in own],
            [row["volume_ml"] - row["reference_volume_ml"] for row in own],
            "o",
            markersize=4,
            label=name.replace("$", r"\$"),
        )
    axes.axhline(found["bias"], color="#444444")
    for limit in found["limits"] or ():
        axes.axhline(limit, color="#444444", linestyle=":")
    axes.set(xlabel="mean of both volumes (ml)", ylabel="prediction - reference (ml)")
    cleaned(axes, "y")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return save_figure(figure, Path(path))


def method_label(method: str) -> str:
    """Return the name of a method in tables."""
    return METHOD_LABELS.get(method, method)


def p_value(value: float | None) -> str:
    """Return a p value as text."""
    if value is None:
        return UNDEFINED
    return f"< {_SMALL_P}" if value < _SMALL_P else f"{value:.3f}"


def _groups(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    found = metrics.get("statistics")
    if not found:
        return
    yield from found["per_class"].items()
    if len(found["per_class"]) != 1:
        yield "all", found["all"]


def _number(value: float | None, metric: str, signed: bool = False) -> str:
    if value is None:
        return UNDEFINED
    digits = 3 if metric in FRACTIONS else 2
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def _interval(interval: Sequence[float] | None, metric: str, signed: bool = False) -> str:
    if interval is None:
        return UNDEFINED
    low, high = (_number(value, metric, signed) for value in interval)
    return f"{low} to {high}"
