"""A row of the result: a ratio of two contestants, or a measured value; with or without a bar."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
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


def ratio_row(
    subject: str,
    name: str,
    over: Sequence[float],
    under: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    details: dict[str, Any] | None = None,
) -> Row:
    """State the ratio of two medians, with each round's own ratio as its spread.

    Args:
        subject: See `Row`, like the name.
        name: As there.
        over: A value per round.
        under: The same of the other contestant.
        at_least: See `Row`, like the rest.
        at_most: As there.
        details: As there.
    """
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return Row(
        subject,
        name,
        median(over) / median(under),
        "x",
        spread=(min(ratios), max(ratios)),
        at_least=at_least,
        at_most=at_most,
        details=details,
    )


def speed_up(
    subject: str, name: str, *, ours: Timing, theirs: Timing, at_least: float | None = None
) -> Row:
    """State how many times faster ours is: the ratio of medians, with each round's own ratio."""
    return ratio_row(
        subject,
        name,
        theirs.rounds,
        ours.rounds,
        at_least=at_least,
        details={
            "ours_seconds_per_image": list(ours.rounds),
            "theirs_seconds_per_image": list(theirs.rounds),
        },
    )
