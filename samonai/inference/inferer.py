"""SourceInferer: from prompts on frames to one label map on the source's own grid."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.frame import Frame
from samonai.domains.base import Domain, SourceT
from samonai.domains.tiling.frames import label_from_scores
from samonai.embeddings.prefetch import prefetch
from samonai.inference.automatic.masks import asked_of
from samonai.inference.frame_decoder import FrameDecoder
from samonai.inference.frame_outputs import (
    Automatic,
    CasePrompts,
    ClassLogits,
    FindObjects,
    FrameObserver,
    FrameOutput,
    Scores,
    asked_classes,
    class_values,
    observed,
)
from samonai.prompts.frame_prompts import FramePrompts
from samonai.sam.network import SamNetwork

if TYPE_CHECKING:
    from samonai.embeddings.embedder import AnyStore

logger = logging.getLogger(__name__)

_SMALLEST_PROBABILITY = 1e-7
_FRAMES_AHEAD = 2  # read and cut while one is encoded

__all__ = [
    "Automatic",
    "CasePrompts",
    "ClassLogits",
    "FrameObserver",
    "FrameOutput",
    "FramePrompts",
    "Scores",
    "SourceInferer",
    "class_values",
    "label_from_scores",
]


class SourceInferer(FrameDecoder[SourceT]):
    """Decodes the frames of a source, prompted or not, and merges them into one label map.

    It has the interface of MONAI's `Inferer`, with the source, the network and the prompts.

    The domain's merger blends overlapping frames. A few frames are in memory at a time, beside the
    source and its label map: memory does not grow with their number. The next ones are cut in a
    thread while one is encoded and decoded. With members, each frame is encoded once, every network
    decodes it, and their logits are averaged.

    Args:
        domain: Cuts frames and merges their labels.
        store: Embeddings are read from here and added; None: nothing is stored.
        precision: Precision of the encoder where an embedding is not in the store.
        prompts_at_once: Prompts decoded together; bounds memory on crowded frames.
        members: Further networks on the same encoder, such as forks with other decoders.
        observers: Get each network's outputs; None among them is left out.
        tta: Number of test-time augmentations, 1, 2, 4 or 8, see `orientations_of`. Logits are
            averaged, at that many times the encoding.

    Attributes:
        progress: Called with the share of a source's prompts that has been answered, 0..1.
    """

    def __init__(
        self,
        domain: Domain[SourceT],
        store: "AnyStore | Path | str | None" = None,
        precision: str = "auto",
        prompts_at_once: int = 16,
        members: Sequence[SamNetwork] | None = None,
        observers: Sequence[FrameObserver | None] = (),
        tta: int = 1,
    ) -> None:
        """Keep the domain, the limits, the members and the observers."""
        super().__init__(domain, store, precision, prompts_at_once, tta)
        self.members = list(members or ())
        self.observers = [observer for observer in observers if observer is not None]
        self.progress: Callable[[float], object] = _unseen

    def __call__(
        self,
        inputs: SourceT,
        network: SamNetwork,
        prompts: CasePrompts | None = None,
        *,
        alone: bool = False,
        observers: Sequence[FrameObserver] | None = None,
    ) -> Any:
        """Predict a source's label map.

        Args:
            inputs: The source, as read by the domain.
            network: Encodes frames that are not in the store, and decodes.
            prompts: Prompts by frame index, other frames stay background; or `Automatic`, the
                meaning of None.
            alone: Leave out members and observers: this network's own output.
            observers: In place of the inferer's own.

        Returns:
            The label map on the source's grid, from the domain's merger.

        Raises:
            InputError: There are no prompts, and the network has no semantic head.
        """
        network = getattr(network, "module", network)
        prompts = Automatic() if prompts is None else prompts
        networks = [network] if alone else [network, *self.members]
        watching = self._watching(observers, alone=alone)

        if isinstance(prompts, Automatic):
            find = prompts.find(self, networks)
            if find is not None:
                return self.merge_objects(inputs, find)
            return self._merge_automatic(inputs, networks, prompts, watching)

        return self.merge_outputs(inputs, networks, prompts, watching)

    def _watching(
        self, observers: Sequence[FrameObserver] | None, *, alone: bool
    ) -> Sequence[FrameObserver]:
        """Return the observers of one call."""
        if alone:
            return []
        return self.observers if observers is None else observers

    def merge_classes(
        self,
        source: SourceT,
        logits: ClassLogits,
        values: Sequence[int],
        keep: Sequence[int] | None = None,
    ) -> Any:
        """Label every frame by its likeliest class, and let the domain merge the frames.

        Blank frames (see `Frame.is_blank`) are background, and are neither encoded nor decoded.

        The score of each class for the merger is the difference of its logit from background's.
        That is linear in the logits, so a merger that averages scores averages logits.

        Args:
            source: The source.
            logits: Function to a frame's (K + 1, H, W) class logits.
            values: Label value of each channel, background's 0 first.
            keep: Label values that are kept, the other classes count as background; None keeps
                all.

        Returns:
            The result of the domain's merger; for volumes the label map.
        """
        merger = self.domain.merger(source)
        kept, asked = asked_classes(values, keep)
        for frame in self._frames_with_something(source):
            found = logits(frame).numpy()
            merger.add(frame, found[kept] - found[~kept].max(0), asked)
        return merger.finish()

    def merge_objects(self, source: SourceT, find: FindObjects[SourceT]) -> Any:
        """Find the objects of every frame one by one, and let the domain merge the frames.

        Blank frames have none. An object that several frames show has `UNKNOWN_ID` on each: a
        merger whose frames overlap makes one object of it.

        Args:
            source: The source.
            find: Function to the objects of a frame.

        Returns:
            The result of the domain's merger; for volumes the label map.
        """
        merger = self.domain.merger(source)
        for frame in self._frames_with_something(source):
            found = find(source, frame)
            for start in range(0, len(found), self.prompts_at_once):
                few = found[start : start + self.prompts_at_once]
                scores = np.stack([one.scores(frame.size) for one in few])
                merger.add(frame, scores, *asked_of(few))
        return merger.finish()

    def _frames_with_something(self, source: SourceT) -> Iterator[Frame]:
        """Yield the frames that are not blank."""
        blank, count = 0, self.domain.frame_count(source)
        for frame in self._frames(source, range(count)):
            if frame.is_blank:
                blank += 1
            else:
                yield frame
        if blank:
            logger.info("%s: %d of %d frames are blank, background", source.source_id, blank, count)

    def _merge_automatic(
        self,
        source: SourceT,
        networks: Sequence[SamNetwork],
        prompts: Automatic,
        observers: Sequence[FrameObserver],
    ) -> Any:
        """Average the networks' class logits, pass them to observers, and merge."""
        values = class_values(networks[0])
        kept, asked = asked_classes(values, prompts.classes)

        def logits(frame: Frame) -> torch.Tensor:
            said = self.class_logits(source, networks, frame)
            for observer in observers:
                observer.observe(frame, asked, class_output(said, kept))
            return said.mean(0)

        return self.merge_classes(source, logits, values, keep=prompts.classes)

    def merge(self, source: SourceT, prompts: Mapping[int, FramePrompts], scores: Scores) -> Any:
        """Score the prompted frames in order, and let the domain merge them.

        Args:
            source: The source.
            prompts: Prompts by frame index.
            scores: Function to (N, H, W) scores of a frame's prompts; 0 and below is background.

        Returns:
            The result of the domain's merger; for volumes the label map.
        """
        merger = self.domain.merger(source)
        for frame in self._frames(source, [i for i in sorted(prompts) if len(prompts[i])]):
            asked = prompts[frame.location.index]
            merger.add(frame, scores(frame, asked).numpy(), asked)
        return merger.finish()

    def merge_outputs(
        self,
        source: SourceT,
        networks: Sequence[SamNetwork],
        prompts: Mapping[int, FramePrompts],
        observers: Sequence[FrameObserver],
    ) -> Any:
        """Let networks answer the prompted frames in order, and the domain merge what they say.

        Where one network answers and nobody else wants to know, memory stays flat in the number
        of a frame's prompts, if the merger takes them in parts.

        Args:
            source: The source.
            networks: One, or several on one encoder.
            prompts: Prompts by frame index.
            observers: See what each network said.

        Returns:
            What the domain's merger makes of it; for volumes the label map.
        """
        merger = self.domain.merger(source)
        alone = not observers and len(networks) == len(self.orientations) == 1
        if not (alone and getattr(merger, "positive_scores_in_parts", False)):
            decode = self.frame_outputs(source, networks, each=bool(observers))
            return SourceInferer.merge(self, source, prompts, observed(decode, observers))
        done, total = 0, sum(map(len, prompts.values()))
        for frame in self._frames(source, [i for i in sorted(prompts) if len(prompts[i])]):
            asked = prompts[frame.location.index]
            for some, scores in self.positive_scores(source, networks[0], frame, asked):
                merger.add(frame, scores.numpy(), some)
                done += len(some)
                self.progress(done / total)
        return merger.finish()

    def _frames(self, source: SourceT, indices: Iterable[int]) -> Iterator[Frame]:
        """Yield frames, while the next ones are cut in a thread."""
        cut = (self.domain.frame(source, index) for index in indices)
        with closing(prefetch(cut, _FRAMES_AHEAD)) as frames:
            yield from frames


def class_output(said: torch.Tensor, kept: npt.NDArray[np.bool_]) -> FrameOutput:
    """Return class logits as outputs of each class: its lead over the others, and its log-odds.

    Args:
        said: float32 (N, K + 1, H, W), of N networks.
        kept: bool (K + 1,), the channels of classes.
    """
    rows = torch.from_numpy(kept)
    scores = said[:, rows] - said[:, ~rows].amax(1, keepdim=True)
    return FrameOutput(scores, torch.logit(said.softmax(1)[:, rows], eps=_SMALLEST_PROBABILITY))


def _unseen(share: float) -> None:
    """Let progress go unseen."""
