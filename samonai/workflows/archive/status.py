"""State of an archive over all of its parts, read from their manifests while workers run."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from samonai.core.errors import InputError
from samonai.core.files import as_path
from samonai.core.locks import is_locked
from samonai.workflows.archive.manifest import DONE, FAILED, SKIPPED, Manifest
from samonai.workflows.archive.parts import Part, parts_of


@dataclass(frozen=True)
class PartStatus:
    """State of one part.

    Attributes:
        part: The part.
        manifest: Its manifest.
        at_work: Whether a process works on it.
    """

    part: Part
    manifest: Manifest
    at_work: bool

    @property
    def open(self) -> int:
        """Number of its studies without a result, as far as its last worker listed them."""
        return max(self.manifest.session.cases - len(self.manifest.states), 0)

    def count(self, state: str) -> int:
        """Return the number of its studies in a state."""
        return sum(found == state for found in self.manifest.states.values())

    def rates(self, now: float) -> tuple[float, float]:
        """Return studies and frames per second of the worker; 0 before its first result."""
        session = self.manifest.session
        seconds = now - session.began
        if not (self.at_work and session.began and seconds > 0):
            return 0.0, 0.0
        return session.finished / seconds, session.frames / seconds

    def line(self) -> str:
        """Return one line for users."""
        told = ", ".join(f"{self.count(state)} {state}" for state in (DONE, FAILED, SKIPPED))
        working = "at work" if self.at_work else "stopped" if self.open else "finished"
        return f"part {self.part}: {told}, {self.open} to do; {working}"


@dataclass(frozen=True)
class ArchiveStatus:
    """State of an archive.

    Attributes:
        out: The folder of results.
        parts: The parts that have started.
        not_started: The others.
        now: Time of the state, in seconds since 1970.
    """

    out: Path
    parts: Sequence[PartStatus]
    not_started: Sequence[Part]
    now: float

    def count(self, state: str) -> int:
        """Return the number of studies in a state."""
        return sum(part.count(state) for part in self.parts)

    @property
    def open(self) -> int:
        """Number of studies without a result, those of parts that have not started included."""
        listed = max((part.manifest.session.of for part in self.parts), default=0)
        known = sum(len(part.manifest.states) for part in self.parts)
        return max(listed - known, sum(part.open for part in self.parts), 0)

    @property
    def frames_per_second(self) -> float:
        """Frames per second of all workers, each since it began."""
        return sum(part.rates(self.now)[1] for part in self.parts)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last part at work ends; None before one of them has a result."""
        left = [0.0]
        for part in self.parts:
            if part.at_work and part.open:
                rate = part.rates(self.now)[0]
                if not rate:
                    return None
                left.append(part.open / rate)
        return max(left)

    def lines(self) -> Iterator[str]:
        """Yield lines for users."""
        for part in self.parts:
            for case_id, reason in sorted(part.manifest.reasons.items()):
                yield f"{part.manifest.states[case_id]:8} {case_id}: {reason}"
        if self.not_started or len(self.parts) > 1:
            yield from (part.line() for part in self.parts)
        if self.not_started:
            yield f"not started: {self._names(self.not_started)}"
        done, failed, skipped = (self.count(state) for state in (DONE, FAILED, SKIPPED))
        total = done + failed + skipped + self.open
        yield (
            f"{total} studies: {done} done, {failed} failed, {skipped} skipped, {self.open} to do"
        )
        working = sum(part.at_work for part in self.parts)
        if working:
            seconds = self.seconds_left
            left = "time left not known yet" if seconds is None else f"{_duration(seconds)} left"
            yield f"{working} at work, {self.frames_per_second:.3g} frames/s, {left}"
        elif self.open:
            yield "nothing is at work; the same commands go on"

    def other_parts(self, own: Part) -> str:
        """Return what the parts besides one's own lack, in one line."""
        still = [part for part in self.parts if part.part != own and part.open]
        if not still and not self.not_started:
            return "all other parts are finished"
        told = [f"{part.part} lacks {part.open}" for part in still[:8]]
        told += ["…"] if len(still) > 8 else []
        if self.not_started:
            told.append(f"not started: {self._names(self.not_started)}")
        return f"the other parts: {', '.join(told)}; samonai status {self.out}"

    @staticmethod
    def _names(parts: Sequence[Part]) -> str:
        more = f" and {len(parts) - 20} more" if len(parts) > 20 else ""
        return ", ".join(str(part) for part in parts[:20]) + more


def archive_status(out: Path | str) -> ArchiveStatus:
    """Read the state of an archive; nothing is written, and workers may run meanwhile.

    Args:
        out: The folder of results and manifests.

    Raises:
        InputError: The folder has no manifest, or those of differing numbers of parts.
    """
    folder = as_path(out, "the folder")
    started = parts_of(folder)
    if not started:
        raise InputError(f"{folder} has no manifest; give the folder that was --out of an archive")
    if len({part.count for part in started}) > 1:
        raise InputError(
            f"{folder} holds manifests of differing numbers of parts "
            f"({', '.join(part.manifest for part in started[:4])}); keep those of one"
        )
    found = []
    for part in started:
        lock = folder / part.lock
        found.append(PartStatus(part, Manifest(folder / part.manifest, None), is_locked(lock)))
    count = started[0].count
    others = [Part(n, count) for n in range(1, count + 1) if Part(n, count) not in set(started)]
    return ArchiveStatus(folder, found, others, time.time())


def _duration(seconds: float) -> str:
    """Return a duration in words, such as "3 h 20 min"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{round(seconds)} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
