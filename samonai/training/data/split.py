"""Split into training and validation cases: from a file or data list, or drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from samonai.core.errors import InputError
from samonai.core.files import as_path
from samonai.core.settings import check_given
from samonai.domains.base import Case
from samonai.settings.training import DataSettings
from samonai.training.data.folds import SplitNames
from samonai.training.data.split_files import Folds, folds_of, read_split

_NAMED = 10


@dataclass(frozen=True)
class Split:
    """Cases to train on and cases held out for validation.

    Attributes:
        train: Training cases.
        val: Validation cases, which choose the best epoch; none of them is in `train`.
        rule: How the held-out cases were chosen, in words.
    """

    train: tuple[Case, ...]
    val: tuple[Case, ...]
    rule: str = ""

    def sentence(self) -> str:
        """Return one line with the held-out cases and the rule that chose them."""
        return held_out_line(
            [case.case_id for case in self.train], [case.case_id for case in self.val], self.rule
        )


def held_out_line(train: Sequence[str], val: Sequence[str], rule: str) -> str:
    """Return one line with the held-out cases and the rule that chose them."""
    shown = ", ".join(val[:_NAMED]) + (f", … ({len(val)})" if len(val) > _NAMED else "")
    return f"held out: {len(val)} of {len(train) + len(val)} cases, {rule}: {shown}"


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
        val_fraction: Share of the cases that is held out, at least one; ignored with a file, and
            where the data list holds out cases itself (`listed_split`).
        split_file: JSON `{"train": [case, …], "val": [case, …]}`, or a file of folds, see
            `split_files`; cases not in it are left out.
        seed: Seed of the random split; cases of one group stay together.

    Raises:
        InputError: Too few cases, a fraction out of range, or a file that does not fit the cases.
    """
    if split_file is not None:
        return _named(cases, *read_split(as_path(split_file, "the split file"), cases))
    if listed := listed_split(cases):
        return _named(cases, *listed)
    check_given(DataSettings, {"val_fraction": val_fraction})
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
        # Up to the group that comes nearest to the requested share, and never all of them.
        fits = 2 * (wanted - len(chosen)) >= len(units[number])
        if not chosen or (fits and len(chosen) + len(units[number]) < len(ordered)):
            chosen |= {case.case_id for case in units[number]}
        if len(chosen) >= wanted:
            break
    return Split(
        tuple(case for case in ordered if case.case_id not in chosen),
        tuple(case for case in ordered if case.case_id in chosen),
        "drawn from the seed",
    )


def listed_split(cases: Sequence[Case]) -> tuple[SplitNames, str] | None:
    """Return the split of the data list: its validation section, or its first fold.

    Raises:
        InputError: No training case is left.
    """
    held_out = [case.case_id for case in cases if case.held_out]
    if held_out:
        train = [case.case_id for case in cases if not case.held_out]
        return {"train": train, "val": held_out}, "the validation section of the data list"
    if folds := listed_folds(cases):
        first = min(folds)
        return folds[first], f"fold {first} of {len(folds)} of the data list"
    return None


def listed_folds(cases: Sequence[Case]) -> Folds | None:
    """Return the folds of the data list, without its validation section; None if it has none.

    Raises:
        InputError: A fold holds all cases.
    """
    numbers = {case.case_id: case.fold for case in cases if not case.held_out}
    return folds_of(numbers, "the data list") or None


def _named(cases: Sequence[Case], names: SplitNames, rule: str) -> Split:
    known = {case.case_id: case for case in cases}
    train, val = (tuple(known[name] for name in dict.fromkeys(names[p])) for p in ("train", "val"))
    return Split(train, val, rule)
