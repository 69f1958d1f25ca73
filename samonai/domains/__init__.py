"""Domains: how each kind of data is read, cut into frames, merged and written back."""

import difflib
import inspect
from typing import Any

from samonai.domains.base import Case, Domain, Source
from samonai.domains.medical import MedicalDomain
from samonai.errors import InputError

DOMAINS: dict[str, type[MedicalDomain]] = {MedicalDomain.name: MedicalDomain}

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
    known = list(inspect.signature(DOMAINS[name]).parameters)
    for setting in settings:
        if setting not in known:
            close = difflib.get_close_matches(setting, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f": expected {', '.join(known)}"
            raise InputError(f"domain {name} has no setting {setting!r}{hint}")
    return DOMAINS[name](**settings)
