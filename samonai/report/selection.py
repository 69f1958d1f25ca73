"""Tables of several runs: their scores and the spread of these."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from samonai.report.tables import UNDEFINED


def members_table(document: Mapping[str, Any]) -> Table:
    """Return a row per run and two of mean and spread.

    Args:
        document: Content of `folds.json` or `seeds.json`.
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


def sweep_table(document: Mapping[str, Any], most: int = 10) -> Table:
    """Return the best trials of a sweep.

    Args:
        document: Content of `sweep.json`.
        most: Largest number of rows.
    """
    done = [trial for trial in document["trials"] if trial["dice"] is not None]
    done.sort(key=lambda trial: -trial["dice"])
    table = Table(title=Text(f"The best of {len(document['trials'])} trials"))
    for name in ("trial", "Dice", *document["ranges"]):
        table.add_column(name, justify="right")
    for trial in done[:most]:
        settings = (trial["settings"][name] for name in document["ranges"])
        cells = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in settings]
        table.add_row(str(trial["trial"]), score(trial["dice"]), *cells)
    return table


def ranking_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the ranking for annotation (active learning).

    Args:
        rows: Rows of the ranking, as in the CSV file.
    """
    table = Table(title=Text("Annotate next"))
    by_slice = any(row["slice"] != "" for row in rows)
    for name in ("rank", "case", *(["slice"] if by_slice else []), "score", "reason"):
        table.add_column(name, justify="left" if name in ("case", "reason") else "right")
    for row in rows:
        places = [row["case"], *([str(row["slice"])] if by_slice else [])]
        cells = [str(row["rank"]), *places, f"{float(row['score']):.3f}", row["reason"]]
        table.add_row(*map(Text, cells))
    return table


def score(value: float | None) -> str:
    """Return a score as text; a dash if it is undefined."""
    return UNDEFINED if value is None else f"{value:.3f}"
