"""Domains: how each kind of data is read, cut into frames, merged and written back.

Importing this package loads no library of a domain, so that the command line can list the names.
"""

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from samonai.core.errors import InputError
from samonai.core.settings import suggest

if TYPE_CHECKING:
    from samonai.domains.base import Domain

DOMAINS = {
    "medical": "samonai.domains.medical:MedicalDomain",
    "documents": "samonai.domains.documents:DocumentsDomain",
    "satellite": "samonai.domains.satellite:SatelliteDomain",
}
"""Name to class. A class is imported on first use: its libraries may be an extra."""

DEFAULT_DOMAIN = "medical"
"""Default domain, for jobs without a domain's name."""


def domain_class(name: str) -> Any:
    """Return the class of a domain.

    Raises:
        InputError: The name is not in `DOMAINS`.
    """
    if name not in DOMAINS:
        raise InputError(f"unknown domain {name!r}: expected one of {', '.join(DOMAINS)}")
    module, _, class_name = DOMAINS[name].partition(":")
    return getattr(import_module(module), class_name)


def setting_names(name: str) -> list[str]:
    """Return the names of the settings of a domain's class."""
    return list(inspect.signature(domain_class(name)).parameters)


def get_domain(name: str, **settings: Any) -> "Domain[Any]":
    """Build a domain by name.

    Args:
        name: A key of `DOMAINS`.
        **settings: Arguments of the domain's class, as returned by its `settings()`.

    Raises:
        InputError: The name or a setting is unknown.
    """
    known = setting_names(name)
    for setting in settings:
        if setting not in known:
            hint = suggest(setting, known) or f": expected {', '.join(known)}"
            raise InputError(f"domain {name} has no setting {setting!r}{hint}")
    domain: Domain[Any] = domain_class(name)(**settings)
    return domain
