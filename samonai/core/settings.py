"""Settings: their typed descriptions, and the validation of values.

A component's settings are the fields of a frozen dataclass, made by `setting`. Each states its
help, unit, range or choices, default and what it affects. `describe` reads them, `validate` checks.
"""

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from functools import cache, wraps
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from samonai.core.errors import InputError

_Component = TypeVar("_Component", bound=Callable[..., Any])


class Affects(IntEnum):
    """The effect of a setting; each level includes those below it."""

    NOTHING = 0
    """Way and place of a computation, or a check."""
    RESULTS = 1
    """Predicted label maps and measured values."""
    WEIGHTS = 2
    """The trained weights: another value makes another run."""
    PIXELS = 3
    """The encoder's input: another value needs other embeddings."""


@dataclass(frozen=True)
class Setting:
    """The description of one setting.

    Attributes:
        name: Its one name, from the command line to the component; in a table of all settings
            that of its block comes first: "sampler.box_jitter".
        group: Title of its group.
        default: Default of the component.
        types: Types of a value.
        optional: Whether null is a value.
        help: Meaning, in a sentence or two.
        affects: What a change of the value affects.
        unit: Unit of a number.
        low: Lowest number.
        high: Highest number.
        above: Whether `low` itself is too low.
        below: Whether `high` itself is too high.
        choices: Allowed texts or numbers; empty: any.
        option: Its own command-line option, instead of `--set`.
        internal: Given by the process or its launcher; no user sets it.
        defaults: Domain to its own default, where bundles differ.
    """

    name: str
    group: str
    default: Any
    types: tuple[type, ...]
    optional: bool
    help: str
    affects: Affects
    unit: str = ""
    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False
    choices: tuple[Any, ...] = ()
    option: str = ""
    internal: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_path(self) -> bool:
        """Return whether the value is a path, which is compared by content, not by name."""
        return Path in self.types

    def default_of(self, domain: str) -> Any:
        """Return the default in a domain's bundle."""
        return self.defaults.get(domain, self.default)

    def range_text(self) -> str:
        """Return the range or the choices in words, such as "above 0 and below 1"."""
        if self.choices:
            return ", ".join(str(choice) for choice in self.choices)
        parts = []
        if self.low is not None and self.low > -math.inf:
            low = _number_text(self.low)
            parts.append(f"above {low}" if self.above else f"{low} or more")
        if self.high is not None:
            parts.append(f"{'below' if self.below else 'at most'} {_number_text(self.high)}")
        return " and ".join(parts)

    def type_text(self) -> str:
        """Return the expected type in words, such as "a whole number"."""
        names = {
            bool: "true or false", int: "a whole number", float: "a number", str: "text",
            Path: "a path", Mapping: "pairs", Sequence: "a list",
        }  # fmt: skip
        types = [kind for kind in self.types if not (kind is int and float in self.types)]
        return " or ".join(names[kind] for kind in types)


def setting(
    default: Any,
    about: str,
    affects: Affects,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    above: bool = False,
    below: bool = False,
    choices: Sequence[Any] = (),
    option: str = "",
    internal: bool = False,
    defaults: Mapping[str, Any] | None = None,
) -> Any:
    """Return a dataclass field that describes a setting; see `Setting`; `about` is its help."""
    described = {
        "help": about, "affects": affects, "unit": unit, "low": low, "high": high, "above": above,
        "below": below, "choices": tuple(choices), "option": option, "internal": internal,
        "defaults": dict(defaults or {}),
    }  # fmt: skip
    return field(default=default, metadata={"setting": described})


@cache
def describe(group: type) -> dict[str, Setting]:
    """Return the settings of a dataclass by name, in the order of its fields."""
    hints = get_type_hints(group)
    # A component that takes over a group of settings keeps the group's title.
    owner = next(c for c in reversed(group.__mro__) if c.__dict__.get("__dataclass_fields__"))
    title = (owner.__doc__ or owner.__name__).splitlines()[0].rstrip(".")
    found = {}
    for entry in fields(group):
        if about := entry.metadata.get("setting"):
            types = _types(hints[entry.name])
            found[entry.name] = Setting(
                name=entry.name,
                group=title,
                default=entry.default,
                types=tuple(kind for kind in types if kind is not NoneType),
                optional=NoneType in types,
                **about,
            )
    return found


def validate(what: Setting, value: Any) -> Any:
    """Check the value of a setting and convert it to the described type.

    Args:
        what: The setting.
        value: The value; numbers of numpy and whole numbers for a float are converted.

    Raises:
        InputError: The value is of another type, out of range, or not one of the choices.
    """
    if value is None:
        if what.optional:
            return None
        raise InputError(f"{what.name}=null: expected {what.type_text()}{_such_as(what)}")
    value = plain_number(value)
    if type(value) is int and float in what.types and int not in what.types:
        value = float(value)
    if not _is_of(value, what.types):
        raise InputError(
            f"{what.name}={_short(value)}: expected {what.type_text()}{_such_as(what)}"
        )
    if what.choices and value not in what.choices:
        close = suggest(str(value), what.choices)
        raise InputError(
            f"{what.name}={_short(value)}: use one of "
            f"{', '.join(str(choice) for choice in what.choices)}{close}"
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(what, value)
    return value


def validate_fields(component: Any) -> None:
    """Check every described field of a frozen dataclass, and convert its numbers.

    Raises:
        InputError: See `validate`.
    """
    group: type = type(component)
    for name, what in describe(group).items():
        object.__setattr__(component, name, validate(what, getattr(component, name)))


def check_given(group: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a dataclass describes, checked.

    Args:
        group: The dataclass.
        given: Name to value; names that are not described are left out.

    Raises:
        InputError: See `validate`.
    """
    return {
        name: validate(what, given[name]) for name, what in describe(group).items() if name in given
    }


def plain_number(value: Any) -> Any:
    """Return a number of Python for one of numpy, as JSON needs it."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def renamed_parameters(**new: str) -> Callable[[_Component], _Component]:
    """Return a decorator of a component that names the new parameter where an old one is given.

    Args:
        **new: Old name of a parameter to its name, or to what replaces it in words.
    """

    def decorate(component: _Component) -> _Component:
        target: Any = component
        is_class = isinstance(component, type)
        called: Callable[..., Any] = target.__init__ if is_class else target

        @wraps(called)
        def checked(*args: Any, **kwargs: Any) -> Any:
            for old in kwargs.keys() & new.keys():
                raise InputError(
                    f"{component.__name__}({old}=…): there is no such parameter; its name is "
                    f"{new[old]}"
                )
            return called(*args, **kwargs)

        if not is_class:
            return cast(_Component, checked)
        target.__init__ = checked
        return component

    return decorate


def check_count(what: str, value: object, least: int = 1) -> None:
    """Refuse a count that is not a whole number or is too small.

    Raises:
        InputError: The value is not a whole number, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{what}: expected a whole number, got {value!r:.80}")
    if int(value) < least:
        raise InputError(f"{what}: expected {least} or more, got {value}")


def _check_number(what: Setting, value: float) -> None:
    low = -math.inf if what.low is None else what.low
    high = math.inf if what.high is None else what.high
    ends = (what.above and value == low) or (what.below and value == high)
    if not math.isfinite(value):
        raise InputError(f"{what.name}={value}: expected a finite number")
    if not low <= value <= high or ends:
        unit = f" {what.unit}" if what.unit else ""
        raise InputError(f"{what.name}={value:g}: expected {what.range_text()}{unit}")


def _number_text(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def _types(hint: Any) -> tuple[type, ...]:
    if get_origin(hint) in (Union, UnionType):
        return tuple(kind for inner in get_args(hint) for kind in _types(inner))
    return (get_origin(hint) or hint,)


def _is_of(value: Any, types: Iterable[type]) -> bool:
    if isinstance(value, bool):
        return bool in types
    if isinstance(value, str):
        return str in types or Path in types
    if isinstance(value, PathLike):
        return Path in types
    return isinstance(value, tuple(types))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _such_as(what: Setting) -> str:
    return "" if what.default is None else f" such as {_example(what)}"


def _example(what: Setting) -> str:
    return json.dumps(what.default, default=str)


def suggest(name: str, known: Iterable[Any]) -> str:
    """Return "; did you mean 'x'?" for a mistyped name, or an empty text."""
    close = difflib.get_close_matches(name, [str(key) for key in known], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
