"""A row of the result: a ratio of two contestants, or a measured value; with or without a bar."""

from dataclasses import dataclass
from typing import Any

from benchmarks.timing import Timing


@dataclass(frozen=True)
class Row:
    """One measured statement.

    Attributes:
        subject: The file that measured it.
        name: Name of the figure.
        value: The ratio, or the value.
        unit: "x" for ratios of times or memory, "GB/s", or "relative error".
        spread: Least and greatest of the rounds.
        at_least: The bar that `value` has to reach, or None.
        at_most: The bar that `value` must not pass, or None.
        details: What the value was computed from, as JSON values.
    """

    subject: str
    name: str
    value: float
    unit: str
    spread: tuple[float, float] | None = None
    at_least: float | None = None
    at_most: float | None = None
    details: dict[str, Any] | None = None

    @property
    def met(self) -> bool | None:
        """Return whether the bar is met; None without a bar."""
        if self.at_least is None and self.at_most is None:
            return None
        high_enough = self.at_least is None or self.value >= self.at_least
        return high_enough and (self.at_most is None or self.value <= self.at_most)


def speed_up(
    subject: str, name: str, *, ours: Timing, theirs: Timing, at_least: float | None = None
) -> Row:
    """State how many times faster ours is: the ratio of medians, with each round's own ratio."""
    ratios = [their / our for their, our in zip(theirs.rounds, ours.rounds, strict=True)]
    return Row(
        subject,
        name,
        theirs.median / ours.median,
        "x",
        spread=(min(ratios), max(ratios)),
        at_least=at_least,
        details={
            "ours_seconds_per_image": list(ours.rounds),
            "theirs_seconds_per_image": list(theirs.rounds),
        },
    )
