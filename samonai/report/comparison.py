"""HTML page and table of a comparison of runs, evaluations and label maps of other tools."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from samonai.report.html import write_report
from samonai.report.statistics import paired_cells, prompt_words, statistics_cells
from samonai.report.tables import text_table


def comparison_tables(document: Mapping[str, Any]) -> list[Table]:
    """Return the tables of the terminal: n, mean, SD, median, interval; and paired comparisons.

    Args:
        document: Content of `compare.json`.
    """
    tables = [text_table("Comparison", *statistics_cells(document), texts=3)]
    header, rows = paired_cells(document)
    if rows:
        tables.append(text_table(f"{document['names'][0]} against", header, rows, texts=3))
    return tables


def write_comparison(out: Path, document: Mapping[str, Any]) -> Path:
    """Write the page of a comparison; return the file.

    Args:
        out: Its folder.
        document: Content of `compare.json`.
    """
    facts = {
        name: "label maps" if prompts is None else prompt_words(prompts)
        for name, prompts in document["prompts"].items()
    }
    left_out = {name: count for name, count in document["left_out"].items() if count}
    if left_out:
        facts["left out, not common to all"] = ", ".join(
            f"{count} of {name}" for name, count in left_out.items()
        )
    return write_report(out, title="Comparison", statistics=document, facts=facts)
