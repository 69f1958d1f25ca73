"""Counters of encoded and reused frames, over all stores opened in a block of code."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class HasCounts(Protocol):
    """An open store."""

    encoded: int
    reused: int


@dataclass
class FrameCounts:
    """The sum of the counters of all stores opened inside the block."""

    stores: list[HasCounts] = field(default_factory=list)

    @property
    def encoded(self) -> int:
        """Return the frames that were encoded and written."""
        return sum(store.encoded for store in self.stores)

    @property
    def reused(self) -> int:
        """Return the frames that were found stored instead of being encoded."""
        return sum(store.reused for store in self.stores)

    def to_json(self) -> dict[str, int]:
        """Return both as JSON values."""
        return {"encoded": self.encoded, "reused": self.reused}


_listening: list[FrameCounts] = []


@contextmanager
def counting_frames() -> Iterator[FrameCounts]:
    """Count over every store that this process opens inside the block, in any function.

    Yields:
        The counts, which stay readable after the block.
    """
    counts = FrameCounts()
    _listening.append(counts)
    try:
        yield counts
    finally:
        # By identity: two counts with the same stores are equal.
        _listening[:] = [other for other in _listening if other is not counts]


def announce(store: HasCounts) -> None:
    """Register an opened store with all active counters."""
    for counts in _listening:
        counts.stores.append(store)
