"""Mixing stored embeddings: an augmentation that costs nothing, since no image is needed for it.

With a probability, a frame's embedding is blended with that of its neighbour in the batch:
`(1 - w) * own + w * other`. As in mixup (arXiv:1710.09412) the weight comes from a beta
distribution, and as in mixup of hidden layers (arXiv:1806.05236) representations are mixed instead
of pixels. The frame itself always keeps the larger share, and the targets stay its own: a prompt
names one object on one frame, and what shines through from the other frame is a distractor that the
decoder must learn to look past. Mixing the masks as well would ask for a half-transparent object,
which no threshold at 0 can give back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from samonai.core.errors import InputError


@dataclass(frozen=True)
class EmbeddingMix:
    """How often, and how strongly, embeddings of a batch are mixed.

    Attributes:
        probability: Share of the frames that are mixed with another; 0 mixes none.
        alpha: Both parameters of the beta distribution; small ones give small weights mostly.

    Raises:
        InputError: A value is out of its range.
    """

    probability: float = 0.0
    alpha: float = 0.4

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.probability <= 1:
            raise InputError(f"embedding_mix is a probability, got {self.probability}")
        if not self.alpha > 0:
            raise InputError(f"embedding_mix_alpha is above 0, got {self.alpha}")

    def weight(self, generator: np.random.Generator) -> float:
        """Draw the other frame's share for one frame, from 0 to 0.5."""
        if not self.probability or generator.random() >= self.probability:
            return 0.0
        share = float(generator.beta(self.alpha, self.alpha))
        return min(share, 1 - share)


def mix_with_next(embeddings: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Blend each embedding with the next one of the batch, the last with the first.

    Args:
        embeddings: float (B, ...).
        weights: Share of the next embedding, for each of the B.

    Returns:
        The same shape and dtype; the same tensor where no weight is above 0.
    """
    if len(embeddings) < 2 or not any(weights):
        return embeddings
    mixed = embeddings.clone()
    for row, weight in enumerate(weights):
        if weight:
            following = embeddings[(row + 1) % len(embeddings)]
            mixed[row] = torch.lerp(embeddings[row].float(), following.float(), weight)
    return mixed
