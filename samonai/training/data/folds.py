"""K-fold splits: every case is held out once, and cases of one patient stay in one fold."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from samonai.core.errors import InputError
from samonai.core.files import as_path
from samonai.core.settings import check_given
from samonai.settings.training import DataSettings

SplitNames = dict[str, list[str]]
"""{"train": [case, …], "val": [case, …]}, the content of a split file."""


def read_groups(path: Path | str) -> dict[str, str]:
    """Read the patient of each case.

    Args:
        path: JSON `{"case": "patient", …}`, or the inverse `{"patient": ["case", …], …}`.

    Returns:
        Case to group.

    Raises:
        InputError: The file cannot be read, has neither form, or puts a case into two groups.
    """
    path = as_path(path, "groups")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"the groups file {path} does not exist") from error
    except (OSError, ValueError) as error:
        raise InputError(f"the groups file {path} is not JSON: {error}") from error
    if isinstance(content, dict) and content:
        if all(isinstance(value, str | int) for value in content.values()):
            return {case: str(group) for case, group in content.items()}
        if all(_is_names(value) for value in content.values()):
            pairs = [(case, group) for group, cases in content.items() for case in cases]
            twice = [
                case for case, count in Counter(case for case, _ in pairs).items() if count > 1
            ]
            if twice:
                raise InputError(f"the groups file {path} puts case {twice[0]!r} into two groups")
            return dict(pairs)
    raise InputError(
        f'the groups file {path} must read {{"case": "patient", …}} or '
        f'{{"patient": ["case", …], …}}'
    )


def group_cases(cases: Sequence[str], groups: Mapping[str, str] | None) -> list[list[str]]:
    """Group the cases by patient.

    Args:
        cases: Case names.
        groups: Case to group; None: each case is a group of its own.

    Returns:
        The groups, sorted by their first case.

    Raises:
        InputError: A case is in no group.
    """
    if groups is None:
        return [[case] for case in sorted(cases)]
    if missing := sorted(set(cases) - set(groups)):
        raise InputError(
            f"{len(missing)} of {len(cases)} cases are in no group, such as {missing[0]!r}; name "
            f"every case in the groups file"
        )
    together: dict[str, list[str]] = {}
    for case in sorted(cases):
        together.setdefault(groups[case], []).append(case)
    return sorted(together.values())


def fold_splits(
    cases: Sequence[str], folds: int, groups: Mapping[str, str] | None = None, seed: int = 0
) -> list[SplitNames]:
    """Distribute the groups over folds with about equal numbers of cases.

    Args:
        cases: Case names.
        folds: Number of folds.
        groups: Case to patient; None: each case is a patient.
        seed: Seed of the distribution.

    Raises:
        InputError: Fewer than two folds, or more folds than groups.
    """
    grouped = group_cases(cases, groups)
    if not 2 <= folds <= len(grouped):
        raise InputError(
            f"{folds} folds of {len(grouped)} {'cases' if groups is None else 'groups'}: the "
            f"number of folds is from 2 to that of the {'cases' if groups is None else 'groups'}"
        )
    held_out = _distribute(grouped, folds, seed)
    return [{"train": sorted(set(cases) - set(part)), "val": sorted(part)} for part in held_out]


def grouped_split(
    cases: Sequence[str], val_fraction: float, groups: Mapping[str, str], seed: int = 0
) -> SplitNames:
    """Hold out whole groups, until about `val_fraction` of the cases are held out.

    Raises:
        InputError: Fewer than two groups, or a fraction out of range.
    """
    check_given(DataSettings, {"val_fraction": val_fraction})
    grouped = group_cases(cases, groups)
    if len(grouped) < 2:
        raise InputError("all cases are in one group; training needs two, one of them held out")
    order = np.random.default_rng(seed).permutation(len(grouped))
    val: list[str] = []
    for number in order[:-1]:
        if val and len(val) + len(grouped[number]) > val_fraction * len(cases):
            continue
        val += grouped[number]
    return {"train": sorted(set(cases) - set(val)), "val": sorted(val)}


def _distribute(grouped: Sequence[list[str]], folds: int, seed: int) -> list[list[str]]:
    """Distribute the groups, the largest first, each to the fold with the fewest cases."""
    order = np.random.default_rng(seed).permutation(len(grouped)).tolist()
    order.sort(key=lambda number: -len(grouped[number]))  # stable, so equal sizes stay shuffled
    parts: list[list[str]] = [[] for _ in range(folds)]
    for number in order:
        min(parts, key=len).extend(grouped[number])
    return parts


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
