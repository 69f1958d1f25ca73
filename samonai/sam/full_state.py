"""Full SAM checkpoints for other tools."""

import json
import logging
from pathlib import Path

import torch
from safetensors.torch import save_file

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.sam.loading import encoder_sha256
from samonai.sam.lora import portable_state
from samonai.sam.network import SamNetwork
from samonai.sam.normalisation import SAM_NORMALISATION
from samonai.sam.statedict import METADATA_KEY
from samonai.sam.tuning import has_adapters

_log = logging.getLogger(__name__)


def save_sam(network: SamNetwork, path: str | Path) -> Path:
    """Write encoder, prompt encoder and decoder under upstream's names, float32.

    A `.pth` (or `.pt`) file is a plain state dict: `sam_model_registry[...](checkpoint=FILE)` and
    tools built on it load it. A `.safetensors` file holds the same tensors, and also the
    normalisation, which a plain state dict cannot hold.

    Args:
        network: The model.
        path: The file; the ending chooses the format.

    Returns:
        The path written.

    Raises:
        InputError: The ending is another one.
    """
    path = Path(path)
    state = full_state(network)
    if path.suffix == ".safetensors":
        metadata = {
            "name": network.name,
            "encoder_sha256": encoder_sha256(network.image_encoder),
            "normalisation": network.normalisation.to_metadata(),
        }
        with write_atomically(path) as temporary:
            save_file(state, temporary, {"format": "pt", METADATA_KEY: json.dumps(metadata)})
    elif path.suffix in (".pth", ".pt"):
        if network.normalisation != SAM_NORMALISATION:
            _log.warning(
                "%s cannot say that this model wants the %s normalisation; load it by a name that "
                "has it, or write .safetensors",
                path.name,
                network.normalisation.name,
            )
        with write_atomically(path) as temporary:
            torch.save(state, temporary)
    else:
        raise InputError(
            f"cannot write a SAM checkpoint as {path.name}: the name must end in .pth, .pt or "
            f".safetensors"
        )
    return path


def full_state(network: SamNetwork) -> dict[str, torch.Tensor]:
    """Return all weights by upstream's names: float32 (counters int64), contiguous, on the CPU.

    Raises:
        InputError: The encoder has adapters, for which upstream has no names.
    """
    if has_adapters(network.image_encoder):
        raise InputError(
            "encoder-adapters are no part of segment-anything's architecture, so no tool that "
            "takes SAM could load them; train encoder-lora to export"
        )
    parts = {
        "image_encoder": network.image_encoder,
        "prompt_encoder": network.prompt_encoder,
        "mask_decoder": network.mask_decoder,
    }
    return {
        f"{part}.{name}": _plain(tensor)
        for part, module in parts.items()
        for name, tensor in portable_state(module.state_dict()).items()
    }


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", dtype).contiguous()
