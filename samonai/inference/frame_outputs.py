"""Requests and outputs of inference: the types shared by the inferer and its parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.errors import InputError
from samonai.core.frame import Frame
from samonai.domains.base import SourceT
from samonai.inference.automatic.masks import Instance
from samonai.prompts.frame_prompts import FramePrompts
from samonai.sam.network import DecodeOutput, SamNetwork

Scores = Callable[[Frame, FramePrompts], torch.Tensor]
ClassLogits = Callable[[Frame], torch.Tensor]
FindObjects = Callable[[SourceT, Frame], list[Instance]]
"""Function to the objects on a frame of a source, best first."""


class Finding(Protocol):
    """Way of finding objects without prompts; see `ObjectFinding`."""

    def __call__(
        self, inferer: Any, networks: Sequence[SamNetwork], classes: tuple[int, ...] | None
    ) -> FindObjects[Any] | None:
        """Return the function that finds them, given the inferer, its networks and the classes.

        None if only the class of each pixel is predicted.
        """
        ...


@dataclass(frozen=True)
class Automatic:
    """Request without prompts: the semantic head labels all frames, or objects are found.

    Attributes:
        classes: Label values that are kept, the others become background; None keeps all.
        finding: Way of finding single objects; None: the class map only.
    """

    classes: tuple[int, ...] | None = None
    finding: Finding | None = None

    def find(self, inferer: Any, networks: Sequence[SamNetwork]) -> FindObjects[Any] | None:
        """Return the function that finds single objects; None for the class map only."""
        return None if self.finding is None else self.finding(inferer, networks, self.classes)


CasePrompts = Mapping[int, FramePrompts] | Automatic
"""Request for a source: prompts by frame index, or the semantic head."""


class FrameOutput(NamedTuple):
    """Outputs of K networks for the N prompts of one frame.

    Attributes:
        scores: float32 (K, N, H, W), frame space, on the CPU. Their mean over the networks makes
            the label map: the highest wins, and 0 and below is background.
        logits: float32 (K, N, H, W), whose sigmoid is the probability of the object. The scores
            themselves for prompts; for the semantic head the log-odds of each class.
        iou: float32 (K, N), each network's own estimate of its mask's IoU; None for the semantic
            head, which has none.
    """

    scores: torch.Tensor
    logits: torch.Tensor
    iou: torch.Tensor | None = None


DecodeFrame = Callable[[Frame, FramePrompts], FrameOutput]
"""Function to the outputs of each network for a frame's prompts."""


class FrameObserver(Protocol):
    """Gets the outputs of every network for a frame, before they are averaged and merged."""

    def observe(self, frame: Frame, prompts: FramePrompts, output: FrameOutput) -> None:
        """Collect one prompted frame."""
        ...


def observed(decode: DecodeFrame, observers: Sequence[FrameObserver]) -> Scores:
    """Return the networks' average as scores, and pass each network's outputs to observers."""

    def scores(frame: Frame, prompts: FramePrompts) -> torch.Tensor:
        outputs = decode(frame, prompts)
        for observer in observers:
            observer.observe(frame, prompts, outputs)
        return outputs.scores.mean(0)

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
    """Return whether a network's semantic head has borders."""
    return network.semantic_head is not None and network.semantic_head.borders


def asked_classes(
    values: Sequence[int], keep: Sequence[int] | None
) -> tuple[npt.NDArray[np.bool_], FramePrompts]:
    """Return which channels are requested, and prompts without a box that represent them."""
    kept = np.array([value != 0 and (keep is None or value in keep) for value in values])
    classes = np.array(values, np.int64)[kept]
    return kept, FramePrompts(np.full((len(classes), 4), np.nan, np.float32), classes)


def mean_output(said: Sequence[DecodeOutput]) -> DecodeOutput:
    """Return the average of networks' outputs for the same prompts."""
    if len(said) == 1:
        return said[0]
    return DecodeOutput(*(torch.stack(parts).mean(0) for parts in zip(*said, strict=True)))
