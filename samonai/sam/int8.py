"""Int8 linear layers on a CPU: weights per output channel, activations per call.

A weight becomes an integer times one scale per output channel; an activation, one scale and one
zero point per call, found from its least and greatest value ("dynamic quantisation"). Integer
products are faster than those of bfloat16 where a CPU has instructions for them (AVX512-VNNI,
AVX-VNNI), and the only fast ones where it has none for bfloat16. `python -m benchmarks --only
encoder` measures what they give and what they cost.

torch plans to remove the tensors that its fused kernel needs (pytorch/pytorch#184982). Without
that kernel, quantising the activations takes about as long as the product saves, so there is no
fallback: without the kernel, int8 is refused.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from samonai.core.errors import InputError

_LARGEST = 127  # symmetric: -128 is left out
# torch's kernels that quantise weights channel by channel.
_ENGINES = ("x86", "onednn", "fbgemm")
# Without these, sums of two products of 8 bits overflow 16 bits, unless activations give up a bit.
_WIDE_SUMS = ("avx512_vnni", "avx_vnni", "amx_int8")


class _Packed(NamedTuple):
    """A layer's weights packed for torch's kernel, with the values that they were made of."""

    made_of: tuple[int, ...]
    weights: object


_packed: WeakKeyDictionary[nn.Linear, _Packed] = WeakKeyDictionary()


def check_int8(device: torch.device) -> None:
    """Refuse a device without products of 8-bit integers.

    Raises:
        InputError: The device is not a CPU, or this build of torch has no kernels for it.
    """
    if device.type != "cpu":
        raise InputError(f"precision int8 is for CPUs; use auto, bf16 or fp16 on {device.type}")
    engine = torch.backends.quantized.engine
    if engine not in _ENGINES or not hasattr(torch, "quantize_per_channel"):
        raise InputError(
            f"precision int8: torch {torch.__version__} has no kernels for it on this CPU (its "
            f"engine is {engine}); use auto"
        )


@torch.no_grad()
def int8_linear(layer: nn.Linear, values: torch.Tensor) -> torch.Tensor:
    """Return a layer's output, computed in 8-bit integers.

    Weights are packed once, and again when they have changed.

    Args:
        layer: The layer; its weights are not changed.
        values: float (…, in), all from one image: the scale of the activations is found over all
            of them.

    Returns:
        (…, out), in the dtype of autocast where the caller is in it, else float32.
    """
    given = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    made_of = tuple(number for part in given for number in (part.data_ptr(), part._version))
    packed = _packed.get(layer)
    if packed is None or packed.made_of != made_of:
        packed = _packed[layer] = _Packed(made_of, _pack(layer))
    found: torch.Tensor = torch.ops.quantized.linear_dynamic(
        values.float(), packed.weights, not _has_wide_sums()
    )
    if torch.is_autocast_enabled(values.device.type):
        return found.to(torch.get_autocast_dtype(values.device.type))
    return found


def _pack(layer: nn.Linear) -> object:
    weight = layer.weight.detach().float()
    scales = (weight.abs().amax(1) / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    zeros = torch.zeros(len(weight), dtype=torch.long)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*quantized tensor creation.*deprecated")
        quantised = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
    bias = None if layer.bias is None else layer.bias.detach().float()
    packed: object = torch.ops.quantized.linear_prepack(quantised, bias)
    return packed


def cpu_capabilities() -> Mapping[str, Any]:
    """Return this CPU's instruction sets by name; empty where torch lists none, as 2.10 does."""
    listed: Callable[[], Mapping[str, Any]] | None = getattr(torch.cpu, "get_capabilities", None)
    return {} if listed is None else listed()


def _has_wide_sums() -> bool:
    found = cpu_capabilities()
    return any(found.get(name) for name in _WIDE_SUMS)
