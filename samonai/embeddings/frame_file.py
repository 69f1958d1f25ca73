"""Files of frames: a header, then one record per frame, each with a checksum.

A file begins with a line of JSON: number format and shape of a frame, the number of frames, and
attributes, under a digest. Behind it lie records of one size in the order of writing: a frame's
values, its number and the CRC-32C of both, little-endian. A frame is present if its record is
whole. Writers of one file wait for each other; a killed one leaves an incomplete record at the
end, over which the next is written. Damage that comes later (a flipped bit, a truncated copy)
shows in the checksum; such a frame counts as absent.

Object storage cannot append. There the file is the header alone, and each record an object beside
it, `<file>.<frame>`. Both are read from both, so that a copy of a store works in the other place.
"""

import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.sealed import canonical_json, is_whole, sealed
from samonai.embeddings.store_files import Bytes, StoreFiles

_log = logging.getLogger(__name__)

_TRAILER_BYTES = 8  # the frame's number and the checksum, uint32 each
_HEADER_BYTES = 1 << 13  # no header is longer


@dataclass(frozen=True)
class RecordFormat:
    """Number format and shape of a frame, and how a record holds them.

    Attributes:
        dtype: numpy's name of the number format.
        shape: Shape of one frame.
    """

    dtype: str
    shape: tuple[int, ...]

    @cached_property
    def nbytes(self) -> int:
        """Return the size of a record."""
        return self._values + _TRAILER_BYTES

    @cached_property
    def _values(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def pack(self, index: int, values: npt.NDArray[Any]) -> Bytes:
        """Return the record of a frame.

        Raises:
            ValueError: The shape or dtype differs.
        """
        if values.shape != self.shape or values.dtype != np.dtype(self.dtype):
            raise ValueError(
                f"expected {self.dtype} {self.shape}, got {values.dtype} {values.shape}"
            )
        record = np.empty(self.nbytes, np.uint8)
        little = np.ascontiguousarray(values, np.dtype(self.dtype).newbyteorder("<"))
        record[: self._values] = little.reshape(-1).view(np.uint8)
        record[-8:-4] = np.frombuffer(index.to_bytes(4, "little"), np.uint8)
        record[-4:] = np.frombuffer(crc32c(record[:-4]).to_bytes(4, "little"), np.uint8)
        return record

    def unpack(self, record: Bytes | None, index: int) -> npt.NDArray[Any] | None:
        """Return the values in a record, a view of it; None if it is damaged or another frame's."""
        if record is None or len(record) != self.nbytes:
            return None
        if self.index_of(record[-_TRAILER_BYTES:].tobytes()) != index:
            return None
        if crc32c(record[:-4]) != int.from_bytes(record[-4:].tobytes(), "little"):
            return None
        little = np.dtype(self.dtype).newbyteorder("<")
        return record[: self._values].view(little).reshape(self.shape)

    @staticmethod
    def index_of(trailer: bytes) -> int:
        """Return the frame's number from the end of a record."""
        return int.from_bytes(trailer[:4], "little")


class FrameFile:
    """The frames of one source in a file of the store.

    Attributes:
        frames: Number of the source's frames, stored or not.
        attributes: Written when the file was made.
    """

    def __init__(self, files: StoreFiles, name: str, header: Mapping[str, Any]) -> None:
        """Use `FrameFile.find` or `FrameFile.require`."""
        self._files, self._name = files, name
        self._header = sealed(header)
        self.frames = int(header["frames"])
        self.attributes: dict[str, Any] = dict(header["attributes"])
        self.record = RecordFormat(str(header["dtype"]), tuple(header["shape"]))
        self._places: dict[int, list[int]] = {}
        self._start = self._known = 0
        self._looked = False

    @classmethod
    def find(cls, files: StoreFiles, name: str) -> "FrameFile | None":
        """Open a file; None when it is absent or its header damaged."""
        header, _ = _read_header(files.read(name, 0, _HEADER_BYTES))
        return None if header is None else cls(files, name, header)

    @classmethod
    def require(
        cls,
        files: StoreFiles,
        name: str,
        *,
        frames: int,
        record: RecordFormat,
        attributes: Mapping[str, Any],
    ) -> "FrameFile":
        """Open a file, or one that is made when its first frame is written.

        Raises:
            InputError: The store holds a file of that name with another shape or type.
        """
        header = {
            "frames": frames,
            "dtype": record.dtype,
            "shape": list(record.shape),
            "attributes": dict(attributes),
        }
        found = cls.find(files, name)
        if found is not None and (found.frames, found.record) != (frames, record):
            raise InputError(
                f"the store's {name} has {found.frames} frames {found.record.dtype} "
                f"{found.record.shape}, expected {frames} frames {record.dtype} {record.shape}; "
                f"delete it or use another store"
            )
        return found or cls(files, name, header)

    def read(self, index: int) -> npt.NDArray[Any] | None:
        """Return one frame's values in an array of the caller's own, or None when absent.

        Args:
            index: The frame's number, from 0.

        Raises:
            IndexError: The source has no such frame.
        """
        if not 0 <= index < self.frames:
            raise IndexError(f"frame {index} of {self.frames} in {self._name}")
        # Where it is most likely to be first: every look costs a request to object storage.
        readers = (self._read_record, self._read_object)
        for reader in readers if self._files.appends else reversed(readers):
            values = reader(index)
            if values is not None:
                return values
        return None

    def has(self, index: int) -> bool:
        """Return whether the frame is present; its checksum is verified."""
        return self.read(index) is not None

    def missing(self, indices: Iterable[int]) -> list[int]:
        """Return the absent or damaged frames among `indices`, in the order given.

        Of object storage one listing is read instead of the records: an object is whole or absent,
        and its checksum is verified when it is read.
        """
        if self._files.appends:
            return [index for index in indices if not self.has(index)]
        sizes = self._files.sizes(f"{self._name}.")
        absent = [i for i in indices if sizes.get(self._object(i)) != self.record.nbytes]
        # A copy of a local store holds them in one file.
        return [index for index in absent if self._read_record(index) is None]

    def write(self, index: int, values: npt.NDArray[Any]) -> None:
        """Store one frame; a reader sees all of it or none. A whole frame is left as it is.

        Args:
            index: The frame's number, from 0.
            values: Of the file's dtype and a frame's shape.

        Raises:
            IndexError: The source has no such frame.
            ValueError: The shape or dtype differs.
        """
        if not 0 <= index < self.frames:
            raise IndexError(f"frame {index} of {self.frames} in {self._name}")
        record = self.record.pack(index, values)
        if self._files.appends:
            with self._files.appending(self._name) as file:
                self._append(file, index, record)
            return
        if self._files.size(self._name) is None:
            self._files.write(self._name, self._first_line())
        self._files.write(self._object(index), record.tobytes())

    def _read_record(self, index: int) -> npt.NDArray[Any] | None:
        """Return a frame's values from this file."""
        if index not in self._places and (self._files.appends or not self._looked):
            self._look_for_new()
        return self._read_noted(index)

    def _read_noted(self, index: int) -> npt.NDArray[Any] | None:
        """Return a frame's values from the places that the last look noted."""
        for position in self._places.get(index, ()):
            start = self._start + position * self.record.nbytes
            record = self._files.read(self._name, start, start + self.record.nbytes)
            values = self.record.unpack(record, index)
            if values is not None:
                return values
            self._log_damage(index)
        return None

    def _read_object(self, index: int) -> npt.NDArray[Any] | None:
        """Return a frame's values from an object beside this file."""
        record = self._files.read(self._object(index))
        values = self.record.unpack(record, index)
        if values is None and record is not None:
            self._log_damage(index)
        return values

    def _log_damage(self, index: int) -> None:
        _log.warning(
            "Frame %d of %s is damaged in the store; it counts as absent and is computed again%s.",
            index,
            self._name,
            "" if self._files.appends else f", once {self._object(index)} is deleted",
        )

    def _append(self, file: FileIO, index: int, record: Bytes) -> None:
        """Write a record into the locked file: over a damaged one of the frame, or at the end."""
        end = self._look_for_new()
        if not self._start:  # there is no whole header
            file.truncate(0)
            _write_at(file, 0, self._first_line())
            end = self._look_for_new()
        if self._read_noted(index) is not None:
            return
        position = self._places.get(index, [end])[-1]
        _write_at(file, self._start + position * self.record.nbytes, record.tobytes())

    def _look_for_new(self) -> int:
        """Note the places of records written since the last look; return the number of all."""
        header, start = _read_header(self._files.read(self._name, 0, _HEADER_BYTES))
        size = self._files.size(self._name)
        count = 0
        if header is not None and size is not None:
            count = max(0, size - start) // self.record.nbytes
        if start != self._start or count < self._known:  # the file was made anew
            self._places, self._known, self._start = {}, 0, start
        ends = [start + (n + 1) * self.record.nbytes for n in range(self._known, count)]
        parts = [(end - _TRAILER_BYTES, end) for end in ends]
        trailers = self._files.read_parts(self._name, parts) if parts else []
        for position, trailer in enumerate(trailers, start=self._known):
            self._places.setdefault(self.record.index_of(trailer), []).append(position)
        self._known, self._looked = count, True
        return count

    def _first_line(self) -> bytes:
        return canonical_json(self._header).encode() + b"\n"

    def _object(self, index: int) -> str:
        """Return the name of a frame's record where it is an object of its own."""
        return f"{self._name}.{index}"


def crc32c(data: Bytes) -> int:
    """Return the CRC-32C of bytes in an array."""
    frozen = data.view()
    frozen.flags.writeable = False  # the library takes read-only buffers only
    return int(google_crc32c.value(frozen))


def _read_header(content: Bytes | None) -> tuple[dict[str, Any] | None, int]:
    """Return the header at the beginning of a file, and its size; None if it is damaged."""
    line, end, _ = (b"" if content is None else content.tobytes()).partition(b"\n")
    try:
        header = json.loads(line) if end else None
    except (ValueError, RecursionError):
        header = None
    whole = isinstance(header, dict) and is_whole(header)
    return (header, len(line) + len(end)) if whole else (None, 0)


def _write_at(file: FileIO, start: int, content: bytes) -> None:
    """Write into an unbuffered file; on a full disk, cut off the part that was written."""
    size = file.seek(0, 2)
    file.seek(start)
    left = memoryview(content)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError:
        file.truncate(max(size, start))
        raise
