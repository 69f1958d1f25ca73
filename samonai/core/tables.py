"""Cells of CSV files: text that a spreadsheet would run as a formula is kept from being one."""

from collections.abc import Mapping
from typing import Any

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_GUARD = "'"


def csv_cell(value: Any) -> Any:
    """Return what to write for a value: text that begins like a formula gets an apostrophe first.

    Names of cases and classes come from data files of others; Excel and LibreOffice evaluate cells
    that begin with =, +, -, @, a tab or a carriage return. Numbers stay as they are.
    """
    return _GUARD + value if isinstance(value, str) and _is_formula(value) else value


def csv_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with each value as `csv_cell` has it."""
    return {key: csv_cell(value) for key, value in row.items()}


def cell_text(cell: str) -> str:
    """Return the text that `csv_cell` was given."""
    return cell[1:] if cell.startswith(_GUARD) and _is_formula(cell) else cell


def _is_formula(text: str) -> bool:
    # With an apostrophe it gets another one, so that reading gives back each text as it was.
    return text.lstrip(_GUARD).startswith(_FORMULA_STARTS)
