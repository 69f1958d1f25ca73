"""Contestants take turns on the clock."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Contestant:
    """Something to time.

    Attributes:
        run: One repetition, start to end.
        images: How many images one repetition works on; times are per image.
        repeats: Repetitions per round. Short ones take more, so that each round is a fair sample.
    """

    run: Callable[[], object]
    images: int = 1
    repeats: int = 1


@dataclass(frozen=True)
class Timing:
    """Seconds per image: the median of each round's repetitions, in the order of the rounds."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the median round in seconds per image."""
        return median(self.rounds)


def interleave(
    contestants: Mapping[str, Contestant], *, rounds: int, warm_up: bool, progress: Progress
) -> dict[str, Timing]:
    """Time all contestants in turns: A B C A B C ….

    Args:
        contestants: What to time, by name.
        rounds: Turns that each contestant gets.
        warm_up: Run each once before the clock starts.
        progress: Told what runs now.
    """
    if warm_up:
        for name, contestant in contestants.items():
            progress(f"{name}: warm-up")
            contestant.run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds):
        for name, contestant in contestants.items():
            progress(f"{name}: round {turn + 1} of {rounds}")
            taken = [_clock(contestant.run) for _ in range(contestant.repeats)]
            seconds[name].append(median(taken) / contestant.images)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
