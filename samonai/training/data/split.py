"""Which cases are trained on and which are held out: by case, seeded, or as a file says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samonai.core.errors import InputError
from samonai.core.files import as_path
from samonai.core.pseudonyms import known_as
from samonai.domains.base import Case
from samonai.training.data.folds import SplitNames


@dataclass(frozen=True)
class Split:
    """Cases to train on and cases held out for validation.

    Attributes:
        train: Cases that the decoder learns from.
        val: Cases that choose the best epoch; none of them is in `train`.
    """

    train: tuple[Case, ...]
    val: tuple[Case, ...]


def split_cases(
    cases: Sequence[Case],
    *,
    val_fraction: float = 0.2,
    split_file: Path | str | None = None,
    seed: int = 0,
) -> Split:
    """Split cases for training and validation.

    Args:
        cases: All cases.
        val_fraction: Share of the cases that is held out, at least one; ignored with a file.
        split_file: JSON `{"train": [case, …], "val": [case, …]}`; cases it does not name are
            left out.
        seed: Chooses which cases are held out; those of one group together.

    Raises:
        InputError: Too few cases, a fraction out of range, or a file that does not fit the cases.
    """
    if split_file is not None:
        return _from_file(cases, as_path(split_file, "the split file"))
    if not 0 < val_fraction < 1:
        raise InputError(f"the validation fraction lies between 0 and 1, got {val_fraction}")
    if len(cases) < 2:
        raise InputError(
            f"training needs at least two cases, one of them held out; found {len(cases)}"
        )
    ordered = sorted(cases, key=lambda case: case.case_id)
    wanted = min(max(round(len(ordered) * val_fraction), 1), len(ordered) - 1)
    groups: dict[tuple[bool, str], list[Case]] = {}
    for case in ordered:
        alone = case.group is None
        groups.setdefault((alone, case.case_id if alone else str(case.group)), []).append(case)
    if len(groups) < 2:
        raise InputError(
            f"all {len(ordered)} cases belong together ({ordered[0].group}), so that none can be "
            f"held out; add others, or say in a split file how to part them"
        )
    units = list(groups.values())
    chosen: set[str] = set()
    for number in np.random.default_rng(seed).permutation(len(units)).tolist():
        # Up to the group that comes nearest to the share asked for, and never all of them.
        fits = 2 * (wanted - len(chosen)) >= len(units[number])
        if not chosen or (fits and len(chosen) + len(units[number]) < len(ordered)):
            chosen |= {case.case_id for case in units[number]}
        if len(chosen) >= wanted:
            break
    return Split(
        tuple(case for case in ordered if case.case_id not in chosen),
        tuple(case for case in ordered if case.case_id in chosen),
    )


def _from_file(cases: Sequence[Case], path: Path) -> Split:
    """Return the split that a file names."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"the split file {path} does not exist") from error
    except (OSError, ValueError) as error:
        raise InputError(f"the split file {path} is not JSON: {error}") from error
    known = {case.case_id: case for case in cases}
    named = named_split(content, list(known), f"the split file {path}")
    train, val = (tuple(known[name] for name in dict.fromkeys(named[p])) for p in ("train", "val"))
    return Split(train, val)


def named_split(content: Any, known: Sequence[str], what: str) -> SplitNames:
    """Return a split that somebody wrote down, by the ids that its cases have.

    Args:
        content: `{"train": [case, …], "val": [case, …]}`.
        known: The data set's cases.
        what: Named in messages.

    Raises:
        InputError: It is something else, or names cases that are not known, or one twice.
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
