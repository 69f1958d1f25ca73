"""Our own checkpoints: the decoder alone, as safetensors, with what it takes to use it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.sealed import sealed
from samonai.sam.decoder_metadata import (
    FORMAT_VERSION,
    METADATA_KEY,
    WEIGHTS_DIGEST,
    DecoderMetadata,
    checked_content,
    header_texts,
    metadata_of,
)
from samonai.sam.encoder_state import ENCODER_PREFIX
from samonai.sam.lora import portable_state
from samonai.sam.network import SamNetwork
from samonai.sam.windows import WindowRule


def save_decoder(network: SamNetwork, path: Path | str, metadata: DecoderMetadata) -> Path:
    """Write the decoder and prompt encoder of a network, with metadata, whole or not at all.

    Args:
        network: The network; frozen parts of its encoder are left out, LoRA in the decoder is
            merged, and LoRA in the encoder kept as factors.
        path: File ending in .safetensors.
        metadata: What to keep beside the weights.
    """
    path = Path(path)
    state = portable_state(network.state_dict())
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    _write(tensors, path, metadata)
    return path


def rewrite_metadata(path: Path | str, metadata: DecoderMetadata) -> None:
    """Replace what a decoder file says of itself; its weights stay as they are.

    Raises:
        InputError: The file is missing, damaged, or not written by samonai.
    """
    tensors, _ = _read(Path(path))
    _write({name: value.clone() for name, value in tensors.items()}, Path(path), metadata)


def load_decoder(network: SamNetwork, path: Path | str) -> DecoderMetadata:
    """Load a decoder into a network that has the encoder it was trained on.

    The network's semantic head becomes the decoder's: it goes where the decoder has none.

    Raises:
        InputError: Another encoder, or a file that is not such a decoder.
    """
    state, metadata = _read(Path(path))
    windows = WindowRule.of_training(metadata.training, path)
    for name, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise InputError(
                f"{path}: {name} holds NaN or infinite values, which no mask comes out of; train "
                f"it again"
            )
    head = network.semantic_head
    network.remove_semantic_head()
    changed = {
        key.removeprefix(ENCODER_PREFIX): state.pop(key)
        for key in list(state)
        if key.startswith(ENCODER_PREFIX)
    }
    try:
        # First whether they belong to this encoder at all; then its changed parts.
        network.change_encoder({}).load_state_dict(state)
        network.change_encoder(changed)
    except Exception:
        network.semantic_head = head
        raise
    # Other prompts than single points had the single mask only, and its training alone.
    network.multimask = bool(metadata.training.get("interactive", {}).get("multimask", False))
    network.windows = windows
    return metadata


def _write(tensors: dict[str, torch.Tensor], path: Path, metadata: DecoderMetadata) -> None:
    content = {
        "format_version": FORMAT_VERSION,
        WEIGHTS_DIGEST: _weights_digest(tensors),
        **vars(metadata),
    }
    # One text: safetensors writes several in any order, and a decoder is the same byte by byte.
    text = json.dumps(sealed(json.loads(json.dumps(content))), sort_keys=True)
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: text})


def _read(path: Path) -> tuple[dict[str, torch.Tensor], DecoderMetadata]:
    """Return what a decoder file holds, whose digests agree.

    Raises:
        InputError: The file is missing, damaged, or not written by samonai.
    """
    content = checked_content(header_texts(path), path)
    said = content.pop(WEIGHTS_DIGEST, None)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if said is not None and said != _weights_digest(tensors):
        raise InputError(
            f"{path} is damaged: the checksum of its weights differs; copy it again, or train again"
        )
    return tensors, metadata_of(content, path)


def _weights_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256 over names, types, shapes and bytes of tensors, in the order of names."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
