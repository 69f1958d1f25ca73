"""Checkpoint reading into plain tensors, without running code, and with errors for wrong files."""

import json
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from samonai.core.errors import InputError
from samonai.sam.hf_names import from_hf_names, is_hf_state

METADATA_KEY = "samonai"
"""Key of our JSON among the metadata of a safetensors file."""

# Tensors that every SAM checkpoint has; they locate the weights in a nested file.
_ANCHORS = (
    "image_encoder.patch_embed.proj.weight",
    "image_encoder.patch_embed.seq.0.c.weight",
    "mask_decoder.iou_token.weight",
)
_PREFERRED = ("model", "state_dict", "model_state_dict")
_FOREIGN = {
    "encoder_identity": "a decoder checkpoint of samonai; load it onto the model it was trained on",
    "vision_encoder.": "another model of Hugging Face transformers; a SamModel is needed",
    "image_encoder.trunk.": "a SAM 2 checkpoint; this package takes SAM 1",
    "sam_mask_decoder.": "a SAM 2 checkpoint; this package takes SAM 1",
}
# By the width of the first convolution's output: SAM's patches, TinyViT's stem.
_ENCODERS = {128: "micro", 768: "vit_b", 1024: "vit_l", 1280: "vit_h", 32: "vit_t"}
# Batch counters of batch norms: the only integers in a state, never used here.
_COUNTER = "num_batches_tracked"


def read_state(
    path: Path, names: Mapping[str, torch.Tensor] | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a `.pth`, `.pt` or `.safetensors` file, recognised by its content, not by its ending.

    Wrappers of training scripts (`{"model": …}`, `module.`, `sam.`, nested) are removed.

    Args:
        path: The file.
        names: State of the upstream model; with it, tensors named as in transformers' `SamModel`
            are renamed.

    Returns:
        Tensors by upstream name, not yet checked, and our metadata if the file has some.

    Raises:
        InputError: The file is not a checkpoint, is damaged, holds more than tensors, or is another
            kind of model.
    """
    if not path.exists():
        raise InputError(f"checkpoint {path}: there is no such file")
    if not path.is_file():
        raise InputError(f"checkpoint {path}: this is not a file")
    with path.open("rb") as file:
        head = file.read(512)
    metadata: dict[str, Any] = {}
    if head[8:9] == b"{":
        content, metadata = _read_safetensors(path)
    elif head.startswith((b"PK", b"\x80")):
        content = _read_pickle(path)
    else:
        raise InputError(f"checkpoint {path} is not a checkpoint: {_describe(head)}")
    if names is not None and isinstance(content, Mapping) and is_hf_state(content):
        content = from_hf_names(content, names)
    return _unwrap(content, path), metadata


def own_weights(state: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Convert read tensors into owned weights: float32, finite, each with its own memory.

    Shapes must have been checked: a few bytes can pose as a tensor of any size. Each tensor is
    copied, since memory backed by the file would change with the file, and tensors that share
    memory would be trained as one. `state` is emptied meanwhile, to hold the weights once.

    Raises:
        InputError: A tensor does not hold floats, or is not finite.
    """
    weights = {}
    for name in list(state):
        tensor = state.pop(name)
        plain = tensor.layout is torch.strided and not tensor.is_meta
        if plain and tensor.dtype is torch.int64 and name.endswith(_COUNTER):
            weights[name] = tensor.detach().to("cpu").clone()
            continue
        if not plain or not tensor.is_floating_point():
            raise InputError(
                f"checkpoint {path}: {name} is not a plain tensor of floating-point numbers"
            )
        weights[name] = (
            tensor.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)
        )
        if not torch.isfinite(weights[name]).all():
            raise InputError(
                f"checkpoint {path}: {name} holds NaN or infinite values; the training that wrote "
                f"it diverged, use an earlier checkpoint"
            )
    return weights


def check_state(state: Mapping[str, torch.Tensor], model: torch.nn.Module, path: Path) -> None:
    """Check that a state fits a model exactly; the error describes a state that does not.

    Raises:
        InputError: Tensors are missing, unknown or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wanted, given = _architecture(expected), _architecture(found)
    if given and wanted != given:
        raise InputError(f"checkpoint {path} looks like {given}, not like {wanted}")
    parts = {name.split(".")[0] for name in found}
    lacking = [part for part in sorted({n.split(".")[0] for n in expected}) if part not in parts]
    if lacking:
        raise InputError(
            f"checkpoint {path} holds only {', '.join(sorted(parts))}; a full checkpoint has "
            f"{', '.join(lacking)} too"
        )
    for name, shape in found.items():
        if name in expected and expected[name] != shape:
            raise InputError(
                f"checkpoint {path}: {name} has shape {shape}, expected {expected[name]} for "
                f"{wanted}; the model that it was saved from had been changed"
            )
    for what, names in (
        ("lacks", [name for name in expected if name not in found]),
        ("has unknown", [name for name in found if name not in expected]),
    ):
        if names:
            raise InputError(
                f"checkpoint {path} {what} {len(names)} tensors, such as {names[0]}; it is not a "
                f"plain {wanted}"
            )


def _architecture(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the name of the encoder by its width, empty without an encoder."""
    shape = next((shapes[name] for name in _ANCHORS[:2] if name in shapes), None)
    if not shape:
        return ""
    return _ENCODERS.get(shape[0], f"an encoder of width {shape[0]}")


def _describe(head: bytes) -> str:
    """Return a description of a file that is not a checkpoint."""
    start = head.lstrip().lower()
    if not head:
        return "the file is empty"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page; the download link led to a page, not to the file"
    if start.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer; run `git lfs pull`"
    if start.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"rar!")):
        return "it is a compressed archive; unpack it first"
    return "expected a file that torch.save or safetensors wrote"


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            text = (file.metadata() or {}).get(METADATA_KEY, "{}")
    except SafetensorError as error:
        raise InputError(
            f"checkpoint {path} is truncated or damaged ({_one_line(error)}); fetch it again"
        ) from error
    try:
        metadata = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"checkpoint {path}: its metadata is not JSON") from error
    if not isinstance(metadata, dict):
        raise InputError(f"checkpoint {path}: its metadata is not a JSON object")
    return tensors, metadata


def _read_pickle(path: Path) -> Any:
    """Load a file of torch.save: tensors and plain containers only."""
    try:
        # Explicitly: an environment variable can turn the implicit default off.
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = str(error)
        found = re.search(r"GLOBAL ([\w.]+)", text)
        if "Weights only load failed" in text and found:
            raise InputError(
                f"checkpoint {path} holds Python objects ({found[1]}), which could run code, and "
                f"was refused; save the model's state_dict alone"
            ) from error
        raise InputError(
            f"checkpoint {path} is refused: it holds more than tensors, or is damaged"
        ) from error
    except Exception as error:  # damaged bytes make the unpickler raise errors of any type
        raise InputError(
            f"checkpoint {path} is truncated or damaged, or not a file that torch.save wrote; "
            f"fetch it again"
        ) from error


def _unwrap(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """Return the one state dict inside a training script's file."""
    candidates = list(_candidates(content, ()))
    if not candidates:
        raise InputError(f"checkpoint {path} is not a SAM checkpoint: {_say_foreign(content)}")
    if len(candidates) > 1:
        candidates = [found for found in candidates if found[0][:1] and found[0][0] in _PREFERRED]
        candidates = candidates[:1] or [((), {}, "")]
        if not candidates[0][1]:
            raise InputError(
                f"checkpoint {path} holds several models; save the state_dict of one alone"
            )
    _, tensors, prefix = candidates[0]
    state: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        short = str(name).removeprefix(prefix).replace("_orig_mod.", "")
        if not isinstance(value, torch.Tensor):
            raise InputError(f"checkpoint {path}: {short} is not a tensor")
        # Forks store these constants with the weights; they never change.
        if short not in ("pixel_mean", "pixel_std"):
            state[short] = value
    if foreign := _foreign(state):
        raise InputError(f"checkpoint {path} is {foreign}")
    return state


def _candidates(
    content: Any, trail: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any], str]]:
    """Yield (keys of the path, state dict, prefix of its names) for each state dict."""
    if not isinstance(content, Mapping) or len(trail) > 3:
        return
    for anchor in _ANCHORS:
        for name in content:
            if str(name).replace("_orig_mod.", "").endswith(anchor):
                prefix = str(name)[: str(name).index(anchor.split(".")[0])]
                yield trail, content, prefix
                return
    for key, value in content.items():
        yield from _candidates(value, (*trail, str(key)))


def _foreign(names: Mapping[str, Any]) -> str:
    for mark, what in _FOREIGN.items():
        if any(str(name).startswith(mark) for name in names):
            return what
    return ""


def _say_foreign(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}"
    for names in (content, *(value for value in content.values() if isinstance(value, Mapping))):
        if foreign := _foreign(names):
            return f"it is {foreign}"
    some = ", ".join(str(name)[:60] for name in list(content)[:3])
    return f"it has no SAM weights, but {some or 'nothing'}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
