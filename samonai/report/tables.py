"""Dice tables: per class, for the filled box, before and after fine-tuning."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from samonai.report.palette import FRACTIONS, METHOD_LABELS, METRIC_LABELS

UNDEFINED = "—"
"""Text of an undefined number."""

SHOWN = ("dice", "surface_dice", "hd95_mm", "boundary_f1", "instance_f1")
"""The metrics of the table in the terminal and on the page."""


def table_cells(
    metrics: Mapping[str, Any], names: tuple[str, ...] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Return a table of the means per class, as text.

    Args:
        metrics: Content of `metrics.json`.
        names: The metrics to show; None: those of `SHOWN` that were measured.

    Returns:
        The header and the rows: class, metric, then filled box, before, after. The last rows
        are over all classes, when there is more than one.
    """
    names = names or tuple(name for name in SHOWN if name in metrics["summary"])
    methods = list(reversed(METHOD_LABELS))
    groups = dict(metrics["per_class"])
    header = ["class", "metric", *(METHOD_LABELS[method] for method in methods)]
    sections = list(groups.items())
    if len(sections) != 1:
        sections.append(("all", metrics["summary"]))
    rows = [
        [name, METRIC_LABELS[metric], *(_number(means[metric][m], metric) for m in methods)]
        for name, means in sections
        for metric in names
    ]
    return header, rows


def metrics_table(metrics: Mapping[str, Any], title: str = "") -> Table:
    """Return the means per class as a table for the terminal.

    Args:
        metrics: Content of `metrics.json`.
        title: Title of the table.
    """
    return text_table(title, *table_cells(metrics))


def text_table(title: str, header: list[str], rows: list[list[str]], texts: int = 2) -> Table:
    """Return a table whose first columns are text and the others numbers."""
    table = Table(title=Text(title) if title else None)
    for position, name in enumerate(header):
        table.add_column(name, justify="left" if position < texts else "right")
    before = None
    for name, *cells in rows:
        if before is not None and name != before:
            table.add_section()
        # Text and not str: a class may be called "[bold]", which is no markup.
        table.add_row(*(Text(cell) for cell in ("" if name == before else name, *cells)))
        before = name
    return table


def click_cells(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return a table of the Dice by number of clicks, as text.

    Args:
        metrics: Content of `metrics.json` of an evaluation with clicks.

    Returns:
        The header and the rows: class, clicks, then before and after fine-tuning. The last rows
        are over all classes, when there is more than one.
    """
    methods = ("zero_shot", "finetuned")
    header = ["class", "clicks", *(METHOD_LABELS[method] for method in methods)]
    names = list(metrics["clicks"][0]["per_class"]) if metrics["clicks"] else []
    if len(names) != 1:
        names.append("all")
    rows = []
    for name in names:
        for entry in metrics["clicks"]:
            dice = {**entry["per_class"], "all": entry["summary"]}[name]["dice"]
            rows.append([name, str(entry["clicks"]), *(_number(dice[m], "dice") for m in methods)])
    return header, rows


def clicks_table(metrics: Mapping[str, Any]) -> Table:
    """Return the Dice by number of clicks as a table for the terminal; see `click_cells`."""
    header, rows = click_cells(metrics)
    return text_table("Dice by clicks", header, rows)


def ensemble_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Return lines with the calibration error, and the gain of averaging several runs.

    Args:
        metrics: Content of `metrics.json`.
    """
    calibration = metrics.get("calibration")
    if calibration is None or calibration["ece"] is None:
        return []
    ece = f"ECE {calibration['ece']:.4f}"
    if "members" not in metrics:
        return [ece]
    dice = _number(metrics["summary"]["dice"]["finetuned"], "dice")
    mean = _number(metrics["members_mean"]["dice"], "dice")
    return [
        f"ensemble of {len(metrics['members'])}: Dice {dice}, {ece}; its members by themselves, "
        f"on average: Dice {mean}, ECE {calibration['members_mean']['ece']:.4f}"
    ]


def _number(value: float | None, metric: str) -> str:
    if value is None:
        return UNDEFINED
    return f"{value:.3f}" if metric in FRACTIONS else f"{value:.2f}"
