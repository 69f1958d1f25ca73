"""Conformance table: `docs/conformance.md` made from the markers of `tests/conformance`.

Each test of a reading condition carries `@pytest.mark.conformance(...)` with the condition, its
source, the right value or refusal, the independent reader that the value was checked by, and the
severity of getting it wrong (1: wrong in silence, 2: job lost, 3: annoyance).

`python tools/conformance.py` writes the page; a test compares it with the markers.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TESTS = REPOSITORY / "tests" / "conformance"
PAGE = REPOSITORY / "docs" / "conformance.md"
REPORTS = REPOSITORY / "docs" / "conformance_reports.md"
DOMAINS = {"medical": "Scans", "satellite": "Rasters", "documents": "Pages and pictures"}
FIELDS = ("domain", "condition", "source", "right", "reader", "severity")


@dataclass(frozen=True)
class Row:
    """One condition of a real file, with the right outcome and the test that shows it."""

    domain: str
    condition: str
    source: str
    right: str
    reader: str
    severity: int
    test: str

    def line(self) -> str:
        """Return the row as a line of a Markdown table."""
        values = (self.severity, self.condition, self.right, self.reader, self.source)
        cells = [str(value).replace("|", "\\|") for value in values]
        return f"| {' | '.join(cells)} | `{self.test}` |"


def rows() -> list[Row]:
    """Return every marked test, in the order of files and lines.

    Raises:
        ValueError: A marker lacks a field, has another one, or names no known domain.
    """
    found = [row for path in sorted(TESTS.glob("test_*.py")) for row in rows_of(path)]
    return found


def rows_of(path: Path) -> Iterator[Row]:
    """Yield the marked tests of one file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(
                "mark.conformance"
            ):
                yield row_of(decorator, f"{path.stem}::{node.name}")


def row_of(decorator: ast.Call, test: str) -> Row:
    """Return the row that a marker describes."""
    values = {str(word.arg): ast.literal_eval(word.value) for word in decorator.keywords}
    if set(values) != set(FIELDS):
        raise ValueError(f"{test}: a conformance marker has exactly {', '.join(FIELDS)}")
    if values["domain"] not in DOMAINS or values["severity"] not in (1, 2, 3):
        raise ValueError(f"{test}: domain is one of {', '.join(DOMAINS)}, severity 1, 2 or 3")
    return Row(**values, test=test)


def page() -> str:
    """Return the page as Markdown."""
    lines = [
        "# Conformance",
        "",
        "What real files hold that is easily misread, the right value or refusal, and the",
        "independent reader that the value was checked by. Severity of the mistake: 1 wrong in",
        "silence, 2 a job lost, 3 an annoyance. Each row is a generated input and a test under",
        "`tests/conformance/`; this page is made from them by `python tools/conformance.py`.",
    ]
    for domain, title in DOMAINS.items():
        of_domain = [row for row in rows() if row.domain == domain]
        if of_domain:
            lines += ["", f"## {title}", ""]
            lines += ["| severity | condition | right | checked by | source | test |"]
            lines += ["|---|---|---|---|---|---|"]
            lines += [row.line() for row in of_domain]
    if REPORTS.is_file():
        lines += ["", REPORTS.read_text(encoding="utf-8").strip()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: {len(rows())} rows")
