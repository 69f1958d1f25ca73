"""LoRA: low-rank adaptation of linear layers, through peft: W + B·A, frozen W (arXiv:2106.09685).

The scaling is 1 (alpha equals the rank), so the two factors define the update. peft is
needed for training only: files hold merged weights, or factors that are merged when loaded.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from samonai.core.errors import InputError
from samonai.core.settings import check_given
from samonai.settings.training import HeadSettings

FACTOR_A, FACTOR_B = "weight.lora_A", "weight.lora_B"
"""Names of the factors of a layer's weight in files, after the layer's own name."""

_ADAPTER = "default"
_A, _B = f"lora_A.{_ADAPTER}.weight", f"lora_B.{_ADAPTER}.weight"


def add_lora(module: nn.Module, targets: str, rank: int, seed: int) -> None:
    """Wrap linear layers of a module; the output is unchanged until the factors are trained.

    Args:
        module: Changed in place; all parameters but the factors are frozen.
        targets: Regular expression that the layers' names match as a whole.
        rank: Rank of the update.
        seed: Seed of the random factor.

    Raises:
        InputError: peft is not installed, or the rank is below 1.
    """
    check_given(HeadSettings, {"lora_rank": rank})
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError("LoRA needs peft; pip install 'samonai[peft]'") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=targets)
        inject_adapter_in_model(config, module, adapter_name=_ADAPTER)


def effective_weight(layer: Any) -> torch.Tensor:
    """Return the weight that a linear layer applies, wrapped by LoRA or not."""
    weight: torch.Tensor = layer.weight
    if not hasattr(layer, "lora_A"):
        return weight
    update: torch.Tensor = layer.lora_B[_ADAPTER].weight @ layer.lora_A[_ADAPTER].weight
    return weight + update


def portable_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state without wrapped layers: merged if the weight is there, else as factors."""
    wrapped = {key.removesuffix(f".{_A}") for key in state if key.endswith(f".{_A}")}
    portable: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        layer = next((name for name in wrapped if key.startswith(f"{name}.")), None)
        part = "" if layer is None else key.removeprefix(f"{layer}.")
        if layer is None:
            portable[key] = value
        elif part == "base_layer.weight":
            portable[f"{layer}.weight"] = value + state[f"{layer}.{_B}"] @ state[f"{layer}.{_A}"]
        elif part.startswith("base_layer."):
            portable[f"{layer}.{part.removeprefix('base_layer.')}"] = value
        elif f"{layer}.base_layer.weight" not in state:
            portable[f"{layer}.{FACTOR_A if part == _A else FACTOR_B}"] = value
    return portable
