"""Prompts given as values instead of a file: what the file would hold."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from samonai.core.errors import InputError


class PromptValues(dict[str, Any]):
    """Content of a JSON file of prompts; parsers take it as they take the file.

    Its text is "boxes", which messages call it by, as they call a file by its path.
    """

    def __str__(self) -> str:
        """Return what messages call it."""
        return "boxes"


PromptFile = Path | PromptValues
"""A file of prompts, or what it would hold."""


def prompt_values(given: Any) -> PromptValues:
    """Return prompts as the values that a JSON file holds.

    Args:
        given: A mapping as the file's content, or boxes alone; numpy arrays may stand in it.

    Raises:
        InputError: A value is nothing that JSON has.
    """
    content = given if isinstance(given, Mapping) else {"boxes": given}
    try:
        # Through text, so that tuples, keys and numbers are what they are in a file.
        text = json.dumps(content, default=lambda value: np.asarray(value).tolist())
        return PromptValues(json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:  # numpy returns what it cannot convert
        raise InputError(f"boxes of type {type(given).__name__}: expected numbers") from error


def prompt_content(path: PromptFile) -> Any:
    """Return what a JSON file of prompts holds, or the values in its place.

    Raises:
        InputError: The file is not JSON.
    """
    if isinstance(path, PromptValues):
        return path
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
