"""Trainable parts: the vocabulary of a network's parts, and the changed encoder.

Parts are joined by "+":

* `decoder`: the mask decoder, with its IoU head; `prompts`: the prompt encoder;
* `iou_head`: the IoU head alone; `decoder-lora`: LoRA in the decoder's attention alone;
* `encoder-lora`: LoRA in the encoder's attention; `encoder-adapters`: a bottleneck beside the MLP
  of every block; `encoder-last-K`: the last K blocks and the neck; `encoder-norms`: all
  normalisations and biases.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from samonai.core.errors import InputError
from samonai.sam.lora import FACTOR_A, FACTOR_B, add_lora

VOCABULARY = (
    "decoder", "prompts", "iou_head", "decoder-lora", "encoder-lora", "encoder-adapters",
    "encoder-last-K", "encoder-norms",
)  # fmt: skip

_ENCODER_LORA = r"blocks\.\d+\.attn\.qkv"
_DECODER_LORA = r"transformer\..*\.(q_proj|v_proj)"
_ADAPTER_WIDTH = 32


@dataclass(frozen=True)
class TrainParts:
    """The trainable parts of a network.

    Attributes:
        names: The parts, in the vocabulary's words.
        encoder: The encoder's part, such as "encoder-lora"; None leaves the encoder frozen.
        last_blocks: K of "encoder-last-K", else 0.
    """

    names: tuple[str, ...]
    encoder: str | None
    last_blocks: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse parts such as "decoder+prompts" or "encoder-last-2+decoder".

        Raises:
            InputError: A part is unknown, occurs twice, or is incompatible with another.
        """
        names = tuple(part.strip() for part in text.split("+"))
        last = {name: re.fullmatch(r"encoder-last-(\d+)", name) for name in names}
        for name in names:
            if name not in VOCABULARY[:-2] and name != "encoder-norms" and not last[name]:
                raise InputError(
                    f"train part {name!r} is not known; join some of {', '.join(VOCABULARY)} by +"
                )
        encoder = [name for name in names if name.startswith("encoder-")]
        if len(set(names)) < len(names) or len(encoder) > 1:
            raise InputError(f"train parts {text!r}: each part once, and one of the encoder's")
        if "decoder" in names and {"iou_head", "decoder-lora"} & set(names):
            raise InputError(f"train parts {text!r}: the decoder holds its IoU head and attention")
        blocks = next((int(match[1]) for match in last.values() if match), 0)
        return cls(names, encoder[0] if encoder else None, blocks)

    @property
    def tunes_encoder(self) -> bool:
        """Return whether embeddings change during training, so that they cannot be stored."""
        return self.encoder is not None


class Adapter(nn.Module):
    """Bottleneck adapter, initially zero: up(gelu(down(x))) with up at zero."""

    def __init__(self, channels: int, width: int) -> None:
        """Initialise the down projection at random and the up projection at zero."""
        super().__init__()
        self.down, self.up = nn.Linear(channels, width), nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the adapter's output, like `tokens` (..., C)."""
        result: torch.Tensor = self.up(nn.functional.gelu(self.down(tokens)))
        return result


class AdaptedMlp(nn.Module):
    """A block's MLP with an adapter in parallel, as in AdaptFormer (arXiv:2205.13535)."""

    def __init__(self, mlp: nn.Module, channels: int, width: int) -> None:
        """Take over the MLP."""
        super().__init__()
        self.mlp, self.adapter = mlp, Adapter(channels, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the sum of both, like `tokens` (..., C)."""
        result: torch.Tensor = self.mlp(tokens) + self.adapter(tokens)
        return result


def open_decoder(decoder: Any, parts: TrainParts, *, iou_head: bool, rank: int, seed: int) -> None:
    """Unfreeze the trainable parts of the mask decoder, and freeze all others.

    Raises:
        InputError: Only the IoU head is trainable, but its loss has no weight.
    """
    if "decoder-lora" in parts.names and not has_lora(decoder):
        add_lora(decoder, _DECODER_LORA, rank, seed)
    decoder.requires_grad_(False)
    if "decoder" in parts.names:
        decoder.requires_grad_(True)
        decoder.iou_prediction_head.requires_grad_(iou_head)
    if "iou_head" in parts.names:
        if not iou_head:
            raise InputError("train part iou_head learns from iou_weight, which is 0; raise it")
        decoder.iou_prediction_head.requires_grad_(True)
    for name, parameter in decoder.named_parameters():
        if "lora_" in name:
            parameter.requires_grad_("decoder-lora" in parts.names)


def open_encoder(stock: nn.Module, parts: TrainParts, *, rank: int, seed: int) -> nn.Module:
    """Return a copy of an encoder with its trainable parts unfrozen.

    Raises:
        InputError: The encoder is not a ViT of segment-anything, or has fewer blocks.
    """
    if not isinstance(stock, ImageEncoderViT):
        raise InputError(
            f"{parts.encoder} is for segment-anything's own encoders; "
            f"{type(stock).__name__} stays frozen"
        )
    encoder = deepcopy(stock)
    if parts.last_blocks > len(encoder.blocks) or parts.encoder == "encoder-last-0":
        raise InputError(
            f"{parts.encoder}: the encoder has {len(encoder.blocks)} blocks; name 1 to "
            f"{len(encoder.blocks)} of them"
        )
    if parts.encoder == "encoder-lora":
        add_lora(encoder, _ENCODER_LORA, rank, seed)
    if parts.encoder == "encoder-adapters":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _add_adapters(encoder, _ADAPTER_WIDTH)
    encoder.requires_grad_(False)
    for parameter in _encoder_parameters(encoder, parts):
        parameter.requires_grad_(True)
    return encoder


def changed_encoder(
    stock: nn.Module, tensors: Mapping[str, torch.Tensor]
) -> tuple[nn.Module, frozenset[str]]:
    """Return a copy of an encoder with trained changes, and their names.

    Args:
        stock: The encoder before training.
        tensors: By their names in a decoder's file, without the encoder's prefix: whole weights,
            factors of LoRA (which are merged), or adapters.

    Raises:
        InputError: A tensor does not belong to this encoder.
    """
    encoder = deepcopy(stock).requires_grad_(False)
    down = next((v for name, v in tensors.items() if name.endswith("adapter.down.weight")), None)
    if down is not None:
        _add_adapters(encoder, len(down))
    own = encoder.state_dict()
    names = set()
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name.endswith(FACTOR_B):
                continue
            target, update = name, tensor
            if name.endswith(FACTOR_A):
                target = name.removesuffix(FACTOR_A) + "weight"
                update = tensors[name.removesuffix(FACTOR_A) + FACTOR_B] @ tensor
            if target not in own or own[target].shape != update.shape:
                raise InputError(f"{name} is no part of this model's encoder; is it the same?")
            update = update.to(own[target])
            # The state's tensors share the parameters' memory.
            own[target].copy_(own[target] + update if target != name else update)
            names.add(target)
    return encoder, frozenset(names)


def tuned_sha256(stock_sha256: str, encoder: nn.Module, names: Iterable[str]) -> str:
    """Return the identity of a changed encoder: that of the stock one, and the changes."""
    digest, state = hashlib.sha256(stock_sha256.encode()), encoder.state_dict()
    for name in sorted(names):
        array = state[name].detach().cpu().float().contiguous()
        digest.update(f"{name} {tuple(array.shape)}\n".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def has_lora(module: nn.Module) -> bool:
    """Return whether any layer of a module is wrapped by LoRA."""
    return any("lora_" in name for name, _ in module.named_parameters())


def has_adapters(module: nn.Module) -> bool:
    """Return whether a module has adapters, which no plain SAM checkpoint can hold."""
    return any(isinstance(part, AdaptedMlp) for part in module.modules())


def _add_adapters(encoder: Any, width: int) -> None:
    for block in encoder.blocks:
        channels = block.mlp.lin1.in_features
        block.mlp = AdaptedMlp(block.mlp, channels, width).to(block.norm1.weight.device)


def _encoder_parameters(encoder: Any, parts: TrainParts) -> Iterator[nn.Parameter]:
    """Yield the trainable parameters of an encoder."""
    if parts.last_blocks:
        yield from encoder.blocks[-parts.last_blocks :].parameters()
        yield from encoder.neck.parameters()
    norms = {
        id(parameter)
        for module in encoder.modules()
        if "Norm" in type(module).__name__
        for parameter in module.parameters()
    }
    for name, parameter in encoder.named_parameters():
        if (
            (parts.encoder == "encoder-lora" and "lora_" in name)
            or (parts.encoder == "encoder-adapters" and ".adapter." in name)
            or (
                parts.encoder == "encoder-norms"
                and (name.endswith(".bias") or id(parameter) in norms)
            )
        ):
            yield parameter
