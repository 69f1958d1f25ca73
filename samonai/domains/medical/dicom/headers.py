"""DICOM files: search and header reading at any name and depth, without quoting patient data.

pydicom's warnings and errors quote values of the file, including names and dates. So all of it
runs inside `quiet`, and errors have messages of our own.
"""

import logging
import threading
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from samonai.core.errors import InputError
from samonai.core.files import Below, check_readable, walk_below

logger = logging.getLogger(__name__)

_DEFLATED = "1.2.840.10008.1.2.1.99"
_LARGEST_INFLATED_BYTES = 1 << 28
# SOP classes (or their common stems) of objects without a scan, and their names in messages.
_NOT_SCANS = {
    "1.2.840.10008.5.1.4.1.1.66": "SEG or registration",
    "1.2.840.10008.5.1.4.1.1.88": "structured report",
    "1.2.840.10008.5.1.4.1.1.481": "radiotherapy object",
    "1.2.840.10008.5.1.4.1.1.11": "presentation state",
    "1.2.840.10008.5.1.4.1.1.9": "waveform",
    "1.2.840.10008.5.1.4.1.1.104": "encapsulated document",
}
_NOT_SCAN_MODALITIES = {"SEG", "SR", "RTSTRUCT", "RTDOSE", "RTPLAN", "PR", "KO", "REG", "DOC"}


@dataclass(frozen=True)
class Header:
    """A DICOM image file without its pixels.

    Attributes:
        path: The file.
        dataset: All elements before the pixel data.
    """

    path: Path
    dataset: FileDataset

    def value(self, keyword: str) -> Any:
        """Return an element's value, None if absent or empty."""
        return element(self.dataset, keyword, self.path)

    def text(self, keyword: str) -> str:
        """Return an element as text, empty if absent or empty."""
        value = self.value(keyword)
        return "" if value is None else str(value)

    def number(self, keyword: str, default: int = 0) -> int:
        """Return an element as a whole number, `default` if absent or empty."""
        value = self.value(keyword)
        try:
            return default if value is None else int(value)
        except (TypeError, ValueError):
            raise _not_understood(self.path, keyword) from None


def element(dataset: Dataset, keyword: str, path: Path) -> Any:
    """Return an element's value, None if absent or empty.

    pydicom parses a value on its first access, which is where a bad one raises.

    Raises:
        InputError: The value is not of its type; the message does not quote it.
    """
    try:
        value = dataset.get(keyword)
    except Exception:  # a parser may raise anything
        raise _not_understood(path, keyword) from None
    return None if value is None or (isinstance(value, str) and not value) else value


def _not_understood(path: Path, keyword: str) -> InputError:
    return InputError(f"{path}: {keyword} cannot be understood; export it again")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's warnings, which quote the file's values, out of logs and terminals.

    Several threads may be inside at once; the last to leave restores the previous state.
    """
    with _quiet.lock:
        if not _quiet.inside:
            _quiet.state.enter_context(_quieted())
        _quiet.inside += 1
    try:
        yield
    finally:
        with _quiet.lock:
            _quiet.inside -= 1
            if not _quiet.inside:
                _quiet.state.close()


class _Quiet:
    """Number of threads inside `quiet`, and the state to restore after the last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.state = ExitStack()
        self.inside = 0


_quiet = _Quiet()


@contextmanager
def _quieted() -> Iterator[None]:
    pydicom_logger, sink = logging.getLogger("pydicom"), logging.NullHandler()
    propagate = pydicom_logger.propagate
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom_logger.addHandler(sink)
        pydicom_logger.propagate = False
        try:
            yield
        finally:
            pydicom_logger.propagate = propagate
            pydicom_logger.removeHandler(sink)


def find_headers(path: Path) -> list[Header]:
    """Read the headers of all scans in a file or folder.

    Args:
        path: A DICOM file, or a folder searched through all its levels, links followed.

    Returns:
        One header per image file, in the order of paths. Other files are counted in the log.

    Raises:
        InputError: There is no scan, or a file is damaged or cannot be read.
    """
    found = Below([path], [], []) if path.is_file() else walk_below(path)
    check_readable(found)
    headers: list[Header] = []
    skipped = Counter({"links that lead nowhere": len(found.broken)} if found.broken else {})
    for file in found.files:
        header = None if file.name.upper() == "DICOMDIR" else read_header(file)
        if header is None:
            skipped["not DICOM"] += 1
        elif (kind := not_a_scan(header)) is not None:
            skipped[kind] += 1
        else:
            headers.append(header)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items())) or "nothing"
    if not headers:
        raise InputError(f"{path}: no DICOM images in it (found {counts}); give the scan itself")
    if skipped:
        logger.warning("skipped %s", counts)  # file names may be a patient's
    return headers


def read_header(file: Path) -> Header | None:
    """Read one file's elements up to the pixels; None if it is not DICOM.

    Raises:
        InputError: The file cannot be read, or is DICOM but damaged or without the elements that
            decoding needs.
    """
    try:
        with file.open("rb") as stream:
            preamble = stream.read(132)[128:] == b"DICM"
    except PermissionError:
        raise InputError(f"{file}: the file cannot be read; check its permissions") from None
    _refuse_deflate_bomb(file, preamble)
    try:
        dataset = pydicom.dcmread(file, stop_before_pixels=True, force=not preamble)
        known = UID(str(dataset.get("SOPClassUID", ""))).name
    except Exception:  # pydicom raises almost anything on damaged files
        if not preamble:
            return None
        raise InputError(f"{file}: damaged DICOM file; copy it again") from None
    if not preamble:
        # Any bytes parse as DICOM; only a registered object class counts.
        if known == str(dataset.get("SOPClassUID", "")):
            return None
        logger.warning("series %s: DICOM without its preamble", dataset.get("SeriesInstanceUID"))
    if len(dataset) == 0:
        raise InputError(f"{file}: damaged DICOM file, cut short in its header; copy it again")
    header = Header(file, dataset)
    if "BitsAllocated" in dataset and 0 in (header.value("Rows"), header.value("Columns")):
        raise InputError(f"{file}: damaged DICOM file, an image without a size; copy it again")
    if not_a_scan(header) is None and "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
        raise InputError(f"{file}: DICOM without a TransferSyntaxUID; export it again")
    return header


def not_a_scan(header: Header) -> str | None:
    """Return the kind of a file's object if it holds no scan, else None."""
    uid, modality = header.text("SOPClassUID"), header.text("Modality")
    for stem, kind in _NOT_SCANS.items():
        if uid == stem or uid.startswith(stem + "."):
            return modality if modality in _NOT_SCAN_MODALITIES else kind
    if modality in _NOT_SCAN_MODALITIES:
        return modality
    if not header.number("Rows") or not header.number("Columns"):
        return "without pixels"
    return None


def _refuse_deflate_bomb(file: Path, preamble: bool) -> None:
    """Refuse a deflated file that would fill the memory: pydicom inflates without a limit."""
    if not preamble:
        return
    try:
        with file.open("rb") as stream:
            stream.seek(132)
            meta = pydicom.filereader._read_file_meta_info(stream)
            if meta.get("TransferSyntaxUID") != _DEFLATED:
                return
            inflated = zlib.decompressobj(-zlib.MAX_WBITS)
            size = len(inflated.decompress(stream.read(), _LARGEST_INFLATED_BYTES))
    except Exception:  # the reader reports the fault
        return
    if size >= _LARGEST_INFLATED_BYTES:
        raise InputError(
            f"{file}: inflates to more than {_LARGEST_INFLATED_BYTES >> 20} MiB; refused"
        )
