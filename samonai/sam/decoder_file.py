"""Our own checkpoints: the decoder alone, as safetensors, with what it takes to use it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.sam.encoder_state import ENCODER_PREFIX
from samonai.sam.lora import portable_state
from samonai.sam.network import SamNetwork

FORMAT_VERSION = 1
_KEY = "samonai"


@dataclass(frozen=True)
class DecoderMetadata:
    """What travels with a decoder.

    Attributes:
        model: Name of the model whose encoder the decoder was trained on.
        encoder_sha256: Identity of that encoder's weights.
        normalisation: Normalisation of pixels before the encoder.
        domain: The domain's name.
        domain_settings: Settings by which frames are cut.
        classes: Label value, as text, to name.
        training: Provenance: cases, prompts, loss, epochs, seed, versions.
        metrics: The validation figures that chose this decoder.
        calibration: The temperature that probabilities are divided by, and how it was found;
            empty where the decoder was not calibrated.
        heads: The heads that were trained: "promptable", "semantic".
    """

    model: str
    encoder_sha256: str
    normalisation: dict[str, Any]
    domain: str
    domain_settings: dict[str, Any]
    classes: dict[str, str]
    training: dict[str, Any]
    metrics: dict[str, Any]
    calibration: dict[str, Any] = field(default_factory=dict)
    heads: list[str] = field(default_factory=lambda: ["promptable"])

    @property
    def tunes_encoder(self) -> bool:
        """Return whether the file changes the encoder too."""
        return bool(self.training.get("encoder_changed", False))


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
    read_decoder_metadata(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    _write(tensors, Path(path), metadata)


def read_decoder_metadata(path: Path | str) -> DecoderMetadata:
    """Return the metadata of a decoder file.

    Raises:
        InputError: The file is missing, damaged, or not written by samonai.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no decoder at {path}; has the run finished an epoch?")
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})[_KEY])
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}") from error
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path} is a safetensors file, but not a decoder that samonai wrote; a full model is "
            f"loaded with --checkpoint"
        ) from error
    if content.pop("format_version", None) != FORMAT_VERSION:
        raise InputError(f"{path} was written by another version of samonai; train it again")
    return DecoderMetadata(**content)


def load_decoder(network: SamNetwork, path: Path | str) -> DecoderMetadata:
    """Load a decoder into a network that has the encoder it was trained on.

    The network's semantic head becomes the decoder's: it goes where the decoder has none.

    Raises:
        InputError: Another encoder, or a file that is not such a decoder.
    """
    metadata = read_decoder_metadata(path)
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
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
    network.multimask = bool(metadata.training.get("multimask", False))
    return metadata


def _write(tensors: dict[str, torch.Tensor], path: Path, metadata: DecoderMetadata) -> None:
    text = json.dumps({"format_version": FORMAT_VERSION, **vars(metadata)}, sort_keys=True)
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: text})
