"""Tables as Markdown, for documents."""

from collections.abc import Sequence


def number(value: float | None) -> str:
    """Return a figure as tables show it; nothing where there is none."""
    return "" if value is None else f"{value:.3f}"


def table(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table of lines below a header."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)
