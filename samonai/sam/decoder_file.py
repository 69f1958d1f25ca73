"""Our own checkpoints: the decoder alone, as safetensors, with what it takes to use it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.json_files import check_regular, parse_json
from samonai.core.sealed import DIGEST_KEY, is_whole, sealed
from samonai.sam.encoder_state import ENCODER_PREFIX
from samonai.sam.lora import portable_state
from samonai.sam.network import SamNetwork
from samonai.settings import current_training

FORMAT_VERSION = 2
_WITHOUT_DIGESTS = 1
"""The version of files without digests, in which a flipped bit is not found."""

_KEY = "samonai"
_WEIGHTS = "weights_sha256"

# What a domain reads, writes or loads besides the files that the user names. Whoever made a run
# does not decide that for the one who uses it.
_NEVER_TAKEN = frozenset({"any_driver", "case_map", "query", "retrieval"})


@dataclass(frozen=True)
class DecoderMetadata:
    """Metadata in a decoder's file.

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
    tensors, _ = _read(Path(path))
    _write({name: value.clone() for name, value in tensors.items()}, Path(path), metadata)


def read_decoder_metadata(path: Path | str) -> DecoderMetadata:
    """Return the metadata of a decoder file.

    Settings of the domain that open other files than those a user names are left out: a decoder may
    be a stranger's.

    Raises:
        InputError: The file is missing, damaged, or not written by samonai.
    """
    path = Path(path)
    content = _content(_texts(path), path)
    content.pop(_WEIGHTS, None)
    return _metadata(content, path)


def load_decoder(network: SamNetwork, path: Path | str) -> DecoderMetadata:
    """Load a decoder into a network that has the encoder it was trained on.

    The network's semantic head becomes the decoder's: it goes where the decoder has none.

    Raises:
        InputError: Another encoder, or a file that is not such a decoder.
    """
    state, metadata = _read(Path(path))
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
    return metadata


def _write(tensors: dict[str, torch.Tensor], path: Path, metadata: DecoderMetadata) -> None:
    content = {
        "format_version": FORMAT_VERSION, _WEIGHTS: _weights_digest(tensors), **vars(metadata),
    }  # fmt: skip
    # One text: safetensors writes several in any order, and a decoder is the same byte by byte.
    text = json.dumps(sealed(json.loads(json.dumps(content))), sort_keys=True)
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: text})


def _read(path: Path) -> tuple[dict[str, torch.Tensor], DecoderMetadata]:
    """Return what a decoder file holds, whose digests agree.

    Raises:
        InputError: The file is missing, damaged, or not written by samonai.
    """
    content = _content(_texts(path), path)
    said = content.pop(_WEIGHTS, None)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if said is not None and said != _weights_digest(tensors):
        raise InputError(
            f"{path} is damaged: the checksum of its weights differs; copy it again, or train again"
        )
    return tensors, _metadata(content, path)


def _texts(path: Path) -> dict[str, str]:
    """Return the texts in the header of a safetensors file."""
    if not path.exists():
        raise InputError(f"there is no decoder at {path}; has the run finished an epoch?")
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}") from error


def _content(texts: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return what the metadata say, whose digest agrees, without the format's version."""
    if _KEY not in texts:
        raise InputError(
            f"{path} is a safetensors file, but not a decoder that samonai wrote; a full model is "
            f"loaded with --checkpoint"
        )
    content = parse_json(texts[_KEY], f"{path}: the metadata")
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if version not in (_WITHOUT_DIGESTS, FORMAT_VERSION) or isinstance(version, bool):
        raise InputError(f"{path} was written by another version of samonai; train it again")
    said = {"format_version": version, **content}
    if version == FORMAT_VERSION and not (is_whole(said) and _WEIGHTS in content):
        raise InputError(
            f"{path} is damaged: the checksum of its metadata differs; copy it again, or train "
            f"again"
        )
    content.pop(DIGEST_KEY, None)
    return dict(content)


def _metadata(content: Mapping[str, Any], path: Path) -> DecoderMetadata:
    """Return metadata of the types that they have.

    Raises:
        InputError: An entry is missing, unknown or something else.
    """
    try:
        metadata = DecoderMetadata(**content)
    except TypeError as error:
        raise InputError(f"{path}: the metadata are not a decoder's: {error}") from error
    for entry in fields(DecoderMetadata):
        value = getattr(metadata, entry.name)
        wanted: type = str if entry.type is str else list if entry.name == "heads" else dict
        if not isinstance(value, wanted):
            raise InputError(
                f"{path}: {entry.name} in the metadata is {str(value)[:40]!r}, expected a "
                f"{wanted.__name__}"
            )
    for value, name in metadata.classes.items():
        if not (value.isascii() and value.isdigit() and isinstance(name, str)):
            raise InputError(
                f"{path}: the metadata name class {value[:40]!r} {str(name)[:40]!r}, expected a "
                f"number and a name"
            )
    current = _current_training(metadata.training, path)
    metadata.training.clear()
    metadata.training.update(current)
    for setting in _NEVER_TAKEN & metadata.domain_settings.keys():
        del metadata.domain_settings[setting]
    return metadata


def _current_training(training: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the provenance under the names of today; types of the entries in use are checked."""
    lists = (training.get(name, []) for name in ("train_cases", "val_cases"))
    named = all(isinstance(n, list) and all(isinstance(c, str) for c in n) for n in lists)
    prompts = training.get("prompts", {})
    kinds = prompts.get("kinds", {}) if isinstance(prompts, dict) else None
    if not named or not isinstance(kinds, dict):
        raise InputError(f"{path}: cases or prompts in the metadata are not a decoder's")
    current = current_training(training)
    clicks = current.get("interactive", {})
    if not isinstance(clicks, dict):
        raise InputError(f"{path}: interactive in the metadata is not a decoder's")
    shares = {k: v for k, v in current.get("prompts", {}).items() if k.endswith("_probability")}
    for value in (*shares.values(), clicks.get("click_rounds", 0)):
        if not isinstance(value, int | float):
            raise InputError(f"{path}: prompts in the metadata are not a decoder's")
    return current


def _weights_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256 over names, types, shapes and bytes of tensors, in the order of names."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
