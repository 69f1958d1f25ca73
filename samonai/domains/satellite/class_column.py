"""Class columns of vector files: class numbers, or names numbered in their order."""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.prompts.values import PromptFile

logger = logging.getLogger(__name__)

_WHOLE = re.compile(r"[+-]?\d+(\.0*)?")


def column_of(frame: gpd.GeoDataFrame, field: str, path: PromptFile) -> Any:
    """Return a column.

    Raises:
        InputError: The file has no such column.
    """
    if field not in frame.columns:
        known = ", ".join(str(name) for name in frame.columns if name != "geometry")
        raise InputError(f"{path} has no column {field!r}; it has {known or 'none'}")
    return frame[field]


def class_texts(column: Iterable[Any]) -> list[str]:
    """Return the values of a column as texts, "" for missing ones.

    A whole number has the same text in any type: a null turns a column of whole numbers into
    fractions in that file, so that 1 comes as 1.0.
    """
    return ["" if _is_missing(value) else _text(value) for value in column]


def class_names(values: set[str]) -> tuple[str, ...] | None:
    """Return the names of classes, in the order of their numbers from 1.

    Args:
        values: Values of the column over all files.

    Returns:
        None if all are numbers above 0, which are the classes themselves. Whole numbers with a
        0 or negative ones among them are names, in the order of the numbers.
    """
    if all(_is_class_number(value) for value in values):
        return None
    if all(_WHOLE.fullmatch(value) for value in values):
        return tuple(sorted(values, key=int))
    return tuple(sorted(values))


def class_values(
    frame: gpd.GeoDataFrame, path: PromptFile, field: str | None, classes: tuple[str, ...] | None
) -> npt.NDArray[np.int64]:
    """Return the class of each feature, int64 (N,); 0 for features without one.

    Args:
        frame: The features.
        path: Their file, for messages.
        field: The column; None: all are class 1.
        classes: Names of the classes 1, 2, …; None: the column holds numbers.

    Raises:
        InputError: The column is missing, holds names without given numbers, or no known class.
    """
    if field is None:
        return np.ones(len(frame), np.int64)
    texts = class_texts(column_of(frame, field, path))
    if classes is not None:
        numbers: Mapping[str, int] = {
            name: n for n, name in enumerate(class_texts(classes), 1) if name
        }
        values = [numbers.get(text, 0) for text in texts]
    elif all(_is_class_number(text) for text in texts if text):
        values = [int(text) if text else 0 for text in texts]
    else:
        raise InputError(
            f"{path}: column {field!r} holds names; give them in order: --set "
            f"classes={','.join(class_names(set(texts) - {''}) or ())}"
        )
    if left_out := values.count(0):
        logger.warning("%s: %d features without a known class are left out", path, left_out)
    if left_out == len(values):
        raise InputError(f"{path}: no feature has a class in column {field!r}")
    return np.array(values, np.int64)


def _is_missing(value: Any) -> bool:
    # pandas' NA is neither equal nor unequal to itself.
    return value is None or type(value).__name__ == "NAType" or bool(value != value) or value == ""


def _text(value: Any) -> str:
    text = str(value).strip()
    return str(int(text.split(".")[0])) if _WHOLE.fullmatch(text) else text


def _is_class_number(text: str) -> bool:
    return bool(_WHOLE.fullmatch(text)) and 0 < int(text) <= np.iinfo(np.uint16).max
