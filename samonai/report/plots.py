"""Diagrams as PNG files, without matplotlib's global state."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.report.palette import (
    FRACTIONS,
    METHOD_COLOURS,
    METHOD_LABELS,
    METRIC_LABELS,
    class_colour,
)

_DPI = 150
_LOSS_COLOUR, _DICE_COLOUR = "#8a8a8a", METHOD_COLOURS["finetuned"]


def learning_curve(
    history: Sequence[Mapping[str, Any]] | Path | str, path: Path | str, title: str = ""
) -> Path:
    """Draw the training loss and the validation Dice over the epochs.

    Args:
        history: Rows with `epoch`, `train_loss` and `val_dice` (None where an epoch was not
            validated), or the `history.json` or `history.csv` file.
        path: The PNG file to write.
        title: Title of the diagram.

    Returns:
        The file that was written.

    Raises:
        InputError: The history's file is missing or damaged.
    """
    rows = _read_history(Path(history)) if isinstance(history, Path | str) else list(history)
    figure = Figure(figsize=(7, 4), layout="constrained")
    loss_axes = figure.add_subplot()
    dice_axes = loss_axes.twinx()
    losses = _points(rows, "train_loss")
    scores = _points(rows, "val_dice")
    marker = "o" if len(rows) <= 40 else ""
    lines = loss_axes.plot(*losses, color=_LOSS_COLOUR, label="training loss")
    lines += dice_axes.plot(
        *scores, color=_DICE_COLOUR, marker=marker, markersize=4, label="validation Dice"
    )
    if scores[1]:
        _mark_best(dice_axes, *scores)
    loss_axes.set(xlabel="epoch", ylabel="training loss", ylim=(0, None), title=title)
    loss_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dice_axes.set_ylabel("validation Dice", color=_DICE_COLOUR)
    cleaned(loss_axes, "x")
    dice_axes.spines[["top", "left"]].set_visible(False)
    figure.legend(handles=lines, loc="outside upper center", ncols=2, frameon=False)
    return save_figure(figure, Path(path))


def dice_bars(metrics: Mapping[str, Any], path: Path | str, metric: str = "dice") -> Path:
    """Draw a metric's mean per class: filled box, before and after fine-tuning.

    Args:
        metrics: Content of `metrics.json`.
        path: The PNG file to write.
        metric: One of the metrics in it.

    Returns:
        The file that was written.
    """
    groups = {**metrics["per_class"]}
    if len(groups) != 1:
        groups["all"] = metrics["summary"]
    methods = [
        method
        for method in reversed(METHOD_LABELS)
        if any(group[metric][method] is not None for group in groups.values())
    ]
    figure = Figure(figsize=(max(5.0, 1.5 + 1.5 * len(groups)), 4), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / max(len(methods), 1)
    for position, method in enumerate(methods):
        places = [n - 0.4 + (position + 0.5) * width for n in range(len(groups))]
        values = [group[metric][method] for group in groups.values()]
        bars = axes.bar(
            places,
            [value or 0 for value in values],
            width * 0.92,
            color=METHOD_COLOURS[method],
            label=METHOD_LABELS[method],
        )
        texts = ["" if value is None else f"{value:.2f}" for value in values]
        axes.bar_label(bars, texts, fontsize=8, padding=2)
    # A dollar sign in a class name is not a formula.
    axes.set_xticks(range(len(groups)), [name.replace("$", r"\$") for name in groups])
    axes.set_ylabel(METRIC_LABELS[metric])
    if metric in FRACTIONS:
        axes.set_ylim(0, 1)
    cleaned(axes, "y")
    if methods:
        figure.legend(loc="outside upper center", ncols=len(methods), frameon=False)
    return save_figure(figure, Path(path))


def reliability_diagram(calibration: Mapping[str, Any], path: Path | str) -> Path:
    """Draw a reliability diagram: frequency over probability per class, with voxel counts.

    Args:
        calibration: The entry `calibration` of `metrics.json`.
        path: The PNG file to write.

    Returns:
        The file that was written.
    """
    figure = Figure(figsize=(5, 6), layout="constrained")
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot([0, 1], [0, 1], color=_LOSS_COLOUR, linestyle=":", label="perfectly calibrated")
    bins = calibration["bins"]
    for position, (name, figures) in enumerate(calibration["per_class"].items()):
        colour = "#{:02x}{:02x}{:02x}".format(*class_colour(position))
        rows = [row for row in figures["reliability"] if row["voxels"]]
        label = f"{name.replace('$', chr(92) + '$')} (ECE {figures['ece']:.3f})"
        points = [[row[key] for row in rows] for key in ("probability", "frequency")]
        curve.plot(*points, color=colour, marker="o", markersize=4, label=label)
        edges = [number / bins for number in range(bins + 1)]
        voxels = [row["voxels"] for row in figures["reliability"]]
        counts.stairs(voxels, edges, color=colour)
    curve.set(ylabel="share that is inside", ylim=(0, 1), xlim=(0, 1))
    counts.set(xlabel="predicted probability", ylabel="voxels", yscale="log")
    for axes in (curve, counts):
        cleaned(axes, "y")
    figure.legend(loc="outside upper center", ncols=1, frameon=False)
    return save_figure(figure, Path(path))


def _read_history(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            rows: list[dict[str, Any]] = json.loads(text)
            return rows
        numbers = list(csv.DictReader(text.splitlines()))
        return [{key: float(n) if n else None for key, n in row.items()} for row in numbers]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); train again with --overwrite"
        ) from error


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    found = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _mark_best(axes: Axes, epochs: Sequence[float], scores: Sequence[float]) -> None:
    best = max(range(len(scores)), key=scores.__getitem__)
    axes.plot(
        epochs[best], scores[best], "o", markersize=9, markerfacecolor="none", color=_DICE_COLOUR
    )
    axes.annotate(
        f"best {scores[best]:.3f}",
        (epochs[best], scores[best]),
        xytext=(0, 9),
        textcoords="offset points",
        ha="right" if best > len(scores) / 2 else "left",
        fontsize=9,
        color=_DICE_COLOUR,
    )
    axes.margins(y=0.18)


def cleaned(axes: Axes, grid: Literal["x", "y"]) -> None:
    """Leave the two axes and a faint grid across one of them."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e4e4e4")
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all; return the file."""
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")
    return path
