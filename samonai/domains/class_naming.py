"""Names of classes that prompts bring, for models that were not trained on named classes."""

from collections.abc import Iterable, Mapping
from typing import Any

from samonai.core.errors import InputError


def is_class_number(value: Any) -> bool:
    """Return whether a class is given by its label value: a whole number, also as text."""
    if isinstance(value, bool) or value is None:
        return False
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    return number.is_integer() and number > 0


def named_in_order(given: Iterable[Any], where: Any) -> dict[int, str]:
    """Return label value to name of the classes that prompts name, numbered in their order from 1.

    Args:
        given: Class of each prompt: a name, a label value, or None.
        where: The file, for messages.

    Returns:
        Empty where all classes are label values, or none is given.

    Raises:
        InputError: Some prompts name their class, and others have a label value or none.
    """
    classes = [None if value is None or not str(value).strip() else value for value in given]
    names = {str(one).strip(): None for one in classes if one is not None}
    texts = [name for name in names if not is_class_number(name)]
    if not texts:
        return {}
    if len(texts) < len(names) or None in classes:
        other = "none" if None in classes else next(n for n in names if n not in texts)
        raise InputError(
            f"{where}: class {texts[0]!r:.60} beside {other}; a model without classes of its own "
            f"numbers the names: name the class of every prompt, or of none"
        )
    return dict(enumerate(texts, 1))


def joined_names(found: Iterable[tuple[Any, Mapping[int, str]]]) -> dict[int, str]:
    """Return the names of several files' label values.

    Args:
        found: Each file, and its label value to name.

    Raises:
        InputError: A label value has different names in two files.
    """
    joined: dict[int, str] = {}
    for path, names in found:
        for value, name in names.items():
            if joined.setdefault(value, name) != name:
                raise InputError(
                    f"{path}: label value {value} is {name!r:.60}, and {joined[value]!r:.60} in "
                    f"another file; give the files the same values"
                )
    return joined
