"""Loading of a named model, with its published weights or those of a local file."""

import hashlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import Sam
from torch import nn

from samonai.core.errors import InputError
from samonai.core.files import as_path
from samonai.core.settings import renamed_parameters
from samonai.sam.checkpoints import (
    MICRO_WEIGHTS,
    Checkpoint,
    check_sha256,
    find_checkpoint,
    verify_file,
)
from samonai.sam.device_names import check_device_name
from samonai.sam.download import fetch
from samonai.sam.hf_folder import HF_WEIGHTS, hf_folder, hf_normalisation
from samonai.sam.micro import build_micro
from samonai.sam.network import SamNetwork
from samonai.sam.normalisation import Normalisation
from samonai.sam.statedict import check_state, own_weights, read_state
from samonai.sam.tiny_vit import build_vit_t

_log = logging.getLogger(__name__)


@renamed_parameters(name="model")
def load_sam(
    model: str = "micro",
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    sha256: str | None = None,
) -> SamNetwork:
    """Load a Segment Anything model.

    Args:
        model: "micro" (embedded), "vit_b", "vit_l", "vit_h", "vit_t" (MobileSAM) or
            "medsam_vit_b".
        checkpoint: A local `.pth`, `.pt` or `.safetensors` file of that architecture, or a folder
            that transformers' `SamModel.save_pretrained` wrote. Without one the published weights
            are fetched into the cache, verified, and used.
        device: Device of the model; by default a GPU if there is one, else the CPU.
        sha256: Expected hash of the file. Required for downloads without a published hash.

    Returns:
        The model in eval mode, float32, encoder frozen.

    Raises:
        InputError: The name or device is unknown, or the file is not the model's.
    """
    entry = find_checkpoint(model)
    target = choose_device(device)
    folder = hf_folder(checkpoint)
    path = _locate(entry, folder / HF_WEIGHTS if folder else checkpoint, sha256)
    with _without_weights(entry.architecture):
        sam = architecture_builder(entry.architecture)()
    state, metadata = read_state(path, sam.state_dict())
    check_state(state, sam, path)
    sam.load_state_dict(own_weights(state, path), strict=True, assign=True)
    normalisation = entry.normalisation
    if folder is not None:
        normalisation = hf_normalisation(folder) or normalisation
    if "normalisation" in metadata:
        normalisation = Normalisation.from_metadata(metadata["normalisation"])
    network = SamNetwork(
        sam,
        name=model,
        normalisation=normalisation,
        encoder_sha256=encoder_sha256(sam.image_encoder),
    )
    _log.info("loaded %s on %s", model, target)
    return network.to(target).eval()


def _without_weights(architecture: str) -> AbstractContextManager[Any]:
    """Return the context in which a model is built whose random weights are overwritten.

    On the meta device none are drawn, but torch imports its compiler for it, which takes longer
    than drawing those of the micro model.
    """
    if architecture == "micro":
        return torch.random.fork_rng(devices=[])
    return torch.device("meta")


def architecture_builder(architecture: str) -> Callable[[], Sam]:
    """Return the builder of "micro", "vit_b", "vit_l", "vit_h" or "vit_t" with random weights."""
    if architecture == "micro":
        return build_micro
    if architecture == "vit_t":
        return build_vit_t
    from segment_anything.build_sam import sam_model_registry

    builder: Callable[[], Sam] = sam_model_registry[architecture]
    return builder


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Return the requested device, or the best one.

    Raises:
        InputError: The device does not exist on this machine.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(device, str):
        check_device_name(device)
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"unknown device {device!r}: use cpu, cuda or cuda:N") from error
    if chosen.type == "cuda":
        count = torch.cuda.device_count()
        if (chosen.index or 0) >= count:
            raise InputError(f"device {device} is not here: torch sees {count} CUDA devices")
        return chosen
    try:
        # torch knows more names (mps, xpu) than this machine has devices; meta holds no values.
        torch.zeros(1, device=chosen).item()
    except Exception as error:  # each backend has errors of its own
        raise InputError(
            f"device {device} cannot be used here ({str(error).splitlines()[0][:120]}); use cpu, "
            f"cuda or cuda:N"
        ) from error
    return chosen


def encoder_sha256(image_encoder: nn.Module) -> str:
    """Return the identity of an encoder's weights, independent of file and device.

    It is the sha256 over the state's tensors by name: name, dtype, shape, bytes.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(image_encoder.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _locate(entry: Checkpoint, checkpoint: str | Path | None, sha256: str | None) -> Path:
    """Return the path of the verified file."""
    if checkpoint is None and entry.url is not None:
        return fetch(entry, sha256)
    path = MICRO_WEIGHTS if checkpoint is None else as_path(checkpoint, "checkpoint")
    if sha256 is not None:
        expected = check_sha256(sha256)
        if not path.is_file():
            raise InputError(f"checkpoint {path}: there is no such file")
        verify_file(path, expected)
    return path
