"""Case dataset and loader of MONAI's evaluator: one source and its prompts per batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from samonai.domains.base import Case, Domain, LabelFacts, SourceT
from samonai.domains.capabilities import capabilities
from samonai.inference.frame_outputs import Automatic, CasePrompts
from samonai.inference.prompting.from_file import FilePrompts

PromptSource = Callable[[Domain[SourceT], Case, SourceT], CasePrompts]
"""Function to the prompts of a case, given its domain and its source."""


class CaseItem(NamedTuple, Generic[SourceT]):
    """A case that was read.

    Attributes:
        case: Its name and path.
        source: The source, with its label if it has one.
        prompts: Prompts by frame index, or `Automatic`.
        classes: Label value to name, of the classes that the prompts name; None: the decoder's.
    """

    case: Case
    source: SourceT
    prompts: CasePrompts
    classes: Mapping[int, str] | None = None

    def facts(self, of_decoder: LabelFacts) -> LabelFacts:
        """Return the metadata of the predicted label map, with the classes of the prompts."""
        return of_decoder if not self.classes else replace(of_decoder, classes=self.classes)


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
    classes = prompts.classes(domain, case) if isinstance(prompts, FilePrompts) else None
    if crop is None:
        return CaseItem(case, source, prompts(domain, case, source), classes)
    # Prompts are given for whole frames, before a crop.
    asked = prompts(domain, case, crop.all_frames(source))
    if isinstance(asked, Automatic):
        return CaseItem(case, crop.frames_around_prompts(source, None)[0], asked)
    return CaseItem(case, *crop.frames_around_prompts(source, asked), classes)


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
