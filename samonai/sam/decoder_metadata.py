"""Metadata of a decoder file: checked, and read from its header without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from samonai.core.errors import InputError
from samonai.core.json_files import check_regular, parse_json
from samonai.core.sealed import DIGEST_KEY, is_whole
from samonai.settings import current_training

FORMAT_VERSION = 2
_WITHOUT_DIGESTS = 1
"""The version of files without digests, in which a flipped bit is not found."""

METADATA_KEY = "samonai"
"""The entry of a safetensors header that holds the metadata, as JSON."""

WEIGHTS_DIGEST = "weights_sha256"
"""The entry of the metadata that holds the digest of the weights."""

WINDOWS_ENTRY = "windows"
"""The entry of the training metadata that holds the rule of a decoder's windows; see `sam.windows`.

Absent: the decoder was trained on all image tokens.
"""

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


def read_decoder_metadata(path: Path | str) -> DecoderMetadata:
    """Return the metadata of a decoder file.

    Settings of the domain that open other files than those a user names are left out: a decoder may
    be a stranger's.

    Raises:
        InputError: The file is missing, damaged, or not written by samonai.
    """
    path = Path(path)
    content = checked_content(header_texts(path), path)
    content.pop(WEIGHTS_DIGEST, None)
    return metadata_of(content, path)


def header_texts(path: Path) -> dict[str, str]:
    """Return the texts in the header of a safetensors file.

    Raises:
        InputError: The file is missing, or not a whole safetensors file.
    """
    if not path.exists():
        raise InputError(f"there is no decoder at {path}; has the run finished an epoch?")
    try:
        check_regular(path)
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}") from error


def checked_content(texts: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return the entries of a header's metadata, without the version of the format.

    Raises:
        InputError: Metadata of samonai are missing or damaged, or of another version.
    """
    if METADATA_KEY not in texts:
        raise InputError(
            f"{path} is a safetensors file, but not a decoder that samonai wrote; a full model is "
            f"loaded with --checkpoint"
        )
    content = parse_json(texts[METADATA_KEY], f"{path}: the metadata")
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if version not in (_WITHOUT_DIGESTS, FORMAT_VERSION) or isinstance(version, bool):
        raise InputError(f"{path} was written by another version of samonai; train it again")
    said = {"format_version": version, **content}
    if version == FORMAT_VERSION and not (is_whole(said) and WEIGHTS_DIGEST in content):
        raise InputError(
            f"{path} is damaged: the checksum of its metadata differs; copy it again, or train "
            f"again"
        )
    content.pop(DIGEST_KEY, None)
    return dict(content)


def metadata_of(content: Mapping[str, Any], path: Path) -> DecoderMetadata:
    """Return the metadata of checked entries, under the names of today.

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


def trained_cases(training: Mapping[str, Any]) -> set[str]:
    """Return the cases that a decoder was trained on, by itself or in the runs it began from.

    Args:
        training: The training record of the decoder's file.
    """
    return {*training.get("train_cases", []), *training.get("earlier_cases", [])}


def _current_training(training: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the provenance under the names of today; types of the entries in use are checked."""
    lists = (training.get(name, []) for name in ("train_cases", "earlier_cases", "val_cases"))
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
