"""Settings of all components, described once; see `samonai.core.settings`.

Types, ranges, help, what a run records, what makes another run, what `--overwrite` is about and
what an archive compares all derive from these descriptions.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from samonai.core.errors import InputError
from samonai.core.settings import Affects, Setting, describe
from samonai.settings.documents import DocumentsSettings
from samonai.settings.encoding import FileSettings, ModelSettings, ViewCountSettings, ViewSettings
from samonai.settings.inference import (
    CleaningSettings,
    CoarseLabelSettings,
    DecodingSettings,
    EvaluationSettings,
    FindingSettings,
    OutputSettings,
    PromptFileSettings,
    PropagationSettings,
)
from samonai.settings.medical import MedicalSettings
from samonai.settings.prompts import InteractiveSettings, MixupSettings, SamplerSettings
from samonai.settings.satellite import SatelliteSettings
from samonai.settings.training import DataSettings, HeadSettings, OptimisationSettings

DOMAINS: Mapping[str, type] = {
    "documents": DocumentsSettings,
    "medical": MedicalSettings,
    "satellite": SatelliteSettings,
}

COMMON: tuple[type, ...] = (
    ModelSettings, DataSettings, OptimisationSettings, HeadSettings, SamplerSettings,
    InteractiveSettings, ViewCountSettings, ViewSettings, MixupSettings, PromptFileSettings,
    CoarseLabelSettings, FindingSettings, DecodingSettings, CleaningSettings, PropagationSettings,
    OutputSettings, EvaluationSettings, FileSettings,
)  # fmt: skip

BLOCKS: Mapping[type, str] = {
    SamplerSettings: "sampler",
    InteractiveSettings: "interactive",
    ViewSettings: "augmentation",
    MixupSettings: "mixup",
    CoarseLabelSettings: "coarse_label",
    CleaningSettings: "cleaning",
    PropagationSettings: "propagation",
    EvaluationSettings: "evaluation",
}
"""Groups that are a block of the configuration; the others stand at its top."""

_EVAL = {"prompts", "box_jitter", "min_area", "clicks"}

RENAMED: Mapping[str, str] = {
    "turns": "tta",
    "embedding_mix": "mixup.probability",
    "embedding_mix_alpha": "mixup.alpha",
    "mixup_probability": "mixup.probability",
    "mixup_alpha": "mixup.alpha",
    **{f"view_{name}": f"augmentation.{name}" for name in describe(ViewSettings)},
    **{name: f"sampler.{name}" for name in describe(SamplerSettings)},
    **{name: f"interactive.{name}" for name in describe(InteractiveSettings)},
    **{f"label_{name}": f"coarse_label.{name}" for name in describe(CoarseLabelSettings)},
    **{name: f"cleaning.{name}" for name in describe(CleaningSettings)},
    **{f"propagate_{name}": f"propagation.{name}" for name in describe(PropagationSettings)},
    **{f"eval_{name}": f"evaluation.{name}" for name in _EVAL},
    **{name: f"evaluation.{name}" for name in describe(EvaluationSettings).keys() - _EVAL},
    "output_ending": "ending",
    "output_formats": "formats",
}
"""Old name of a setting to its name: for messages, and to read what older versions wrote."""

_OLD_TRAINING = {**RENAMED, "loss": "loss_recipe"}

_OLD_PROMPTS = {
    "shifted": "shifted_probability",
    "loose": "loose_probability",
    "with_mask": "with_mask_probability",
    "carried": "carried_probability",
    "positive": "positive_points",
    "negative": "negative_points",
}
"""Name in a decoder's file before, to the setting's name."""


@cache
def settings_of(domain: str | None = None) -> dict[str, Setting]:
    """Return every setting of a domain by name; those that all domains share for another one."""
    own = DOMAINS.get(domain) if domain is not None else None
    groups = COMMON if own is None else (own, *COMMON)
    found: dict[str, Setting] = {}
    for group in groups:
        block = BLOCKS.get(group)
        for field, what in describe(group).items():
            name = field if block is None else f"{block}.{field}"
            assert name not in found, f"two groups describe {name}"
            found[name] = replace(what, name=name)
    return found


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their full names, where blocks may be given as mappings.

    Args:
        values: Such as `{"epochs": 3, "sampler": {"box_jitter": 0.1}}`.

    Returns:
        Such as `{"epochs": 3, "sampler.box_jitter": 0.1}`.

    Raises:
        InputError: A block is no mapping.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in BLOCKS.values():
            found[name] = value
        elif isinstance(value, Mapping):
            found |= {f"{name}.{field}": inner for field, inner in value.items()}
        else:
            raise InputError(
                f"{name}={value!r:.80}: expected settings by name, as in {name}={{...}}, or "
                f"{name}.NAME=VALUE"
            )
    return found


def block(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of one block by the names of its component's fields."""
    start = f"{name}."
    return {key.removeprefix(start): v for key, v in values.items() if key.startswith(start)}


def domain_of_config(config: Mapping[str, Any]) -> str | None:
    """Return the domain that a bundle's configuration is for, or None for an unknown one."""
    about = config.get("domain")
    if not isinstance(about, Mapping):
        return None
    target = str(about.get("_target_", ""))
    if target.endswith(".trained_domain"):
        return str(about.get("name", "medical"))
    return next((name for name in DOMAINS if f".domains.{name}." in target), None)


def renamed(name: str) -> str:
    """Return "; its name is 'x'" for an old name, or nothing."""
    return f"; its name is {RENAMED[name]!r}" if name in RENAMED else ""


def compared(name: str) -> bool:
    """Return whether another value of a setting gives other results.

    Files and folders are compared by what they hold, not by their names.
    """
    found = _anywhere(name)
    return all(what.affects > Affects.NOTHING and not what.is_path for what in found)


def recorded(name: str) -> bool:
    """Return whether a training run keeps a setting, so that another value makes another run."""
    found = _anywhere(name)
    return all(what.affects >= Affects.WEIGHTS and not what.is_path for what in found)


def options() -> dict[str, str]:
    """Return the settings that have a command-line option of their own, and the option."""
    return {
        name: what.option
        for domain in DOMAINS
        for name, what in settings_of(domain).items()
        if what.option
    }


def settings_below_pixels(group: type) -> frozenset[str]:
    """Return the settings of a group that do not change the encoder's input."""
    described = describe(group)
    return frozenset(name for name, what in described.items() if what.affects < Affects.PIXELS)


def current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that an older version wrote, under their names of today."""
    return {RENAMED.get(name, name): value for name, value in settings.items()}


def current_training(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a decoder's file says of its training under the names of today."""
    current: dict[str, Any] = {}
    for name, value in training.items():
        group, _, field = _OLD_TRAINING.get(name, name).rpartition(".")
        inner = current.setdefault(group, {}) if group else current
        if isinstance(inner, dict):
            inner[field] = value
    if isinstance(prompts := current.get("prompts"), Mapping):
        current["prompts"] = _current_prompts(prompts)
    return current


def _current_prompts(prompts: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {f"{kind}_probability": share for kind, share in prompts.get("kinds", {}).items()}
    others = {_OLD_PROMPTS.get(name, name): value for name, value in prompts.items()}
    others.pop("kinds", None)
    return kinds | others


def _anywhere(name: str) -> list[Setting]:
    tables = (settings_of(domain) for domain in DOMAINS)
    return [table[name] for table in tables if name in table]
