"""Domains: how each kind of data is read, cut into frames, merged and written back."""

import difflib
import inspect
from importlib import import_module
from typing import Any

from samonai.core.errors import InputError
from samonai.domains.base import Case, Domain, Source

DOMAINS = {
    "medical": "samonai.domains.medical:MedicalDomain",
    "documents": "samonai.domains.documents:DocumentsDomain",
    "satellite": "samonai.domains.satellite:SatelliteDomain",
}
"""Name to class. A class is imported when it is asked for: its libraries may be an extra."""

__all__ = ["DOMAINS", "Case", "Domain", "Source", "get_domain"]


def get_domain(name: str, **settings: Any) -> Domain:
    """Build a domain by name.

    Args:
        name: A key of `DOMAINS`.
        **settings: What the domain's class takes, as its `settings()` returned them.

    Raises:
        InputError: When the name or a setting is unknown.
    """
    if name not in DOMAINS:
        raise InputError(f"unknown domain {name!r}: expected one of {', '.join(DOMAINS)}")
    module, _, class_name = DOMAINS[name].partition(":")
    domain_class: Any = getattr(import_module(module), class_name)
    known = list(inspect.signature(domain_class).parameters)
    for setting in settings:
        if setting not in known:
            close = difflib.get_close_matches(setting, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f": expected {', '.join(known)}"
            raise InputError(f"domain {name} has no setting {setting!r}{hint}")
    domain: Domain = domain_class(**settings)
    return domain
