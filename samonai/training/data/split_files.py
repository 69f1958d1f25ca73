"""Split files: one split, nnU-Net's splits_final.json, or a MONAI data list with folds.

A fold of a file with several is chosen by `FILE#N`; without a number it is the first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.json_files import read_json
from samonai.core.pseudonyms import known_as
from samonai.domains.base import Case
from samonai.training.data.folds import SplitNames

RULE = "rule"
"""Key of a run's split file for the rule that chose the held-out cases."""

Folds = dict[int, SplitNames]
"""The split of each fold, by its number."""


def read_split(path: Path | str, cases: Sequence[Case]) -> tuple[SplitNames, str]:
    """Return the split of a file, or one of its folds, with a description of the choice.

    Args:
        path: The file; `FILE#N` is fold N of one that has several.
        cases: The data set's cases.

    Raises:
        InputError: The file cannot be read, is not a split of these cases, or has no such fold.
    """
    file, number = _parted(path)
    found = _read(file, cases)
    if not isinstance(found, dict):
        if number is not None:
            raise InputError(f"the split file {file} is one split and has no fold {number}")
        return found[0], found[1] or f"as {file.name} says"
    number = min(found) if number is None else number
    if number not in found:
        known = ", ".join(map(str, found))
        raise InputError(f"the split file {file} has no fold {number}; it has {known}")
    return found[number], f"fold {number} of {len(found)} in {file.name}"


def read_folds(path: Path | str, cases: Sequence[Case]) -> Folds | None:
    """Return the folds of a split file; None where it is one split, or one fold is chosen."""
    file, number = _parted(path)
    found = _read(file, cases)
    return found if isinstance(found, dict) and number is None else None


def is_one_split(path: Path | str, cases: Sequence[Case]) -> bool:
    """Return whether a split file holds a single split without folds."""
    file, number = _parted(path)
    return number is None and not isinstance(_read(file, cases), dict)


def folds_of(numbers: Mapping[str, int | None], what: str) -> Folds:
    """Return the split of each fold: its cases are held out, all others are trained on.

    Args:
        numbers: Case to the number of its fold; None: the case is trained on in all folds.
        what: Name of the file in messages.

    Raises:
        InputError: A fold holds all cases.
    """
    folds: Folds = {}
    for number in sorted({each for each in numbers.values() if each is not None}):
        val = [name for name, of_case in numbers.items() if of_case == number]
        train = [name for name, of_case in numbers.items() if of_case != number]
        if not train:
            raise InputError(
                f"{what} puts all {len(val)} cases into fold {number}, so that none is left to "
                "train on; use two folds or more"
            )
        folds[number] = {"train": train, "val": val}
    return folds


def named_split(content: Any, known: Sequence[str], what: str) -> SplitNames:
    """Check a split of a file, and convert its names to case ids.

    Args:
        content: `{"train": [case, …], "val": [case, …]}`.
        known: The data set's cases.
        what: Name of the file in messages.

    Raises:
        InputError: The content is not a split, or has unknown cases, or one case twice.
    """
    named: SplitNames = {}
    for part in ("train", "val"):
        names = content.get(part) if isinstance(content, Mapping) else None
        listed = isinstance(names, Sequence) and not isinstance(names, str)
        if not listed or not names or not all(isinstance(name, str) for name in names):
            raise InputError(
                f'{what} must read {{"train": [case, …], "val": [case, …]}} with at least one case '
                f"in each; {part!r} is missing, empty or not a list of names"
            )
        named[part] = [known_as(name, known) for name in names]
    if both := sorted(set(named["train"]) & set(named["val"])):
        raise InputError(f"{what} has {both[0]!r} in train and in val")
    if unknown := sorted((set(named["train"]) | set(named["val"])) - set(known)):
        raise InputError(
            f"{what} names {len(unknown)} cases that are not in the data set, such as "
            f"{unknown[0]!r}; the data set has {', '.join(sorted(known)[:3])}, …"
        )
    return named


def _parted(path: Path | str) -> tuple[Path, int | None]:
    """Split `FILE#N` into the file and the number of the fold."""
    path = Path(path)
    name, mark, number = path.name.rpartition("#")
    if path.exists() or not mark or not name:
        return path, None
    if not number.isdecimal():
        raise InputError(f"the split {path}: expected the number of a fold after #, from 0")
    return path.with_name(name), int(number)


def _read(file: Path, cases: Sequence[Case]) -> Folds | tuple[SplitNames, str]:
    """Return the folds of a file, or its only split with its recorded rule."""
    what = f"the split file {file}"
    try:
        content = read_json(file)
    except FileNotFoundError as error:
        raise InputError(f"{what} does not exist") from error
    except InputError as error:
        raise InputError(f"{what} is not JSON: {error}") from error
    known = [case.case_id for case in cases]
    if isinstance(content, list) and content:
        return {
            number: named_split(each, known, f"fold {number} of {what}")
            for number, each in enumerate(content)
        }
    if isinstance(content, Mapping) and isinstance(content.get("training"), list):
        return _listed(content, file, cases, what)
    rule = content.get(RULE) if isinstance(content, Mapping) else None
    return named_split(content, known, what), rule if isinstance(rule, str) else ""


def _listed(
    content: Mapping[str, Any], file: Path, cases: Sequence[Case], what: str
) -> Folds | tuple[SplitNames, str]:
    """Return the held-out cases of a MONAI data list: its validation section, or its folds."""
    by_path = {case.image.resolve(): case.case_id for case in cases}
    by_name = {case.image.name: case.case_id for case in cases}

    def case_of(entry: Any) -> str:
        image = entry.get("image") if isinstance(entry, Mapping) else entry
        for each in image if isinstance(image, list) else [image]:
            path = (file.parent / str(each)).resolve()
            if found := by_path.get(path) or by_name.get(path.name):
                return found
        raise InputError(f"{what} lists {image!s:.80}, which is no image of the data set")

    numbers: dict[str, int | None] = {}
    for entry in content["training"]:
        number = entry.get("fold") if isinstance(entry, Mapping) else None
        if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
            raise InputError(f"{what}: fold {number!r:.40} of an entry; expected a number from 0")
        numbers[case_of(entry)] = number
    if folds := folds_of(numbers, what):
        return folds
    validation = [case_of(entry) for entry in content.get("validation") or []]
    named = {"train": list(numbers), "val": validation}
    return named_split(named, list(by_path.values()), what), ""
