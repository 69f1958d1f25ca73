"""Domains with changed frames before encoding: rotated, mirrored, augmented."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from samonai.core.frame import Frame
from samonai.domains.base import Domain, Source


class _Changed:
    """A domain with another's frames, changed; all else is the other's."""

    def __init__(
        self, domain: Domain[Any], note: Mapping[str, Any], change: Callable[[Source, Frame], Frame]
    ) -> None:
        self._domain, self._note, self._change = domain, note, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._domain, name)

    def settings(self) -> dict[str, Any]:
        """Return the domain's settings and the note, which distinguishes it in a store."""
        return {**self._domain.settings(), **self._note}

    def frame(self, source: Source, index: int) -> Frame:
        """Cut a frame and change it."""
        return self._change(source, self._domain.frame(source, index))


def changed_frames(
    domain: Domain[Any], note: Mapping[str, Any], change: Callable[[Source, Frame], Frame]
) -> Domain[Any]:
    """Return a domain that cuts other frames of the same sources, on the same grids.

    Args:
        domain: Cuts the frames.
        note: JSON values that describe the change, beside the domain's settings.
        change: Changes a frame of a source.
    """
    return cast(Domain[Any], _Changed(domain, note, change))
