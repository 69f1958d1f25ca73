"""Counts of frames that a job encoded, and of those that it found in the store."""

from dataclasses import dataclass
from typing import Protocol


class HasCounts(Protocol):
    """A store, or a report of encoding."""

    @property
    def encoded(self) -> int:
        """Return the frames that were encoded and written."""
        ...

    @property
    def reused(self) -> int:
        """Return the frames that were wanted and found instead of being encoded."""
        ...


@dataclass
class FrameCounts:
    """Sums over stores and reports of encoding.

    Attributes:
        encoded: Frames that were encoded and written.
        reused: Frames that were wanted and found instead of being encoded.
    """

    encoded: int = 0
    reused: int = 0

    def add(self, counted: HasCounts | None) -> None:
        """Add the counts of a store, a report or another sum; None: nothing was counted."""
        if counted is not None:
            self.encoded += counted.encoded
            self.reused += counted.reused

    def to_json(self) -> dict[str, int]:
        """Return both as JSON values."""
        return {"encoded": self.encoded, "reused": self.reused}
