"""Tables of several runs: what each reached, and how far they lie apart."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from samonai.report.tables import UNDEFINED


def members_table(document: Mapping[str, Any]) -> Table:
    """Return a row per run and two of mean and spread.

    Args:
        document: What `folds.json` or `seeds.json` holds.
    """
    classes = list(document["per_class"])
    shown = classes if len(classes) > 1 else []
    table = Table(title=Text("Dice of the held-out cases, in 3D at native resolution"))
    table.add_column("run")
    for name in ("cases", "best epoch", "Dice", *shown):
        # Text and not str: a class may be called "[bold]", which is no markup.
        table.add_column(Text(name), justify="right")
    for name, member in document["members"].items():
        scores = [member["dice"], *(member["per_class"].get(label) for label in shown)]
        numbers = [str(len(member["val"])), str(member["epoch"]), *map(score, scores)]
        table.add_row(Text(name), *numbers)
    table.add_section()
    columns = [document["dice"], *(document["per_class"][label] for label in shown)]
    for label, key in (("mean", "mean"), ("standard deviation", "sd")):
        table.add_row(label, "", "", *(score(column[key]) for column in columns))
    cases = document["case_dice"]
    table.add_row(
        f"{cases['n']} cases and classes", "", "", f"{score(cases['mean'])} ± {score(cases['sd'])}"
    )
    return table


def score(value: float | None) -> str:
    """Return a score as text; a dash where it is not defined."""
    return UNDEFINED if value is None else f"{value:.3f}"
