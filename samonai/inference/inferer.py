"""From prompts on frames to one label map on the source's own grid."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer

from samonai.domains.base import Domain
from samonai.domains.merging import label_from_scores
from samonai.embeddings.encode import Embedder
from samonai.embeddings.prefetch import prefetch
from samonai.embeddings.store import EmbeddingStore
from samonai.frame import Frame
from samonai.geometry import FrameGeometry
from samonai.inference.answers import (
    Answers,
    Automatic,
    CasePrompts,
    ClassLogits,
    FindObjects,
    FrameAnswer,
    FrameObserver,
    Scores,
    asked_classes,
    class_values,
    mean_output,
    observed,
)
from samonai.inference.baselines import box_scores
from samonai.inference.masks import asked_of
from samonai.prompts import FramePrompts, Prompts
from samonai.sam.network import DecodeOutput, SamNetwork

logger = logging.getLogger(__name__)

_SMALLEST_PROBABILITY = 1e-7
_FRAMES_AHEAD = 2  # read and cut while one is encoded

__all__ = [
    "Automatic",
    "CasePrompts",
    "ClassLogits",
    "FrameAnswer",
    "FrameObserver",
    "FramePrompts",
    "Scores",
    "SourceInferer",
    "box_scores",
    "class_values",
    "label_from_scores",
]


class SourceInferer(Inferer):
    """Decodes the frames of a source, prompted or not, and merges them into one label map.

    It alone decodes frames; what blends overlapping ones is the domain's merger. A few frames are
    in memory at a time, beside the source and its label map: memory stays flat in their number.
    The next ones are cut in a thread while one is encoded and decoded. With members, each frame is
    encoded once, every network decodes it, and their logits are averaged.

    Args:
        domain: Cuts frames and merges their labels.
        store: Embeddings are read from here and added; None: encode, keep nothing.
        precision: Precision of the encoder where an embedding is not in the store.
        prompts_at_once: Prompts decoded together; bounds memory on crowded frames.
        members: Further networks on the same encoder, such as forks with other decoders.
        observers: See what each network said; None among them is left out.
    """

    def __init__(
        self,
        domain: Domain,
        store: EmbeddingStore | Path | str | None = None,
        precision: str = "auto",
        prompts_at_once: int = 16,
        members: Sequence[SamNetwork] | None = None,
        observers: Sequence[FrameObserver | None] = (),
    ) -> None:
        """Keep the domain, the limits, and who else takes part."""
        super().__init__()
        self.domain = domain
        self.store = EmbeddingStore(store) if isinstance(store, Path | str) else store
        self.precision = precision
        self.prompts_at_once = prompts_at_once
        self.members = list(members or ())
        self.observers = [observer for observer in observers if observer is not None]
        self._embedder: tuple[torch.nn.Module, Embedder] | None = None

    def __call__(
        self,
        inputs: Any,
        network: SamNetwork,
        prompts: CasePrompts | None = None,
        *,
        alone: bool = False,
    ) -> Any:
        """Predict a source's label map.

        Args:
            inputs: The source, as the domain reads it.
            network: Encodes what is not in the store, and decodes.
            prompts: Prompts by frame index, other frames stay background; or `Automatic`, which
                None stands for.
            alone: Leave out members and observers: this network's own opinion.

        Returns:
            The label map on the source's grid, as the domain's merger gives it.

        Raises:
            InputError: There are no prompts, and the network has no semantic head.
        """
        network = getattr(network, "module", network)
        prompts = Automatic() if prompts is None else prompts
        networks = [network] if alone else [network, *self.members]
        observers = [] if alone else self.observers

        if isinstance(prompts, Automatic):
            find = prompts.find(self, networks)
            if find is not None:
                return self.merge_objects(inputs, find)
            return self._merge_automatic(inputs, networks, prompts, observers)

        answers = self.answers(inputs, networks, each=bool(observers))
        return self.merge(inputs, prompts, observed(answers, observers))

    def answers(self, source: Any, networks: Sequence[SamNetwork], *, each: bool) -> Answers:
        """Return what answers the prompts of a source's frames.

        Args:
            source: The source.
            networks: One, or several on one encoder.
            each: Answer for each network, else for their average alone, which is quicker.
        """

        def answer(frame: Frame, prompts: FramePrompts) -> FrameAnswer:
            embedding = self.embed(source, frame, networks[0])
            if each:
                return self.answer(networks, embedding, prompts, frame.size)
            logits = self.logits(networks, embedding, prompts, frame.size)[None]
            return FrameAnswer(logits, logits)

        return answer

    @torch.no_grad()
    def logits(
        self,
        networks: SamNetwork | Sequence[SamNetwork],
        embedding: torch.Tensor,
        prompts: FramePrompts,
        size: tuple[int, int],
    ) -> torch.Tensor:
        """Return float32 (N, H, W): each prompt's logits in frame space, on the CPU.

        Args:
            networks: One, or several whose logits are averaged. Resizing is linear, so the
                average is taken first, and costs one resize however many there are.
            embedding: float (C, h, w).
            prompts: N prompts.
            size: (H, W) of the frame.
        """
        several = [networks] if isinstance(networks, SamNetwork) else networks
        geometry = FrameGeometry(size, several[0].long_side)
        model = prompts.to_model(geometry)
        parts = [
            geometry.logits_to_frame(self.low_res(several, embedding, model[part]).low_res_logits)
            for part in torch.arange(len(prompts)).split(self.prompts_at_once)
        ]
        return torch.cat(parts)[:, 0].float().cpu()

    @torch.no_grad()
    def low_res(
        self, networks: Sequence[SamNetwork], embedding: torch.Tensor, prompts: Prompts
    ) -> DecodeOutput:
        """Return what the networks say on average to prompts in model space, all at once.

        Args:
            networks: One, or several on one encoder.
            embedding: float (C, h, w).
            prompts: N prompts on image 0.
        """
        return mean_output([network.answer(embedding[None], prompts) for network in networks])

    @torch.no_grad()
    def each_low_res(
        self, networks: Sequence[SamNetwork], embedding: torch.Tensor, prompts: Prompts
    ) -> DecodeOutput:
        """Return what each of K networks says, as `low_res` does with their number K in front."""
        said = [network.answer(embedding[None], prompts) for network in networks]
        return DecodeOutput(*(torch.stack(parts) for parts in zip(*said, strict=True)))

    def embed(self, source: Any, frame: Frame, network: SamNetwork) -> torch.Tensor:
        """Return float32 (C, h, w): a frame's embedding, from the store where it is there.

        Networks on one encoder (forks, an ensemble) get the same one, encoded once where there is
        a store.
        """
        return self._embedder_of(network)(source, [frame])[0]

    def class_logits(
        self, network: SamNetwork, embedding: torch.Tensor, frame: Frame
    ) -> torch.Tensor:
        """Return float32 (K + 1, H, W): the semantic head's logits in frame space, on the CPU.

        Channels are in the order of `class_values(network)`, background first; their softmax are
        probabilities. Several networks' answers may be averaged.

        Args:
            network: Has a semantic head.
            embedding: float (C, h, w), as `embed` returns it.
            frame: Only its size matters.

        Raises:
            InputError: The network has no semantic head.
        """
        return self.frame_classes([network], embedding, frame)[0]

    @torch.no_grad()
    def frame_classes(
        self, networks: Sequence[SamNetwork], embedding: torch.Tensor, frame: Frame
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return what semantic heads say of a frame on average, in frame space, on the CPU.

        Args:
            networks: One, or several on one encoder.
            embedding: The frame's.
            frame: The frame.

        Returns:
            As `class_logits`; and float32 (H, W), the logit of being near an object's border, of
            the networks that learned it, None where none did.
        """
        said = [network.decode_frames(embedding[None]) for network in networks]
        borders = [one.border_logits for one in said if one.border_logits is not None]
        low_res = torch.stack([one.class_logits[0] for one in said]).mean(0)
        if borders:
            low_res = torch.cat([low_res, torch.stack(borders).mean(0)])
        geometry = FrameGeometry(frame.size, networks[0].long_side)
        found = geometry.logits_to_frame(low_res[:, None].float())[:, 0].cpu()
        return (found[:-1], found[-1]) if borders else (found, None)

    def merge_classes(
        self,
        source: Any,
        logits: ClassLogits,
        values: Sequence[int],
        keep: Sequence[int] | None = None,
    ) -> Any:
        """Label every frame by its likeliest class, and let the domain merge the frames.

        Blank frames (see `Frame.is_blank`) are background, and are neither encoded nor decoded.

        The merger gets, as the score of each class, by how much its logit exceeds background's.
        That is linear in the logits, so a merger that averages scores averages logits.

        Args:
            source: The source.
            logits: Gives a frame's (K + 1, H, W) class logits.
            values: Label value of each channel, background's 0 first.
            keep: Label values that are kept, the other classes count as background; None keeps
                all.

        Returns:
            What the domain's merger makes of it; for volumes the label map.
        """
        merger = self.domain.merger(source)
        kept, asked = asked_classes(values, keep)
        for frame in self._frames_with_something(source):
            found = logits(frame).numpy()
            merger.add(frame, found[kept] - found[~kept].max(0), asked)
        return merger.finish()

    def merge_objects(self, source: Any, find: FindObjects) -> Any:
        """Find the objects of every frame one by one, and let the domain merge the frames.

        Blank frames have none. An object that several frames show has `UNKNOWN_ID` on each: a
        merger whose frames overlap makes one object of it.

        Args:
            source: The source.
            find: Gives the objects of a frame.

        Returns:
            What the domain's merger makes of them; for volumes the label map.
        """
        merger = self.domain.merger(source)
        for frame in self._frames_with_something(source):
            found = find(source, frame)
            for start in range(0, len(found), self.prompts_at_once):
                few = found[start : start + self.prompts_at_once]
                scores = np.stack([one.scores(frame.size) for one in few])
                merger.add(frame, scores, *asked_of(few))
        return merger.finish()

    def _frames_with_something(self, source: Any) -> Iterator[Frame]:
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
        source: Any,
        networks: Sequence[SamNetwork],
        prompts: Automatic,
        observers: Sequence[FrameObserver],
    ) -> Any:
        """Average the networks' class logits, let observers see them, and merge."""
        values = class_values(networks[0])
        kept, asked = asked_classes(values, prompts.classes)

        def logits(frame: Frame) -> torch.Tensor:
            embedding = self.embed(source, frame, networks[0])
            said = torch.stack([self.class_logits(n, embedding, frame) for n in networks])
            if observers:
                rows = torch.from_numpy(kept)
                scores = said[:, rows] - said[:, ~rows].amax(1, keepdim=True)
                odds = torch.logit(said.softmax(1)[:, rows], eps=_SMALLEST_PROBABILITY)
                for observer in observers:
                    observer.observe(frame, asked, FrameAnswer(scores, odds))
            return said.mean(0)

        return self.merge_classes(source, logits, values, keep=prompts.classes)

    @torch.no_grad()
    def answer(
        self,
        networks: Sequence[SamNetwork],
        embedding: torch.Tensor,
        prompts: FramePrompts,
        size: tuple[int, int],
    ) -> FrameAnswer:
        """Return what each network says; see `logits` for the arguments."""
        geometry = FrameGeometry(size, networks[0].long_side)
        model = prompts.to_model(geometry)
        logits, iou = [], []
        for part in torch.arange(len(prompts)).split(self.prompts_at_once):
            said = [network.answer(embedding[None], model[part]) for network in networks]
            logits.append(
                torch.stack([geometry.logits_to_frame(s.low_res_logits)[:, 0] for s in said])
            )
            iou.append(torch.stack([s.iou_predictions[:, 0] for s in said]))
        found = torch.cat(logits, 1).float().cpu()
        return FrameAnswer(found, found, torch.cat(iou, 1).float().cpu())

    @torch.no_grad()
    def decode(
        self,
        networks: Sequence[SamNetwork],
        embedding: torch.Tensor,
        prompts: FramePrompts,
        size: tuple[int, int],
        multimask_output: bool = False,
    ) -> Iterator[DecodeOutput]:
        """Yield low-res masks of a few prompts at a time, for who chooses before resizing them."""
        model = prompts.to_model(FrameGeometry(size, networks[0].long_side))
        for part in torch.arange(len(prompts)).split(self.prompts_at_once):
            yield mean_output(
                [n.decode(embedding[None], model[part], multimask_output) for n in networks]
            )

    def merge(self, source: Any, prompts: Mapping[int, FramePrompts], scores: Scores) -> Any:
        """Score the prompted frames in order, and let the domain merge what they say.

        Args:
            source: The source.
            prompts: Prompts by frame index.
            scores: Gives (N, H, W) scores of a frame's prompts; 0 and below is background.

        Returns:
            What the domain's merger makes of it; for volumes the label map.
        """
        merger = self.domain.merger(source)
        for frame in self._frames(source, [i for i in sorted(prompts) if len(prompts[i])]):
            asked = prompts[frame.location.index]
            merger.add(frame, scores(frame, asked).numpy(), asked)
        return merger.finish()

    def _frames(self, source: Any, indices: Iterable[int]) -> Iterator[Frame]:
        """Yield frames, while the next ones are cut in a thread."""
        cut = (self.domain.frame(source, index) for index in indices)
        with closing(prefetch(cut, _FRAMES_AHEAD)) as frames:
            yield from frames

    def _embedder_of(self, network: SamNetwork) -> Embedder:
        """Return an embedder for the network's encoder; forks of one network share it."""
        if self._embedder is None or self._embedder[0] is not network.image_encoder:
            embedder = Embedder(network, self.domain, self.store, precision=self.precision)
            self._embedder = network.image_encoder, embedder
        return self._embedder[1]
