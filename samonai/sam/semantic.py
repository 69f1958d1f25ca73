"""Semantic head: one mask token per class through the same mask decoder, without a prompt.

While the mask decoder returns the masks of one object for a prompt, the head returns for a frame
the logits of every class and of background. It adds learned tokens and their hypernetworks; the
transformer and the upscaling are the decoder's own, so that the head costs about 2 % of the
decoder's parameters per class, and decodes a frame in the time of one prompt.

An optional further token gives the logit of an object's border. It
is not a class and is not part of the softmax over the classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from segment_anything.modeling import MaskDecoder
from segment_anything.modeling.mask_decoder import MLP
from torch import nn

from samonai.core.errors import InputError
from samonai.sam.decoder import decode_class_tokens
from samonai.sam.outputs import HeadsOutput

HEAD_PREFIX = "semantic_head."
VALUES_KEY = HEAD_PREFIX + "class_values"
BORDER_KEY = HEAD_PREFIX + "border_token.weight"
MAX_CLASSES = 254
"""Limit of classes: a class map has one byte per pixel, and two values besides the classes'."""


class SemanticHead(nn.Module):
    """Class tokens and hypernetworks, one of each for background and for every class.

    They are initialised at random, like the decoder's own. Noisy copies of the decoder's mask
    tokens learned much more slowly, since they are all alike.

    Attributes:
        class_tokens: The learned tokens, K + 1 of C channels; row 0 is background.
        hypernetworks: Per token, the network of its weights of the upscaled image's channels.
        class_values: int64 (K + 1,), label value of each channel; 0 is background.
        border_token: The learned token of borders, one row; None for a head without borders.
        border_hypernetwork: Its hypernetwork.
    """

    class_values: torch.Tensor
    border_token: nn.Embedding | None
    border_hypernetwork: nn.Module | None

    def __init__(
        self, decoder: MaskDecoder, values: Sequence[int], seed: int = 0, borders: bool = False
    ) -> None:
        """Initialise a head for a decoder.

        Args:
            decoder: The decoder whose transformer and upscaling are used.
            values: Label values of the K classes, above 0.
            seed: Seed of the random weights.
            borders: Add a token for object borders.

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
            # Last, so that the classes begin with the same weights with borders and without.
            self.border_token = nn.Embedding(1, channels) if borders else None
            self.border_hypernetwork = (
                MLP(channels, channels, first[-1].out_features, len(first)) if borders else None
            )
        self.register_buffer("class_values", torch.tensor([0, *values]))
        self.to(decoder.mask_tokens.weight.device)

    @property
    def values(self) -> tuple[int, ...]:
        """Return the label value of each channel, background's 0 first."""
        return tuple(self.class_values.tolist())

    @property
    def borders(self) -> bool:
        """Return whether the head has a channel for object borders."""
        return self.border_token is not None

    def tokens(self) -> tuple[torch.Tensor, list[nn.Module]]:
        """Return all tokens, (K + 1, C), or (K + 2, C) with that of borders, and their networks."""
        tokens, networks = self.class_tokens.weight, list(self.hypernetworks)
        if self.border_token is None or self.border_hypernetwork is None:
            return tokens, networks
        return torch.cat([tokens, self.border_token.weight]), [*networks, self.border_hypernetwork]


class HeadKind(NamedTuple):
    """Outputs of a semantic head.

    Attributes:
        values: Label values of its classes, without background's.
        borders: Whether it has a channel for object borders.
    """

    values: tuple[int, ...]
    borders: bool


def head_to_restore(
    head: SemanticHead | None, state: Mapping[str, torch.Tensor], prefix: str
) -> HeadKind | None:
    """Return the kind of head that a network needs for loading a state dict.

    Args:
        head: The network's head, if it has one.
        state: The state dict.
        prefix: Prefix of the network's own tensor names.

    Returns:
        The kind of the head to add; None if none is needed.

    Raises:
        InputError: The network has a head, and the state none, one for other classes, or only one
            of them has borders.
    """
    stored = state.get(prefix + VALUES_KEY)
    if stored is None:
        if head is not None:
            raise InputError(
                "these weights have no semantic head, but the network has one; load them into a "
                "network without, or train with heads=semantic or heads=both"
            )
        return None
    values, borders = tuple(stored.tolist()), prefix + BORDER_KEY in state
    if head is None:
        return HeadKind(values[1:], borders)
    if head.values != values:
        raise InputError(
            f"these weights have a semantic head for the classes {list(values[1:])}, the network "
            f"one for {list(head.values[1:])}"
        )
    if head.borders != borders:
        raise InputError(
            f"these weights were trained with borders={str(borders).lower()}, the network has a "
            f"semantic head of borders={str(head.borders).lower()}"
        )
    return None


def decode_frames(
    prompt_encoder: Any, decoder: Any, head: SemanticHead, image_embeddings: torch.Tensor
) -> HeadsOutput:
    """Run a semantic head on whole frames, on all of their tokens.

    Args:
        prompt_encoder: The stock module.
        decoder: The stock mask decoder.
        head: The head.
        image_embeddings: float32 (B, C, h, w).
    """
    image = image_embeddings.permute(0, 2, 3, 1).contiguous()
    with torch.autocast(image.device.type, enabled=False):
        position = prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
    image = image + prompt_encoder.no_mask_embed.weight
    logits = decode_class_tokens(decoder, image, position, *head.tokens())
    if not head.borders:
        return HeadsOutput(None, logits)
    return HeadsOutput(None, logits[:, :-1], logits[:, -1])
