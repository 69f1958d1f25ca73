"""HTML report in a single file, without scripts or network access."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from samonai.core.files import write_atomically
from samonai.report.palette import METHOD_LABELS
from samonai.report.statistics import (
    measure_words,
    paired_cells,
    statistics_cells,
    status_cells,
    volume_cells,
)
from samonai.report.tables import UNDEFINED, click_cells, table_cells

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8886; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
th { font-weight: 600; }
th:first-child, td:first-child, .text { text-align: left; }
td.last { font-weight: 600; }
dl { display: grid; grid-template-columns: max-content auto; gap: .2rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
dt, figcaption, .note { opacity: .75; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; background: #fff; }
"""
_NOTE = (
    "Each case is measured in 3D on its own grid, in mm, slices without the structure included. "
    "A dash is a number that is not defined, such as the Dice of a structure that is neither in "
    "the reference nor predicted."
)


def write_report(
    out_dir: Path | str,
    *,
    title: str,
    metrics: Mapping[str, Any] | None = None,
    pictures: Sequence[tuple[str, Path | str]] = (),
    facts: Mapping[str, Any] | None = None,
    worst: Sequence[tuple[str, Path | str]] = (),
    texts: Sequence[tuple[str, str]] = (),
    statistics: Mapping[str, Any] | None = None,
) -> Path:
    """Write `index.html`, with every picture inside.

    Args:
        out_dir: The folder, made when missing.
        title: The page's heading.
        metrics: Content of `metrics.json`, for the two tables.
        pictures: Caption and PNG file each, shown in this order.
        facts: Further names and values: model, data, prompts, time.
        worst: Caption and PNG file of the worst cases, the worst first.
        texts: Heading and paragraphs of further sections, shown first.
        statistics: A document with `statistics` alone, such as a comparison's.

    Returns:
        The file that was written.
    """
    parts = [f"<h1>{escape(title)}</h1>"]
    if facts:
        parts.append(_facts(facts))
    for heading, text in texts:
        paragraphs = "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n"))
        parts.append(f"<h2>{escape(heading)}</h2>{paragraphs}")
    if metrics is not None:
        header, rows = table_cells(metrics)
        parts += ["<h2>Before and after</h2>", _table(header, rows, text=2)]
        parts.append(f'<p class="note">{escape(_NOTE)}</p>')
        parts += _statistics(metrics)
    if statistics is not None:
        parts += _statistics(statistics)
    if worst:
        parts.append("<h2>Worst cases</h2>")
        parts += [_figure(caption, Path(path)) for caption, path in worst]
    if metrics is not None and "clicks" in metrics:
        parts += ["<h2>Dice by clicks</h2>", _table(*click_cells(metrics), text=1)]
    if pictures:
        parts.append("<h2>Pictures</h2>")
        parts += [_figure(caption, Path(path)) for caption, path in pictures]
    if metrics is not None and metrics["cases"]:
        parts += ["<h2>Dice of every case</h2>", _case_table(metrics["cases"])]
    page = Path(out_dir) / "index.html"
    with write_atomically(page) as temporary:
        temporary.write_text(_page(title, parts), encoding="utf-8")
    return page


def _statistics(metrics: Mapping[str, Any]) -> list[str]:
    """Return the sections of intervals, paired tests, agreement of volumes and counts."""
    sections = (
        ("Statistics", statistics_cells(metrics), 3),
        ("Paired comparisons, the first method against", paired_cells(metrics), 3),
        ("Agreement of volumes (Bland and Altman)", volume_cells(metrics), 1),
        ("Structures found and missing", status_cells(metrics), 1),
    )
    parts = [
        part
        for heading, (header, rows), text in sections
        if rows
        for part in (f"<h2>{escape(heading)}</h2>", _table(header, rows, text=text))
    ]
    return [*parts, *(f'<p class="note">{escape(line)}</p>' for line in measure_words(metrics))]


def _page(title: str, parts: Iterable[str]) -> str:
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # Whatever a name from a data file contains, this page loads and runs nothing.
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style></head>",
            "<body>",
            *parts,
            "</body></html>\n",
        )
    )


def _facts(facts: Mapping[str, Any]) -> str:
    entries = (
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in facts.items()
    )
    return f"<dl>{''.join(entries)}</dl>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], text: int) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        styles = ["text"] * text + [""] * (len(cells) - text - 1) + ["last"]
        return "".join(
            f'<{tag} class="{style}">{escape(cell)}</{tag}>'
            for style, cell in zip(styles, cells, strict=True)
        )

    body = "".join(f"<tr>{row(cells, 'td')}</tr>\n" for cells in rows)
    head = f"<thead><tr>{row(header, 'th')}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>\n{body}</tbody></table></div>'


def _case_table(cases: Sequence[Mapping[str, Any]]) -> str:
    columns = {"dice_box": "box", "dice_zero_shot": "zero_shot", "dice": "finetuned"}
    shown = {column: METHOD_LABELS[m] for column, m in columns.items() if column in cases[0]}
    rows = [
        [
            str(case["case"]),
            str(case["class"]),
            *(UNDEFINED if case[column] is None else f"{case[column]:.3f}" for column in shown),
        ]
        for case in cases
    ]
    return _table(["case", "class", *shown.values()], rows, text=2)


def _figure(caption: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
