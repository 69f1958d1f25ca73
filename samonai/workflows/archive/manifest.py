"""Manifest of an archive: the result of each case, in an append-only file.

One JSON object per line, written through to the disk before the next study begins, so that a
stopped or killed run resumes. The first line holds the settings.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.journal import append_lines, whole_lines
from samonai.core.json_files import parse_json
from samonai.core.sealed import DIGEST_KEY, is_whole, sealed
from samonai.settings import compared, current_names
from samonai.version import __version__

DONE, FAILED, SKIPPED = "done", "failed", "skipped"

_STARTED, _AGAIN, _SESSION = "started", "again", "session"
_WITHOUT_DIGESTS, _FORMAT_VERSION = _VERSIONS = 1, 2
_BEGINNING = b'{"manifest": '


@dataclass
class Session:
    """One process at work on a manifest, which may have been interrupted.

    Attributes:
        cases: Number of cases of the manifest.
        of: Number of cases of the archive.
        began: Time of its start, in seconds since 1970; 0 in manifests of older versions.
        last: Time of the last result.
        finished: Number of cases finished since.
        frames: Number of their frames.
    """

    cases: int = 0
    of: int = 0
    began: float = 0.0
    last: float = 0.0
    finished: int = 0
    frames: int = 0


class Manifest:
    """Results of cases in an append-only file.

    Args:
        path: The file; made when missing.
        settings: Everything that the results depend on, as JSON values; a manifest with others is
            refused. None: the file is only read.

    Attributes:
        states: Case id to "done", "failed" or "skipped".
        reasons: Case id to reason, of cases that are not done.
        session: What the last session began with, and has finished.
        is_new: Whether nothing is written yet.

    Raises:
        InputError: The file has other settings, or is not a manifest.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any] | None) -> None:
        """Read the file."""
        self.path = path
        self.states: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self._attempts: Counter[str] = Counter()
        self._alone: Counter[str] = Counter()
        self.session = Session()
        self._settings = None if settings is None else json.loads(json.dumps(dict(settings)))
        self._whole_bytes: int | None = None
        records = self._read() if path.exists() or path.is_symlink() else []
        if records:
            self._check_header(records[0])
        for record in records[1:]:
            self._apply(record)
        self.is_new = not records

    def attempts(self, case_id: str) -> int:
        """Return the number of attempts on a case without a result."""
        return self._attempts[case_id]

    def alone(self, case_id: str) -> int:
        """Return the number of its attempts as the only case in work."""
        return self._alone[case_id]

    def started(self, case_id: str, *, alone: bool) -> None:
        """Record the start of a case."""
        self._append({"case": case_id, "state": _STARTED, "alone": alone})

    def finished(
        self,
        case_id: str,
        state: str,
        reason: str = "",
        files: Sequence[Path] = (),
        seconds: float = 0.0,
        frames: int = 0,
    ) -> None:
        """Record the result of a case."""
        record: dict[str, Any] = {"case": case_id, "state": state}
        if reason:
            record["reason"] = reason
        if files:
            record["files"] = [path.name for path in files]
        if frames:
            record["frames"] = frames
        self._append({**record, "seconds": round(seconds, 3), "at": _now()})

    def begin(self, cases: int, of: int) -> None:
        """Record the start of a session.

        Args:
            cases: Number of cases of this manifest, those with a result included.
            of: Number of cases of the whole archive.
        """
        self._append({"state": _SESSION, "cases": cases, "of": of, "at": _now()})

    def forget_failures(self) -> None:
        """Clear failed cases, so that they are tried again."""
        for case_id in [case for case, state in self.states.items() if state == FAILED]:
            self._append({"case": case_id, "state": _AGAIN})

    def _append(self, record: Mapping[str, Any]) -> None:
        lines = [record]
        if self.is_new:
            header = {"manifest": _FORMAT_VERSION, "samonai": __version__}
            lines.insert(0, {**header, "settings": self._settings})
        text = "".join(json.dumps(sealed(line), ensure_ascii=False) + "\n" for line in lines)
        append_lines(self.path, text, after=self._whole_bytes)
        self.is_new, self._whole_bytes = False, None
        self._apply(record)

    def _apply(self, record: Mapping[str, Any]) -> None:
        case_id, state = str(record.get("case")), str(record.get("state"))
        if state == _SESSION:
            cases, of, at = (record.get(key, 0) for key in ("cases", "of", "at"))
            self.session = Session(int(cases), int(of), float(at), float(at))
            return
        if state == _STARTED:
            self._attempts[case_id] += 1
            self._alone[case_id] += bool(record.get("alone"))
            return
        self._attempts.pop(case_id, None)
        self._alone.pop(case_id, None)
        self.states.pop(case_id, None)
        self.reasons.pop(case_id, None)
        if state in (DONE, FAILED, SKIPPED):
            self.states[case_id] = state
            if state != SKIPPED:
                self.session.finished += 1
                self.session.frames += int(record.get("frames", 0))
                self.session.last = float(record.get("at", 0.0))
            if record.get("reason"):
                self.reasons[case_id] = str(record["reason"])

    def _read(self) -> list[dict[str, Any]]:
        if self.path.is_symlink() or not self.path.is_file():
            raise InputError(
                f"{self.path} is a link, or no file, which no manifest is; choose another folder"
            )
        content = self.path.read_bytes()
        lines, size = whole_lines(content)
        if size < len(content):
            # A line cut off by a kill records nothing. It is cut off
            # with the next line that is written, and the file is unchanged before.
            self._whole_bytes = size
        if not lines and not _BEGINNING.startswith(content[: len(_BEGINNING)]):
            raise InputError(f"{self.path} is no manifest of samonai; choose another folder")
        try:
            records = [parse_json(line, f"line {n}") for n, line in enumerate(lines, 1)]
        except InputError as error:
            raise InputError(f"{self.path} is damaged ({error}); choose another folder") from error
        if not all(isinstance(record, dict) for record in records):
            raise InputError(f"{self.path} is no manifest of samonai; choose another folder")
        version = records[0].get("manifest") if records else None
        for number, record in enumerate(records if version in _VERSIONS else (), 1):
            if (DIGEST_KEY in record or version != _WITHOUT_DIGESTS) and not is_whole(record):
                raise InputError(
                    f"{self.path} is damaged (the checksum of line {number} differs); choose "
                    "another folder"
                )
        return records

    def _check_header(self, header: Mapping[str, Any]) -> None:
        if header.get("manifest") not in _VERSIONS:
            raise InputError(f"{self.path} is no manifest of samonai; choose another folder")
        written = header.get("settings")
        if self._settings is None:
            return
        if not isinstance(written, dict):
            raise InputError(f"{self.path} is no manifest of samonai; choose another folder")
        # Files and folders are recorded by identifiers of their content, and are compared too.
        found = {
            key: value
            for key, value in current_names(written).items()
            if compared(key) or key in self._settings
        }
        differing = sorted(
            key
            for key in found.keys() | self._settings.keys()
            if found.get(key) != self._settings.get(key)
        )
        if differing:
            raise InputError(
                f"{self.path.parent} holds results of other settings ({', '.join(differing)}); "
                f"choose another folder"
            )


def _now() -> float:
    return round(time.time(), 3)
