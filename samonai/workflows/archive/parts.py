"""Parts of an archive: each worker of a job array, or of torchrun, works on the studies of one.

A study belongs to a part by a hash of its case id: those that arrive later do not move the others.
Every part has a manifest and a lock of its own in one folder of results.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from samonai.core.errors import InputError
from samonai.core.locks import LOCK_FILE, is_locked

_GIVEN = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)
_WHOLE_MANIFEST = "manifest.jsonl"
_PART_MANIFEST = re.compile(r"manifest\.(\d+)-of-(\d+)\.jsonl", re.ASCII)
_PART_LOCK = re.compile(re.escape(LOCK_FILE) + r"\.(\d+)-of-(\d+)", re.ASCII)
_SLURM = "SLURM_ARRAY_TASK_"


@dataclass(frozen=True)
class Part:
    """One of several parts of an archive.

    Attributes:
        number: Its number, from 1.
        count: Number of parts; 1 for the whole archive.

    Raises:
        InputError: There is no such part.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.count < 1 or not 1 <= self.number <= self.count:
            raise InputError(
                f"part {self}: parts are numbered from 1 to their count, such as 1/8 to 8/8"
            )

    def __str__(self) -> str:
        """Return it as it is given, such as "2/8"."""
        return f"{self.number}/{self.count}"

    @property
    def manifest(self) -> str:
        """Name of its manifest."""
        return self._named("manifest", ".jsonl")

    @property
    def lock(self) -> str:
        """Name of its lock file."""
        return self._named(LOCK_FILE, "")

    @property
    def doing(self) -> str:
        """Activity of its worker, for messages."""
        return "working into" if self.count == 1 else f"working on part {self} in"

    def has(self, case_id: str) -> bool:
        """Return whether a case belongs to the part."""
        if self.count == 1:
            return True
        digest = hashlib.sha256(case_id.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def named(self, name: str) -> str:
        """Return the name of a file of which each part has its own."""
        stem, dot, ending = name.rpartition(".")
        return self._named(stem, dot + ending)

    def _named(self, stem: str, ending: str) -> str:
        own = "" if self.count == 1 else f".{self.number}-of-{self.count}"
        return f"{stem}{own}{ending}"


WHOLE = Part()


def as_part(given: "Part | str | None") -> Part:
    """Return a part given as text, such as "2/8"; None is the whole archive.

    Raises:
        InputError: The text is not a part.
    """
    if given is None or isinstance(given, Part):
        return given or WHOLE
    found = _GIVEN.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        raise InputError(f"part {given!r}: expected K/N, such as 2/8 for the second of eight parts")
    return Part(int(found[1]), int(found[2]))


@dataclass(frozen=True)
class Assigned:
    """A worker's part by the environment of its job.

    Attributes:
        part: The part.
        why: The variables that it comes from; empty for the whole archive.
        local_rank: Number of the process on its machine under torchrun; None elsewhere.
    """

    part: Part
    why: str = ""
    local_rank: int | None = None

    @property
    def device(self) -> str | None:
        """Return the GPU of the local rank; None without GPUs, or without torchrun."""
        if self.local_rank is None:
            return None
        import torch  # takes seconds

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return f"cuda:{self.local_rank % gpus}" if gpus else None


def assigned_part(environment: Mapping[str, str] = os.environ) -> Assigned:
    """Return the part of a task of a Slurm array, of a process of torchrun, or of both.

    The tasks of an array may be numbered from 0, from 1 or from elsewhere, in equal steps.

    Raises:
        InputError: The variables give no part.
    """
    found = Assigned(WHOLE)
    if f"{_SLURM}ID" in environment and f"{_SLURM}COUNT" in environment:
        found = _of_array(environment)
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= environment.keys():
        rank, world = (_number(environment, name) for name in ("RANK", "WORLD_SIZE"))
        told = f"RANK={rank} and WORLD_SIZE={world}"
        array = found.part
        part = Part((array.number - 1) * world + rank + 1, array.count * world)
        why = " with ".join(filter(None, (found.why, told)))
        found = Assigned(part, why, _number(environment, "LOCAL_RANK"))
    return found if found.part.count > 1 else replace(found, why="")


def _of_array(environment: Mapping[str, str]) -> Assigned:
    task, count = (_number(environment, f"{_SLURM}{name}") for name in ("ID", "COUNT"))
    first = _number(environment, f"{_SLURM}MIN", default=1 if task else 0)
    step = max(_number(environment, f"{_SLURM}STEP", default=1), 1)
    place, rest = divmod(task - first, step)
    why = f"{_SLURM}ID={task} and {_SLURM}COUNT={count}"
    if rest or not 0 <= place < count:
        raise InputError(
            f"{why}, with ids from {first} in steps of {step}, give no part: the array has gaps; "
            f"give --part K/N"
        )
    return Assigned(Part(place + 1, count), why)


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(f"{name}={text!r} is not a number; unset it, or give --part K/N")
    return int(text)


def parts_of(folder: Path, *, locked: bool = False) -> list[Part]:
    """Return the parts of a folder that have a manifest, by number.

    Args:
        folder: The folder of results.
        locked: Also those that a process works on without a manifest yet.

    Raises:
        InputError: The folder cannot be listed.
    """
    try:
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error
    found = {WHOLE} if _WHOLE_MANIFEST in names else set()
    for name in names:
        if told := _PART_MANIFEST.fullmatch(name):
            found.add(Part(int(told[1]), int(told[2])))
        held = _PART_LOCK.fullmatch(name) if locked else None
        if held is not None and is_locked(folder / name):
            found.add(Part(int(held[1]), int(held[2])))
    if locked and LOCK_FILE in names and is_locked(folder / LOCK_FILE):
        found.add(WHOLE)
    return sorted(found, key=lambda part: (part.count, part.number))


def check_counts(folder: Path, part: Part) -> None:
    """Refuse a folder whose results are of another number of parts: studies would be done twice.

    Raises:
        InputError: The folder holds another number of parts.
    """
    for other in parts_of(folder, locked=True):
        if other.count == part.count:
            continue
        there = f"{other.count} parts" if other.count > 1 else "an archive in one part"
        given = f"part {part}" if part.count > 1 else "the whole archive"
        remedy = f"--part K/{other.count}" if other.count > 1 else "no --part"
        raise InputError(
            f"{folder} holds results of {there}, but {given} is to be done; give {remedy}, or "
            f"another folder"
        )
