"""Mixup of stored embeddings: augmentation without encoding any image.

With a probability, a frame's embedding is blended with that of its neighbour in the batch:
`(1 - w) * own + w * other`. As in mixup (arXiv:1710.09412) the weight comes from a beta
distribution, and as in manifold mixup (arXiv:1806.05236) representations are mixed instead
of pixels. The frame itself always has the larger share, and its targets do not change: a prompt
selects one object of one frame, and the other frame is a distractor that the decoder must learn to
ignore. Mixed masks would need a half-transparent object, which a threshold at 0 cannot represent.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from samonai.core.settings import renamed_parameters, validate_fields
from samonai.settings.prompts import MixupSettings


@renamed_parameters(mixup_probability="probability", mixup_alpha="alpha")
@dataclass(frozen=True)
class EmbeddingMix(MixupSettings):
    """Probability and strength of mixup between the embeddings of a batch.

    Attributes:
        probability: Share of the frames that are mixed with another; 0 mixes none.
        alpha: Both parameters of the beta distribution; small values give mostly small
            weights.

    Raises:
        InputError: A value is out of range.
    """

    def __post_init__(self) -> None:
        """Check the ranges."""
        validate_fields(self)

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the decoder's file."""
        return asdict(self)

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
        Same shape and dtype; the same tensor if no weight is above 0.
    """
    if len(embeddings) < 2 or not any(weights):
        return embeddings
    mixed = embeddings.clone()
    for row, weight in enumerate(weights):
        if weight:
            following = embeddings[(row + 1) % len(embeddings)]
            mixed[row] = torch.lerp(embeddings[row].float(), following.float(), weight)
    return mixed
