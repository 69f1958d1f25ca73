"""Output ownership: files of a prediction are not replaced by those of another source.

Cases are named after files and folders, and two patients' scans often have the same name. The
first prediction of a case registers its source in the folder, in an append-only file; a
prediction of another source of that name is refused.
"""

import hashlib
import json
import os
from pathlib import Path

from samonai.core.errors import InputError
from samonai.core.journal import append_lines
from samonai.core.pseudonyms import PREFIX, pseudonym
from samonai.domains.base import Case

OWNERSHIP_FILE = ".sources.jsonl"
_ANY_FILE = ".sources*.jsonl"
_DIGITS = 16


class OutputOwnership:
    """Register of the source of each case in a folder of predictions.

    Args:
        folder: The folder of predictions.
        name: Name of the file that this job appends to. Jobs that share a folder have one each:
            some file systems of several machines lose lines of a file that all append to.
    """

    def __init__(self, folder: Path, name: str = OWNERSHIP_FILE) -> None:
        """Read the registers of the folder."""
        self.folder, self.path = folder, folder / name
        self._registered: dict[str, str] = {}
        self._torn = False
        self._read()

    def _read(self) -> None:
        for path in {*self.folder.glob(_ANY_FILE), self.path}:
            content = _content(path)
            if path == self.path:
                self._torn = not content.endswith("\n") and bool(content)
            for line in content.splitlines():
                try:
                    record = json.loads(line)
                    self._registered[record["case"]] = record["source"]
                except (ValueError, KeyError, TypeError, RecursionError):  # killed while writing
                    continue

    def register(self, case: Case) -> None:
        """Register the source of a case's predictions, before any is written.

        Raises:
            InputError: Files of the case's name exist and are not known to be of this source.
        """
        source, known = _mark(case), self._registered.get(case.case_id)
        if source == known:
            return
        if self._files_of(case.case_id):
            self._read()  # another job may have registered more since
            known = self._registered.get(case.case_id)
            if source == known:
                return
        if there := self._files_of(case.case_id):
            why = (
                "no prediction wrote it" if known is None else "it is of another input of this name"
            )
            raise InputError(
                f"{there[0]} is there already, and {why}; choose another folder (--out), so that "
                f"nothing is overwritten"
            )
        record = json.dumps({"case": case.case_id, "source": source}, ensure_ascii=False) + "\n"
        if self._torn:
            record = "\n" + record
        self.folder.mkdir(parents=True, exist_ok=True)
        append_lines(self.path, record)
        self._registered[case.case_id], self._torn = source, False

    def _files_of(self, case_id: str) -> list[Path]:
        """Return files of a case's name; those of `a.b` are not those of `a`."""
        longer = [f"{known}." for known in self._registered if known.startswith(f"{case_id}.")]
        return sorted(
            path
            for path in self.folder.glob("*")
            if path.name.startswith(f"{case_id}.") and not path.name.startswith(tuple(longer))
        )


def _content(path: Path) -> str:
    try:
        return path.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""


def _mark(case: Case) -> str:
    """Return an identifier of a source without its path, which may contain a patient's name."""
    place = os.path.realpath(case.image) if os.path.exists(case.image) else str(case.image)
    text = "\n".join([place, case.series or "", case.part or ""])
    if case.case_id.startswith(PREFIX):
        return pseudonym(text)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]
