"""Learning curve: Dice over the number of training cases, as diagram and table, with a U-Net's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from rich.table import Table
from rich.text import Text

from samonai.core.files import write_atomically
from samonai.report.selection import score

CURVES = {
    "prompted": ("fine-tuned, with boxes", "#0072b2"),
    "automatic": ("fine-tuned, automatic head", "#009e73"),
    "unet": ("U-Net from scratch", "#b4b4b4"),
}
"""Name in `curve.json` to its legend and colour."""

_BEFORE = ("before fine-tuning, with boxes", "#e69f00")
_DPI = 150


def data_efficiency(document: Mapping[str, Any], path: Path | str) -> Path:
    """Draw the mean Dice of the held-out cases against the number of training cases.

    Args:
        document: Content of `curve.json`.
        path: The PNG file to write.
    """
    points = sorted(document["points"].values(), key=lambda point: point["cases"])
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    if (before := document.get("before")) and before["dice"] is not None:
        axes.axhline(before["dice"], color=_BEFORE[1], linestyle="--", label=_BEFORE[0])
    for name, (label, colour) in CURVES.items():
        known = [point for point in points if point.get(name, {}).get("dice") is not None]
        if known:
            sizes = [point["cases"] for point in known]
            scores = [point[name]["dice"] for point in known]
            axes.plot(sizes, scores, color=colour, marker="o", markersize=5, label=label)
    sizes = [point["cases"] for point in points]
    axes.set_xscale("log")
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="training cases", ylabel="Dice of the held-out cases", ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e4e4")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    path = Path(path)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")
    return path


def curve_table(document: Mapping[str, Any]) -> Table:
    """Return the curve as a table for the terminal.

    Args:
        document: Content of `curve.json`.
    """
    points = sorted(document["points"].values(), key=lambda point: point["cases"])
    shown = [name for name in CURVES if any(name in point for point in points)]
    table = Table(title=Text("Dice of the held-out cases, in 3D at native resolution"))
    for name in ("cases", "training", *(CURVES[name][0] for name in shown)):
        table.add_column(name, justify="right")
    if "unet" in shown:
        table.add_column("its time", justify="right")
    for point in points:
        cells = [str(point["cases"]), f"{point['seconds']:.0f} s"]
        cells += [score(point[name]["dice"]) if name in point else "" for name in shown]
        if "unet" in shown:
            cells.append(f"{point['unet_seconds']:.0f} s" if "unet_seconds" in point else "")
        table.add_row(*cells)
    return table


def verdict(document: Mapping[str, Any]) -> str | None:
    """Return a sentence on the decoder's lead over the U-Net, or lag behind it, on all cases.

    The semantic head is compared if there is one: like the U-Net, it needs no prompts.

    Args:
        document: Content of `curve.json`.
    """
    points = [point for point in document["points"].values() if "unet" in point]
    if not points:
        return None
    last = max(points, key=lambda point: point["cases"])
    ours = "automatic" if "automatic" in last else "prompted"
    dice, theirs = last[ours]["dice"], last["unet"]["dice"]
    if dice is None or theirs is None:
        return None
    which = "the automatic head" if ours == "automatic" else "the decoder, which gets boxes,"
    said = "is ahead of" if dice >= theirs else "is behind"
    return (
        f"with {last['cases']} cases {which} {said} the U-Net by {abs(dice - theirs):.3f} "
        f"(Dice {dice:.3f} and {theirs:.3f})"
    )
