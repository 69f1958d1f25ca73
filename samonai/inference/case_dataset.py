"""Case dataset and loader of MONAI's evaluator: one source and its prompts per batch."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from samonai.domains.base import Case, Domain, SourceT
from samonai.domains.capabilities import capabilities
from samonai.inference.frame_outputs import Automatic, CasePrompts

PromptSource = Callable[[Domain[SourceT], Case, SourceT], CasePrompts]
"""Function to the prompts of a case, given its domain and its source."""


class CaseItem(NamedTuple, Generic[SourceT]):
    """A case that was read.

    Attributes:
        case: Its name and path.
        source: The source, with its label if it has one.
        prompts: Prompts by frame index, or `Automatic`.
    """

    case: Case
    source: SourceT
    prompts: CasePrompts


class CaseDataset(Dataset[CaseItem[SourceT]], Generic[SourceT]):
    """Dataset of cases, read on access.

    Args:
        domain: Reads them.
        cases: The cases.
        prompts: Function to a case's prompts, once it is read.
    """

    def __init__(
        self, domain: Domain[SourceT], cases: Sequence[Case], prompts: PromptSource[SourceT]
    ) -> None:
        """Keep the domain and the cases."""
        self.domain, self.cases, self.prompts = domain, list(cases), prompts

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.cases)

    def __getitem__(self, number: int) -> CaseItem[SourceT]:
        """Read one case."""
        case = self.cases[number]
        return prompted(self.domain, case, self.domain.read(case), self.prompts)


def prompted(
    domain: Domain[SourceT], case: Case, source: SourceT, prompts: PromptSource[SourceT]
) -> CaseItem[SourceT]:
    """Return a read case with its prompts, on frames cropped to them if the domain does so.

    Args:
        domain: The domain that read the source.
        case: Its name and path.
        source: The source.
        prompts: Function to the case's prompts.
    """
    crop = capabilities(domain).crop
    if crop is None:
        return CaseItem(case, source, prompts(domain, case, source))
    # Prompts are given for whole frames, before a crop.
    asked = prompts(domain, case, crop.all_frames(source))
    if isinstance(asked, Automatic):
        return CaseItem(case, crop.frames_around_prompts(source, None)[0], asked)
    return CaseItem(case, *crop.frames_around_prompts(source, asked))


def case_loader(
    dataset: CaseDataset[SourceT], rank: int = 0, world_size: int = 1
) -> DataLoader[CaseItem[SourceT]]:
    """Make a loader of one case per batch; each process takes every `world_size`-th case."""
    numbers = list(range(rank, len(dataset), world_size))
    return DataLoader(dataset, batch_size=None, sampler=numbers, num_workers=0)


def prepare_case(
    item: CaseItem[SourceT],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_unused: Any,
) -> tuple[SourceT, Any, tuple[()], dict[str, Any]]:
    """Pass a case to MONAI's evaluator: source, label, no args, prompts.

    Sources stay in main memory; frames move to the device one by one.
    """
    return item.source, item.source.label, (), {"prompts": item.prompts}
