"""Frame decoding in inference: encoded or read from a store, decoded, and mapped to its grid."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import torch

from samonai.core.frame import Frame
from samonai.core.geometry import FrameGeometry
from samonai.domains.base import Domain, SourceT
from samonai.embeddings.embedder import Embedder
from samonai.inference.frame_outputs import DecodeFrame, FrameOutput, class_values, mean_output
from samonai.inference.tta import UPRIGHT, Orientation, mean_over, orientations_of
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.types import Prompts
from samonai.sam.network import DecodeOutput, SamNetwork
from samonai.sam.positive import positive_logits
from samonai.sam.prompted import FEWEST_SHARING
from samonai.sam.windows import sharing_prompts

if TYPE_CHECKING:
    from samonai.embeddings.embedder import AnyStore


class FrameDecoder(Generic[SourceT]):
    """Encoder and decoder of frames in inference, the only caller of the networks there.

    Several threads may use one: a lock admits one of them at a time to the networks.

    Args:
        domain: Cuts the frames.
        store: Embeddings are read from here and added; None: nothing is stored.
        precision: Precision of the encoder where an embedding is not in the store.
        prompts_at_once: Prompts decoded together; bounds memory on crowded frames.
        tta: Number of test-time augmentations, see `orientations_of`; their outputs are averaged.
    """

    def __init__(
        self,
        domain: Domain[SourceT],
        store: "AnyStore | Path | str | None",
        precision: str,
        prompts_at_once: int,
        tta: int,
    ) -> None:
        """Keep the domain and the limits."""
        self.domain = domain
        self.store = _opened(store)
        self.lock = threading.RLock()
        self.precision = precision
        self.prompts_at_once = prompts_at_once
        self.orientations = orientations_of(tta)
        self._embedders: dict[Orientation, tuple[torch.nn.Module, Embedder]] = {}

    def frame_outputs(
        self, source: SourceT, networks: Sequence[SamNetwork], *, each: bool
    ) -> DecodeFrame:
        """Return the function that decodes the prompts of a source's frames.

        Args:
            source: The source.
            networks: One, or several on one encoder.
            each: Keep the output of each network, else their average alone, which is faster.
        """

        def decode(frame: Frame, prompts: FramePrompts) -> FrameOutput:
            def predict(
                orientation: Orientation, seen: Frame
            ) -> tuple[torch.Tensor, torch.Tensor | None]:
                embedding = self.embed(source, seen, networks[0], orientation)
                asked = orientation.prompts(prompts, frame.size)
                if each:
                    return self.each_logits(networks, embedding, asked, seen.size)
                return self.logits(networks, embedding, asked, seen.size)[None], None

            logits, iou = mean_over(self.orientations, frame, predict)
            return FrameOutput(logits, logits, iou)

        return decode

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
                average is taken first, and costs one resize for any number of networks.
            embedding: float (C, h, w).
            prompts: N prompts.
            size: (H, W) of the frame.
        """
        several = networks if isinstance(networks, Sequence) else [networks]
        geometry = FrameGeometry(size, several[0].long_side)
        answers = self._in_parts(several, embedding, Prompts.of_frame(prompts, geometry))
        parts = [geometry.logits_to_frame(mean_output(said).low_res_logits) for said in answers]
        return torch.cat(parts)[:, 0].float().cpu()

    @torch.no_grad()
    def low_res(
        self, networks: Sequence[SamNetwork], embedding: torch.Tensor, prompts: Prompts
    ) -> DecodeOutput:
        """Return the networks' average output for prompts in model space, all at once.

        Args:
            networks: One, or several on one encoder.
            embedding: float (C, h, w).
            prompts: N prompts on image 0.
        """
        with self.lock:
            return mean_output(
                [network.decode_single(embedding[None], prompts) for network in networks]
            )

    @torch.no_grad()
    def each_low_res(
        self, networks: Sequence[SamNetwork], embedding: torch.Tensor, prompts: Prompts
    ) -> DecodeOutput:
        """Return the output of each of K networks, as `low_res` with a leading axis K."""
        with self.lock:
            said = [network.decode_single(embedding[None], prompts) for network in networks]
        return DecodeOutput(*(torch.stack(parts) for parts in zip(*said, strict=True)))

    def embed(
        self, source: SourceT, frame: Frame, network: SamNetwork, orientation: Orientation = UPRIGHT
    ) -> torch.Tensor:
        """Return float32 (C, h, w): a frame's embedding, from the store if it is there.

        Networks on one encoder (forks, an ensemble) get the same one, encoded once with
        a store.

        Args:
            source: The source.
            frame: The frame, augmented by `orientation`.
            network: Its encoder is used.
            orientation: Part of the store's signature for augmented frames.
        """
        with self.lock:
            return self._embedder_of(network, orientation)(source, [frame])[0]

    def class_logits(
        self, source: SourceT, networks: Sequence[SamNetwork], frame: Frame
    ) -> torch.Tensor:
        """Return the class logits of semantic heads on a frame: float32 (N, K + 1, H, W), CPU.

        Channels are in the order of `class_values(network)`, background first; their softmax are
        probabilities.

        Args:
            source: The source.
            networks: N networks on one encoder.
            frame: The frame.

        Raises:
            InputError: A network has no semantic head.
        """

        def predict(orientation: Orientation, seen: Frame) -> tuple[torch.Tensor, None]:
            embedding = self.embed(source, seen, networks[0], orientation)
            said = [self.frame_classes([one], embedding, seen)[0] for one in networks]
            return torch.stack(said), None

        return mean_over(self.orientations, frame, predict)[0]

    def class_maps(
        self,
        source: SourceT,
        networks: Sequence[SamNetwork],
        frame: Frame,
        embedding: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the class logits of a frame, averaged over networks and augmentations.

        Args:
            source: The source.
            networks: One, or several on one encoder.
            frame: The frame.
            embedding: Embedding of the frame without augmentation.

        Returns:
            As `frame_classes`.
        """

        def predict(orientation: Orientation, seen: Frame) -> tuple[torch.Tensor, None]:
            own = (
                embedding
                if orientation == UPRIGHT
                else self.embed(source, seen, networks[0], orientation)
            )
            classes, borders = self.frame_classes(networks, own, seen)
            return classes if borders is None else torch.cat([classes, borders[None]]), None

        said, _ = mean_over(self.orientations, frame, predict)
        channels = len(class_values(networks[0]))
        return said[:channels], said[channels] if len(said) > channels else None

    @torch.no_grad()
    def frame_classes(
        self, networks: Sequence[SamNetwork], embedding: torch.Tensor, frame: Frame
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the average class logits of semantic heads in frame space, on the CPU.

        Args:
            networks: One, or several on one encoder.
            embedding: The frame's.
            frame: The frame.

        Returns:
            float32 (K + 1, H, W), see `class_logits`; and float32 (H, W), the border logit of
            the networks with borders, None if none has them.
        """
        with self.lock:
            said = [network.decode_frames(embedding[None]) for network in networks]
        borders = [one.border_logits for one in said if one.border_logits is not None]
        low_res = torch.stack([one.class_logits[0] for one in said]).mean(0)
        if borders:
            low_res = torch.cat([low_res, torch.stack(borders).mean(0)])
        geometry = FrameGeometry(frame.size, networks[0].long_side)
        found = geometry.logits_to_frame(low_res[:, None].float())[:, 0].cpu()
        return (found[:-1], found[-1]) if borders else (found, None)

    @torch.no_grad()
    def each_logits(
        self,
        networks: Sequence[SamNetwork],
        embedding: torch.Tensor,
        prompts: FramePrompts,
        size: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the masks of each of K networks, float32 (K, N, H, W), and its own IoU (K, N).

        See `logits` for the arguments.
        """
        geometry = FrameGeometry(size, networks[0].long_side)
        logits, iou = [], []
        for said in self._in_parts(networks, embedding, Prompts.of_frame(prompts, geometry)):
            logits.append(
                torch.stack([geometry.logits_to_frame(s.low_res_logits)[:, 0] for s in said])
            )
            iou.append(torch.stack([s.iou_predictions[:, 0] for s in said]))
        return torch.cat(logits, 1).float().cpu(), torch.cat(iou, 1).float().cpu()

    @torch.no_grad()
    def decode(
        self,
        networks: Sequence[SamNetwork],
        embedding: torch.Tensor,
        prompts: FramePrompts,
        size: tuple[int, int],
        multimask_output: bool = False,
    ) -> Iterator[DecodeOutput]:
        """Yield low-res masks of a few prompts at a time, for selection before resizing."""
        model = Prompts.of_frame(prompts, FrameGeometry(size, networks[0].long_side))
        shared = self._share(networks, embedding, model)
        for part in self._parts(len(prompts)):
            with self.lock:
                said = [
                    n.decode(embedding[None], model[part], multimask_output, **common)
                    for n, common in zip(networks, shared, strict=True)
                ]
            yield mean_output(said)

    @torch.no_grad()
    def positive_scores(
        self, source: SourceT, network: SamNetwork, frame: Frame, prompts: FramePrompts
    ) -> Iterator[tuple[FramePrompts, torch.Tensor]]:
        """Yield some of a frame's prompts and their scores, until all have been answered.

        Args:
            source: The source.
            network: Decodes.
            frame: The frame.
            prompts: N prompts.

        Yields:
            n prompts, and float32 (n, H, W): what `logits` gives where that is above 0, elsewhere
            numbers that are not.
        """
        embedding = self.embed(source, frame, network)
        geometry = FrameGeometry(frame.size, network.long_side)
        model = Prompts.of_frame(prompts, geometry)
        (common,) = self._share([network], embedding, model)
        shared = common.get("shared")
        for part in self._parts(len(prompts)):
            some = prompts[part.numpy()]
            if shared is None and network.windows is None:
                scores = self.logits([network], embedding, some, frame.size)
            else:
                with self.lock:
                    scores = positive_logits(
                        network, embedding[None], model[part], geometry, shared
                    )
            yield some, scores

    def _in_parts(
        self, networks: Sequence[SamNetwork], embedding: torch.Tensor, prompts: Prompts
    ) -> Iterator[list[DecodeOutput]]:
        """Yield what each network answers, a few prompts at a time."""
        shared = self._share(networks, embedding, prompts)
        for part in self._parts(len(prompts)):
            with self.lock:
                said = [
                    network.decode_single(embedding[None], prompts[part], **common)
                    for network, common in zip(networks, shared, strict=True)
                ]
            yield said

    def _share(
        self, networks: Sequence[SamNetwork], embedding: torch.Tensor, prompts: Prompts
    ) -> list[dict[str, Any]]:
        """Compute once what prompts on a frame share: what else each network's decoding takes."""
        side = embedding.shape[-1]
        if len(prompts) < FEWEST_SHARING:
            return [{} for _ in networks]
        with self.lock:
            found = [
                one.share(embedding[None], sharing_prompts(one.windows, prompts, side))
                for one in networks
            ]
        return [{} if shared is None else {"shared": shared} for shared in found]

    def _parts(self, prompts: int) -> Sequence[torch.Tensor]:
        """Split the rows of prompts into those that are decoded together."""
        return torch.arange(prompts).split(self.prompts_at_once)

    def _embedder_of(self, network: SamNetwork, orientation: Orientation) -> Embedder:
        """Return an embedder for the network's encoder; forks of one network share it."""
        encoder, embedder = self._embedders.get(orientation, (None, None))
        if embedder is None or encoder is not network.image_encoder:
            domain = orientation.domain(self.domain)
            embedder = Embedder(network, domain, self.store, precision=self.precision)
            self._embedders[orientation] = network.image_encoder, embedder
        return embedder


def _opened(store: "AnyStore | Path | str | None") -> "AnyStore | None":
    if not isinstance(store, Path | str):
        return store
    from samonai.embeddings.store import EmbeddingStore

    return EmbeddingStore(store)
