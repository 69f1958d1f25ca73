"""Whole cases for MONAI's evaluator: one source and its prompts per batch."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from samonai.domains.base import Case, Domain
from samonai.domains.capabilities import capabilities
from samonai.inference.types import Automatic, CasePrompts

PromptSource = Callable[[Domain[Any], Case, Any], CasePrompts]


class CaseItem(NamedTuple):
    """One case, read.

    Attributes:
        case: What and where it is.
        source: The source, with its label when it has one.
        prompts: Prompts by frame index, or `Automatic`.
    """

    case: Case
    source: Any
    prompts: CasePrompts


class CaseDataset(Dataset[CaseItem]):
    """Cases that are read when asked for.

    Args:
        domain: Reads them.
        cases: The cases.
        prompts: Gives a case's prompts once it is read.
    """

    def __init__(self, domain: Domain[Any], cases: Sequence[Case], prompts: PromptSource) -> None:
        """Keep what is needed for reading."""
        self.domain, self.cases, self.prompts = domain, list(cases), prompts

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.cases)

    def __getitem__(self, number: int) -> CaseItem:
        """Read one case."""
        case = self.cases[number]
        return prompted(self.domain, case, self.domain.read(case), self.prompts)


def prompted(domain: Domain[Any], case: Case, source: Any, prompts: PromptSource) -> CaseItem:
    """Return a case that was read, with its prompts on frames that show what is asked.

    Args:
        domain: Has read the source.
        case: What and where it is.
        source: The source.
        prompts: Gives the case's prompts.
    """
    crop = capabilities(domain).crop
    if crop is None:
        return CaseItem(case, source, prompts(domain, case, source))
    # Whoever gives prompts does not know what frames will show.
    asked = prompts(domain, case, crop.whole(source))
    if isinstance(asked, Automatic):
        return CaseItem(case, crop.focus(source, None)[0], asked)
    return CaseItem(case, *crop.focus(source, asked))


def case_loader(dataset: CaseDataset, rank: int = 0, world_size: int = 1) -> DataLoader[CaseItem]:
    """Make a loader of one case per batch; each process takes every `world_size`-th case."""
    numbers = list(range(rank, len(dataset), world_size))
    return DataLoader(dataset, batch_size=None, sampler=numbers, num_workers=0)


def prepare_case(
    item: CaseItem,
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_unused: Any,
) -> tuple[Any, Any, tuple[()], dict[str, Any]]:
    """Hand a case to MONAI's evaluator: source, label, no args, prompts.

    Sources stay in main memory; frames move to the device one by one.
    """
    return item.source, getattr(item.source, "label", None), (), {"prompts": item.prompts}
