"""CSV cells: text that a spreadsheet would run as a formula is escaped."""

from collections.abc import Mapping
from typing import Any

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_GUARD = "'"


def csv_cell(value: Any) -> Any:
    """Escape a value for a CSV cell: text that begins like a formula gets an apostrophe first.

    Names of cases and classes come from data files of others; Excel and LibreOffice evaluate cells
    that begin with =, +, -, @, a tab or a carriage return. Numbers stay as they are.
    """
    return _GUARD + value if isinstance(value, str) and _is_formula(value) else value


def csv_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of values escaped by `csv_cell`."""
    return {key: csv_cell(value) for key, value in row.items()}


def cell_text(cell: str) -> str:
    """Return the text of a cell without the escape of `csv_cell`."""
    return cell[1:] if cell.startswith(_GUARD) and _is_formula(cell) else cell


def _is_formula(text: str) -> bool:
    # Text that begins with an apostrophe gets another one, so that reading returns it unchanged.
    return text.lstrip(_GUARD).startswith(_FORMULA_STARTS)
