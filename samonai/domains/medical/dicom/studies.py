"""Study discovery: the scans of an archive, in nested and mixed folders as hospitals export them.

Only headers are read. An unreadable series becomes a case too, and its reading fails with the
reason.
"""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from samonai.core.errors import InputError
from samonai.core.files import walk_below
from samonai.domains.base import Case
from samonai.domains.medical.dataset import is_dicom_file
from samonai.domains.medical.dicom.headers import not_a_scan, quiet, read_header
from samonai.domains.medical.formats.read_volume import ENDINGS, strip_ending

logger = logging.getLogger(__name__)

# Files with these endings are treated as DICOM whatever their content.
_DICOM_ENDINGS = frozenset({"", ".dcm", ".dicom", ".ima"})
_READERS = 8
_LONGEST_NAME = 150  # leaves room for a file system's 255 with the endings of outputs
_DAMAGED = "damaged"


@dataclass
class _Series:
    """The files of one series; or of one folder if they have no series.

    Attributes:
        uid: The SeriesInstanceUID, None if the files have none.
        kinds: Number of files of each kind; "" for images of a scan.
        folders: Their folders.
    """

    uid: str | None
    kinds: Counter[str] = field(default_factory=Counter)
    folders: set[Path] = field(default_factory=set)

    def add(self, path: Path, kind: str) -> None:
        """Take a file."""
        self.kinds[kind] += 1
        self.folders.add(path.parent)

    @property
    def folder(self) -> Path:
        """Return the folder that holds all its files."""
        return Path(os.path.commonpath(sorted(self.folders)))

    @property
    def left_out(self) -> str | None:
        """Return why the series is left out; None if it is a scan."""
        if self.kinds[""] or self.kinds[_DAMAGED]:
            return None
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()) if count)
        return f"no scan: {counts}"


def find_studies(root: Path | str) -> tuple[list[Case], dict[str, str]]:
    """List the scans of an archive.

    Args:
        root: A folder searched through all its levels; links to other folders are followed, each
            folder once.

    Returns:
        One case per volume file and per DICOM series, sorted by id, and the skipped series: id to
        reason, for localizers and series without a scan. Ids are made of folders' names;
        series that share a folder are distinguished by a hash of their UID.

    Raises:
        InputError: The folder does not exist, or holds no scan.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; an archive is a folder of studies")
    volumes, dicom, unreadable = _files(root)
    series = _series_of(dicom)
    shared = Counter(found.folder for found in series)
    cases = [Case(_name(strip_ending(_id(path, root))), path) for path in volumes]
    # Reading these raises the error of an unreadable folder.
    cases += [Case(_name(_id(path, root)), path) for path in unreadable]
    left_out: dict[str, str] = {}
    for found in series:
        name = _name(_id(found.folder, root))
        if shared[found.folder] > 1:
            name = f"{name}_{_digest(found.uid or '')}"
        if found.left_out is None:
            cases.append(Case(name, found.folder, series=found.uid))
        else:
            left_out[name] = found.left_out
    if not cases and not left_out:
        raise InputError(f"{root}: no scans in it; expected folders of DICOM or volume files")
    return sorted(_unique(cases, root), key=lambda case: case.case_id), left_out


def _files(root: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Return volume files, possible DICOM files, and unreadable folders."""
    volumes, dicom = [], []
    found = walk_below(root, hidden=False)
    if found.broken:
        logger.warning("left out %d links that lead nowhere", len(found.broken))
    for path in found.files:
        if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
            continue
        if path.name.lower().endswith(ENDINGS):
            volumes.append(path)
        elif path.suffix.lower() in _DICOM_ENDINGS or _may_be_dicom(path):
            dicom.append(path)
    return volumes, dicom, found.unreadable


def _may_be_dicom(path: Path) -> bool:
    try:
        return is_dicom_file(path)
    except InputError:  # reading it reports the fault
        return True


def _series_of(files: list[Path]) -> list[_Series]:
    """Group DICOM files by series.

    Files without a series make the scans around them fail; in a folder without any scan,
    they are one case.
    """
    series: dict[str, _Series] = {}
    silent: dict[Path, _Series] = {}
    with quiet(), ThreadPoolExecutor(_READERS) as pool:
        for path, (uid, kind) in zip(files, pool.map(_header_facts, files), strict=True):
            found = (
                series.setdefault(uid, _Series(uid))
                if uid
                else silent.setdefault(path.parent, _Series(None))
            )
            found.add(path, kind)
    told = {folder for found in series.values() for folder in found.folders}
    around = told | {folder for inner in told for folder in inner.parents}
    return [*series.values(), *(found for folder, found in silent.items() if folder not in around)]


def _header_facts(path: Path) -> tuple[str, str]:
    """Return a file's SeriesInstanceUID, empty without one, and its kind."""
    try:
        header = read_header(path)
        if header is None:
            return "", _DAMAGED
        kind = not_a_scan(header) or ""
        if not kind and "LOCALIZER" in header.text("ImageType").upper():
            kind = "localizer"
        return header.text("SeriesInstanceUID"), kind
    except (InputError, OSError):
        return "", _DAMAGED


def _id(path: Path, root: Path) -> str:
    parts = path.relative_to(root).parts
    return "__".join(parts) or root.resolve().name


def _name(text: str) -> str:
    if len(text) <= _LONGEST_NAME:
        return text
    return f"{text[: _LONGEST_NAME - 9]}_{_digest(text)}"


def _unique(cases: list[Case], root: Path) -> Iterator[Case]:
    """Distinguish cases of one name: a/b and a__b, scan.nii.gz and scan.mha."""
    counts = Counter(case.case_id for case in cases)
    for case in cases:
        if counts[case.case_id] > 1:
            told = _digest(f"{case.image.relative_to(root)} {case.series}")
            yield Case(f"{case.case_id}_{told}", case.image, case.label, case.series)
        else:
            yield case


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
