"""Folders of transformers' `SamModel.save_pretrained`: weights and pixel normalisation."""

import json
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.sam.normalisation import SAM_NORMALISATION, Normalisation

HF_WEIGHTS = "model.safetensors"
HF_CONFIG = "config.json"
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_LARGEST_JSON = 1 << 20


def hf_folder(checkpoint: Path | str | None) -> Path | None:
    """Return the weights file of a `SamModel` folder; None if the checkpoint is not a folder.

    Raises:
        InputError: The folder holds no `SamModel` as safetensors, or another model.
    """
    if checkpoint is None or not isinstance(checkpoint, Path | str):
        return None
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        return None
    for name in (HF_CONFIG, HF_WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                f"checkpoint {folder} is a folder without {name}; give a .pth, .pt or .safetensors "
                f"file, or a folder that SamModel.save_pretrained of transformers wrote"
            )
    kind = _read_json(folder / HF_CONFIG).get("model_type")
    if kind != "sam":
        raise InputError(f"checkpoint {folder} holds a model of type {kind!r:.60}, expected 'sam'")
    return folder


def hf_normalisation(folder: Path) -> Normalisation | None:
    """Return the normalisation of a folder's image processor; None without a processor.

    Raises:
        InputError: The processor does more than rescaling by 1/255, mean and deviation.
    """
    for name in _PROCESSORS:
        if not (folder / name).is_file():
            continue
        content = _read_json(folder / name)
        processor = content.get("image_processor", content)
        rescaled = processor.get("do_rescale", True) and processor.get("do_normalize", True)
        mean, std = processor.get("image_mean"), processor.get("image_std")
        factor = processor.get("rescale_factor", 1 / 255)
        if not rescaled or not _is_triple(mean) or not _is_triple(std) or not _is_255th(factor):
            raise InputError(
                f"{folder / name}: expected rescaling by 1/255 and normalising with a mean and a "
                f"deviation of three numbers; this model needs other pixels than samonai gives it"
            )
        found = [value * 255 for value in (*mean, *std)]
        expected = [*SAM_NORMALISATION.pixel_mean, *SAM_NORMALISATION.pixel_std]
        if all(abs(a - b) < 1e-2 for a, b in zip(found, expected, strict=True)):
            return SAM_NORMALISATION
        return Normalisation("transformers", 1.0, tuple(mean), tuple(std))
    return None


def _is_triple(values: Any) -> bool:
    numbers = isinstance(values, list) and len(values) == 3
    return numbers and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _is_255th(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value * 255 - 1) < 1e-6


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST_JSON:
        raise InputError(f"{path} has more than 1 MB; expected a small JSON file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not JSON; export the folder again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object")
    return content
