"""From prompts on frames to one label map on the source's own grid."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer

from samonai.domains.base import Domain
from samonai.domains.merging import label_from_scores
from samonai.embeddings.encode import Embedder
from samonai.embeddings.store import EmbeddingStore
from samonai.frame import Frame
from samonai.geometry import FrameGeometry
from samonai.prompts import FramePrompts
from samonai.sam.network import SamNetwork

Scores = Callable[[Frame, FramePrompts], torch.Tensor]

__all__ = ["FramePrompts", "Scores", "SourceInferer", "box_scores", "label_from_scores"]


class SourceInferer(Inferer):
    """Decodes the prompted frames of a source and merges them into one label map.

    One frame is in memory at a time, beside the source and its label map: memory stays flat in
    the number of frames.

    Args:
        domain: Cuts frames and merges their labels.
        store: Embeddings are read from here and added; None: encode, keep nothing.
        precision: Precision of the encoder where an embedding is not in the store.
        prompts_at_once: Prompts decoded together; bounds memory on crowded frames.
    """

    def __init__(
        self,
        domain: Domain,
        store: EmbeddingStore | Path | str | None = None,
        precision: str = "auto",
        prompts_at_once: int = 16,
    ) -> None:
        """Keep the domain and the limits."""
        super().__init__()
        self.domain = domain
        self.store = EmbeddingStore(store) if isinstance(store, Path | str) else store
        self.precision = precision
        self.prompts_at_once = prompts_at_once
        self._embedder: tuple[torch.nn.Module, Embedder] | None = None

    def __call__(
        self,
        inputs: Any,
        network: SamNetwork,
        prompts: Mapping[int, FramePrompts] | None = None,
    ) -> Any:
        """Predict a source's label map.

        Args:
            inputs: The source, as the domain reads it.
            network: Encodes what is not in the store, and decodes.
            prompts: Prompts by frame index; other frames stay background.

        Returns:
            The label map on the source's grid, as the domain's merger gives it.
        """
        network = getattr(network, "module", network)
        embedder = self._embedder_of(network)

        def scores(frame: Frame, frame_prompts: FramePrompts) -> torch.Tensor:
            embedding = embedder(inputs, [frame])[0]
            return self.logits(network, embedding, frame_prompts, frame.size)

        return self.merge(inputs, prompts or {}, scores)

    @torch.no_grad()
    def logits(
        self,
        network: SamNetwork,
        embedding: torch.Tensor,
        prompts: FramePrompts,
        size: tuple[int, int],
    ) -> torch.Tensor:
        """Return float32 (N, H, W): the logits of each prompt in frame space, on the CPU."""
        geometry = FrameGeometry(size, network.long_side)
        rows = torch.arange(len(prompts)).split(self.prompts_at_once)
        model = prompts.to_model(geometry)
        parts = [
            geometry.logits_to_frame(network.decode(embedding[None], model[part]).low_res_logits)
            for part in rows
        ]
        return torch.cat(parts)[:, 0].float().cpu()

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
        for index in sorted(prompts):
            if len(prompts[index]):
                frame = self.domain.frame(source, index)
                merger.add(frame, scores(frame, prompts[index]).numpy(), prompts[index])
        return merger.finish()

    def _embedder_of(self, network: SamNetwork) -> Embedder:
        """Return an embedder for the network's encoder; forks of one network share it."""
        if self._embedder is None or self._embedder[0] is not network.image_encoder:
            embedder = Embedder(network, self.domain, self.store, precision=self.precision)
            self._embedder = network.image_encoder, embedder
        return self._embedder[1]


def box_scores(frame: Frame, prompts: FramePrompts) -> torch.Tensor:
    """Score the filled box, the baseline that any model must beat: small boxes lie on top.

    A pixel belongs to a box when its centre does.

    Args:
        frame: The frame; only its size matters.
        prompts: The boxes.

    Returns:
        float32 (N, H, W): 1/area inside the box, 0 outside.
    """
    height, width = frame.size
    boxes = torch.from_numpy(prompts.boxes)[:, :, None]  # (N, 4, 1)
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    columns = (x >= boxes[:, 0]) & (x < boxes[:, 2])  # (N, W)
    rows = (y >= boxes[:, 1]) & (y < boxes[:, 3])  # (N, H)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return (rows[:, :, None] & columns[:, None, :]) / area[:, :, None].clamp(min=1e-6)
