"""Lazy public names of a package: each is imported from its module on first use."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: The package's `__name__`.
        homes: Public name to the module that has it, within the package.
    """

    def load(name: str) -> Any:
        """Import a public name on first use."""
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    def names() -> list[str]:
        """List the names, those that are not imported yet too."""
        return sorted({*vars(sys.modules[package]), *homes})

    return load, names
