"""The semantic head: one mask token per class, run through the same mask decoder, no prompt.

Where the mask decoder answers a prompt with the masks of one object, the head answers a frame with
the logits of every class and of background. It adds learned tokens and their hypernetworks; the
transformer and the upscaling are the decoder's own, so that the head costs about 2 % of the
decoder's parameters per class, and decodes a frame in the time of one prompt.
"""

from collections.abc import Mapping, Sequence

import torch
from segment_anything.modeling import MaskDecoder
from segment_anything.modeling.mask_decoder import MLP
from torch import nn

from samonai.errors import InputError

HEAD_PREFIX = "semantic_head."
VALUES_KEY = HEAD_PREFIX + "class_values"
MAX_CLASSES = 254
"""A class map keeps one byte per pixel, and needs two values beside the classes'."""


class SemanticHead(nn.Module):
    """Class tokens and hypernetworks, one of each for background and for every class.

    They begin at random, as the decoder's own began. Copies of the decoder's mask tokens, with
    noise on them, learned much more slowly: all of them ask for the same thing.

    Attributes:
        class_tokens: The learned tokens, K + 1 of C channels; row 0 is background.
        hypernetworks: Per token, what makes of it the weights of the upscaled image's channels.
        class_values: int64 (K + 1,), label value of each channel; 0 is background.
    """

    class_values: torch.Tensor

    def __init__(self, decoder: MaskDecoder, values: Sequence[int], seed: int = 0) -> None:
        """Make a head for a decoder.

        Args:
            decoder: The decoder that the tokens run through.
            values: Label values of the K classes, above 0.
            seed: Seed of the random weights.

        Raises:
            InputError: There is no class, one twice, one that is not above 0, or too many.
        """
        super().__init__()
        values = [int(value) for value in values]
        if not values or len(set(values)) != len(values) or min(values) < 1:
            raise InputError(f"classes are different label values from 1 up, got {values}")
        if len(values) > MAX_CLASSES:
            raise InputError(f"{len(values)} classes are more than the {MAX_CLASSES} of a head")
        channels = decoder.transformer_dim
        first = decoder.output_hypernetworks_mlps[0].layers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.class_tokens = nn.Embedding(len(values) + 1, channels)
            self.hypernetworks = nn.ModuleList(
                MLP(channels, channels, first[-1].out_features, len(first))
                for _ in range(len(values) + 1)
            )
        self.register_buffer("class_values", torch.tensor([0, *values]))
        self.to(decoder.mask_tokens.weight.device)

    @property
    def values(self) -> tuple[int, ...]:
        """Return the label value of each channel, background's 0 first."""
        return tuple(self.class_values.tolist())


def values_to_restore(
    head: SemanticHead | None, state: Mapping[str, torch.Tensor], prefix: str
) -> tuple[int, ...] | None:
    """Return the classes of the head that a network still needs to take on a state dict.

    Args:
        head: The network's head, if it has one.
        state: The state dict.
        prefix: What stands before the names of the network's own tensors.

    Returns:
        Label values without background's; None where no head has to be made.

    Raises:
        InputError: The network has a head, and the state none or one for other classes.
    """
    stored = state.get(prefix + VALUES_KEY)
    if stored is None:
        if head is not None:
            raise InputError(
                "these weights have no semantic head, but the network has one; load them into a "
                "network without, or train with heads=semantic or heads=both"
            )
        return None
    values = tuple(stored.tolist())
    if head is None:
        return values[1:]
    if head.values != values:
        raise InputError(
            f"these weights have a semantic head for the classes {list(values[1:])}, the network "
            f"one for {list(head.values[1:])}"
        )
    return None
