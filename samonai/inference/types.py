"""What a source is asked and what networks answer: the types that the inferer and others share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.errors import InputError
from samonai.core.frame import Frame
from samonai.inference.automatic.masks import Instance
from samonai.prompts.types import FramePrompts
from samonai.sam.network import DecodeOutput, SamNetwork

Scores = Callable[[Frame, FramePrompts], torch.Tensor]
ClassLogits = Callable[[Frame], torch.Tensor]
FindObjects = Callable[[Any, Frame], list[Instance]]
"""Gives the objects on a frame of a source, best first."""


class Finding(Protocol):
    """How objects are found without prompts; see `ObjectFinding`."""

    def __call__(
        self, inferer: Any, networks: Sequence[SamNetwork], classes: tuple[int, ...] | None
    ) -> FindObjects | None:
        """Return what finds them, given the inferer, its networks and the classes wanted.

        None where the class of each pixel is all that can be told.
        """
        ...


@dataclass(frozen=True)
class Automatic:
    """No prompts: the semantic head labels every frame of a source, or objects are looked for.

    Attributes:
        classes: Label values that are kept, the others become background; None keeps all.
        finding: How objects are found one by one; None: the class of each pixel is all.
    """

    classes: tuple[int, ...] | None = None
    finding: Finding | None = None

    def find(self, inferer: Any, networks: Sequence[SamNetwork]) -> FindObjects | None:
        """Return what finds objects one by one; None where the class of each pixel is all."""
        return None if self.finding is None else self.finding(inferer, networks, self.classes)


CasePrompts = Mapping[int, FramePrompts] | Automatic
"""What a source is asked: prompts by frame index, or the semantic head."""


class FrameAnswer(NamedTuple):
    """What K networks say to the N prompts of one frame.

    Attributes:
        scores: float32 (K, N, H, W), frame space, on the CPU. Their mean over the networks makes
            the label map: the highest wins, and 0 and below is background.
        logits: float32 (K, N, H, W), whose sigmoid is the probability of the object. The scores
            themselves for prompts; for the semantic head the log-odds of each class.
        iou: float32 (K, N), each network's own estimate of its mask's IoU; None for the semantic
            head, which makes none.
    """

    scores: torch.Tensor
    logits: torch.Tensor
    iou: torch.Tensor | None = None


Answers = Callable[[Frame, FramePrompts], FrameAnswer]
"""Gives what each network says to a frame's prompts."""


class FrameObserver(Protocol):
    """Sees what every network said to a frame, before it is averaged and merged."""

    def observe(self, frame: Frame, prompts: FramePrompts, answer: FrameAnswer) -> None:
        """Take note of one prompted frame."""
        ...


def observed(answers: Answers, observers: Sequence[FrameObserver]) -> Scores:
    """Return the networks' average as scores, and let observers see what each network said."""

    def scores(frame: Frame, prompts: FramePrompts) -> torch.Tensor:
        said = answers(frame, prompts)
        for observer in observers:
            observer.observe(frame, prompts, said)
        return said.scores.mean(0)

    return scores


def class_values(network: SamNetwork) -> tuple[int, ...]:
    """Return the label value of each channel of a network's class logits, background's 0 first.

    Raises:
        InputError: The network has no semantic head.
    """
    if network.semantic_head is None:
        raise InputError(
            "without prompts a semantic head is needed, and this model has none; train with "
            "--heads semantic or --heads both, or give prompts"
        )
    return network.semantic_head.values


def tells_borders(network: SamNetwork) -> bool:
    """Return whether a network's semantic head says where objects end."""
    return network.semantic_head is not None and network.semantic_head.borders


def asked_classes(
    values: Sequence[int], keep: Sequence[int] | None
) -> tuple[npt.NDArray[np.bool_], FramePrompts]:
    """Return which channels are asked for, and prompts without a box that stand for them."""
    kept = np.array([value != 0 and (keep is None or value in keep) for value in values])
    classes = np.array(values, np.int64)[kept]
    return kept, FramePrompts(np.full((len(classes), 4), np.nan, np.float32), classes)


def mean_output(said: Sequence[DecodeOutput]) -> DecodeOutput:
    """Return what networks say to the same prompts on average."""
    if len(said) == 1:
        return said[0]
    return DecodeOutput(*(torch.stack(parts).mean(0) for parts in zip(*said, strict=True)))
