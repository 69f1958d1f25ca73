"""Settings of a bundle's configuration: parsed, checked against the descriptions, defaults.

A name that the configuration does not have is refused; MONAI would ignore it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samonai.core.errors import InputError
from samonai.core.settings import Setting, plain_number, suggest, validate
from samonai.domains import get_domain
from samonai.settings import BLOCKS, domain_of_config, flat, recorded, renamed, settings_of
from samonai.workflows.bundle_files import is_evaluated, read_config

if TYPE_CHECKING:
    from samonai.domains.base import Domain


def plain_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a configuration by full names, with their defaults.

    These are the top-level entries with plain values, and the described entries of blocks.
    """
    described = described_settings(config)
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key in BLOCKS.values() and isinstance(value, Mapping):
            found |= {k: v for k, v in flat({key: value}).items() if k in described}
        elif not key.startswith("_"):
            found[key] = value
    return {
        key: value
        for key, value in found.items()
        if not (key in described and described[key].internal)
        and (value is None or isinstance(value, bool | int | float | str))
        and not is_evaluated(value)
    }


def names_used(config: Mapping[str, Any]) -> set[str]:
    """Return the names that a configuration defines, and those that it references."""
    referred = {name.replace("::", ".") for name in re.findall(r"@([\w:]+)", json.dumps(config))}
    return referred | flat(config).keys()


def described_settings(config: Mapping[str, Any]) -> dict[str, Setting]:
    """Return the descriptions of the settings that a configuration can have, by name."""
    return settings_of(domain_of_config(config))


def recorded_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings recorded by a training run, since another value makes another run."""
    return {name: value for name, value in settings.items() if recorded(name)}


def kept_settings(trained: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any]:
    """Return a run's settings that apply to its evaluation too, such as its component policy.

    Args:
        trained: The run's settings.
        files: The training configuration, and the evaluation's, whose own entries are left out.
    """
    overlay = read_config(files[1:])
    known = plain_settings(read_config(files[:1])).keys() - flat(overlay).keys()
    return {name: value for name, value in trained.items() if name in known}


def parse_settings(
    texts: Iterable[str], config: Mapping[str, Any], reserved: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Parse `key=value` texts of a user.

    Args:
        texts: The settings; the last of one key counts.
        config: The merged configuration.
        reserved: Keys with another option, and that option.

    Returns:
        Key to value, checked as `check_settings` does.

    Raises:
        InputError: A text is not `key=value`, or a setting is refused.
    """
    settings: dict[str, Any] = {}
    described, known = described_settings(config), plain_settings(config)
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text}: expected key=value")
        if key in (reserved or {}):
            raise InputError(f"--set {key}: give it as {(reserved or {})[key]}")
        settings[key] = _parse_value(value, known.get(key), described.get(key))
    return check_settings(settings, config)


def check_settings(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Check settings against a configuration and convert their values to the described types.

    Args:
        settings: Key to plain value; a block may be a mapping, see `flat`.
        config: The merged configuration.

    Returns:
        The settings by full names, with converted values.

    Raises:
        InputError: A key is unknown, a value is of another type or out of its range, or MONAI
            would evaluate it.
    """
    known, described = plain_settings(config), described_settings(config)
    settings = flat(settings)
    for key in settings:
        if key not in known:
            listed = f"{_suggest(key, known)}; `samonai bundle show` lists all"
            raise InputError(f"unknown setting {key!r}{renamed(key) or listed}")
    return {
        key: _checked(key, value, known[key], described.get(key)) for key, value in settings.items()
    }


def _suggest(key: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for a mistyped name, or one without its block."""
    full = [name for name in known if name.rpartition(".")[2] == key]
    return f"; did you mean {full[0]!r}?" if full else suggest(key, known)


def _parse_value(text: str, default: Any, setting: Setting | None) -> Any:
    """Return a typed text as its JSON value, else as text."""
    if isinstance(default, str):
        return text
    if setting is not None and text != "null" and set(setting.types) <= {str, Path}:
        return text
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return text


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that a setting can have")


def _checked(key: str, value: Any, default: Any, setting: Setting | None) -> Any:
    if is_evaluated(value):
        raise InputError(
            f"setting {key}: a value must not begin with $, @ or %, which MONAI would evaluate"
        )
    if value is None and default is None:
        return None  # the run's value, or none
    if value is not None and setting is not None:
        return validate(setting, value)
    return _of_default_type(key, value, default)


def _of_default_type(key: str, value: Any, default: Any) -> Any:
    """Check a value without a description: null, or an entry that a user added to a bundle."""
    if value is None:
        raise InputError(f"setting {key}: expected a value such as {json.dumps(default)}, got null")
    value = plain_number(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if default is not None and type(value) is not type(default):
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        raise InputError(
            f"setting {key}: expected {wanted[type(default)]} such as "
            f"{json.dumps(default)}, got {str(value)[:80]!r}"
        )
    return value


def domain_of(name: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> "Domain[Any]":
    """Build the domain of a training configuration."""
    asked = {key: settings[key] for key in config["domain"] if settings.get(key) is not None}
    return get_domain(name, **asked)
