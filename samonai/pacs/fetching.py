"""Series of a PACS as cases: listed by a query, fetched when they are read, removed afterwards.

Fetched files hold patients' names. They lie in a folder that only its owner may read, below
samonai's cache, and are removed when the process ends; those of a killed process, when the next one
begins.
"""

import shutil
import threading
import weakref
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from samonai.core.errors import InputError
from samonai.core.folders import whole_folder
from samonai.core.locks import locked_folder
from samonai.core.pseudonyms import pseudonym
from samonai.domains.base import Case, Domain
from samonai.pacs.address import parse_address
from samonai.pacs.matching import FoundSeries
from samonai.pacs.opening import open_client
from samonai.sam.checkpoints import cache_dir

_PREFIX = "fetched-"


class PacsSeries:
    """The series of a PACS that match the query of an address.

    Args:
        address: The PACS and the query.
        series: SeriesInstanceUID, if only one of them is wanted; None: all.
        folder: Where fetched series are kept; None: a folder of this process.

    Attributes:
        left_out: Case id to reason, of the series without images.

    Raises:
        InputError: The address cannot be used, or its client is not installed.
    """

    def __init__(
        self, address: Path | str, series: str | None = None, folder: Path | None = None
    ) -> None:
        """Check the address; nothing is asked yet."""
        self.address = parse_address(address)
        if series is not None:
            query = {**self.address.query, "SeriesInstanceUID": series}
            self.address = replace(self.address, query=query)
        open_client(self.address)
        self.left_out: dict[str, str] = {}
        self._found: dict[str, FoundSeries] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._given, self._own = folder, None if folder else _PrivateFolder()

    @property
    def folder(self) -> Path:
        """Return the folder of fetched series."""
        found = self._given if self._own is None else self._own.path
        assert found is not None
        return found

    def cases(self, domain: Domain[Any]) -> list[Case]:
        """List the series that hold images, sorted by id; a case's id is a pseudonym.

        Args:
            domain: Gives the pseudonyms, and writes the case map if it has one.

        Raises:
            InputError: The PACS cannot be asked, or has no such series.
        """
        found = open_client(self.address).find(self.address.query)
        images = [one for one in found if not one.left_out or "Modality" in self.address.query]
        if not images:
            others = f"; {len(found)} without images" if found else ""
            raise InputError(f"{self.address.shown} has no series that match the query{others}")
        self.left_out = {pseudonym(one.series): one.left_out or "" for one in found}
        for one in images:
            self.left_out.pop(pseudonym(one.series))
        self._found = {pseudonym(one.series): one for one in images}
        self._locks = {name: threading.Lock() for name in self._found}
        named = [Case(one.series, self.folder / pseudonym(one.series)) for one in images]
        hide = getattr(domain, "pseudonymous", None)
        assert hide is not None
        return list(hide(named))

    def read(self, case: Case, domain: Domain[Any]) -> Any:
        """Fetch a case's series, unless it is there, and read it; safe in several threads.

        Cases that are not of the PACS are read as they are.

        Raises:
            InputError: The series cannot be fetched whole, or cannot be read.
        """
        if case.case_id not in self._found:
            return domain.read(case)
        try:
            with self._locks[case.case_id]:
                self._fetch(case)
                return domain.read(case)
        except InputError as error:
            raise InputError(str(error).replace(str(case.image), case.case_id)) from error

    def release(self, case: Case) -> None:
        """Remove a case's fetched files."""
        shutil.rmtree(case.image, ignore_errors=True)

    def close(self) -> None:
        """Remove all fetched files, unless they are kept in a given folder."""
        if self._own is not None:
            self._own.close()

    def origin(self, case: Case) -> Case:
        """Return a case that names its series, not the present folder of its files."""
        found = self._found[case.case_id]
        return replace(case, image=Path("pacs") / found.study, series=found.series)

    def facts(self, case_id: str) -> dict[str, str] | None:
        """Return UIDs and modality of a case; None: it is not of the PACS."""
        found = self._found.get(case_id)
        if found is None:
            return None
        uids = {"StudyInstanceUID": found.study, "SeriesInstanceUID": found.series}
        return uids | ({"Modality": found.modality} if found.modality else {})

    def fingerprint(self) -> str:
        """Return an identifier of the PACS and the query, without patients' names."""
        return pseudonym(f"{self.address.shown} {sorted(self.address.query.items())}")

    def _fetch(self, case: Case) -> None:
        if case.image.is_dir():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        with whole_folder(case.image) as new:
            open_client(self.address).fetch(self._found[case.case_id], new)


class _PrivateFolder:
    """A folder of this process that only its owner may read, removed with the object.

    Attributes:
        path: The folder.
        close: Removes it.
    """

    def __init__(self) -> None:
        """Make it, and remove those of killed processes."""
        parent = cache_dir().parent / "pacs"
        kept = ExitStack()
        try:
            parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            parent.chmod(0o700)
            _remove_abandoned(parent)
            name = kept.enter_context(TemporaryDirectory(prefix=_PREFIX, dir=parent))
        except OSError as error:
            raise InputError(
                f"{parent}: fetched series cannot be kept there ({error.strerror}); set "
                f"SAMONAI_CACHE to another folder"
            ) from error
        self.path = Path(name)
        kept.enter_context(locked_folder(self.path, "fetching into"))
        self.close = weakref.finalize(self, kept.close)


def _remove_abandoned(parent: Path) -> None:
    for left in parent.glob(f"{_PREFIX}*"):
        try:
            with locked_folder(left, "fetching into"):
                shutil.rmtree(left, ignore_errors=True)
        except InputError:  # its process lives
            continue
