"""Zarr arrays with one checksummed chunk per frame, each either whole or absent."""

import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.errors import ContainsArrayError, ContainsGroupError
from zarr.storage import LocalStore

from samonai.core.errors import InputError

_log = logging.getLogger(__name__)

_CHECKSUM_BYTES = 4
_ABANDONED_SECONDS = 3600.0


class FrameChunks:
    """A zarr array (frames, ...): a frame is present if its chunk exists and its checksum holds.

    zarr's local store writes each chunk beside and renames it, so a killed process leaves a frame
    whole or absent. Damage that comes later (a flipped bit, a truncated copy) shows in the
    checksum; such a frame counts as absent. A frame that equals the fill value throughout is
    never stored and so counts as absent too.

    Attributes:
        attributes: The array's attributes at its opening.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        """Wrap an array made by `open_chunks`."""
        self._array = array
        self._folder = local_folder(array)
        self._file_dtype = array.dtype.newbyteorder("<")
        self.attributes: dict[str, Any] = array.attrs.asdict()

    @property
    def frames(self) -> int:
        """Return the number of frames, stored or not."""
        return int(self._array.shape[0])

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Return the shape of one frame's values."""
        return tuple(self._array.shape[1:])

    def read(self, index: int) -> npt.NDArray[Any] | None:
        """Return one frame's values in an array of the caller's own, or None when absent.

        Args:
            index: The frame's number, from 0.

        Raises:
            IndexError: The source has no such frame.
        """
        self._check_index(index)
        if self._folder is not None:
            return self._read_file(self._folder / self._chunk_name(index), index)
        try:
            values = np.asarray(self._array[index])
        except ValueError:  # raised by zarr's crc32c codec
            self._log_damage(index)
            return None
        return None if self._is_fill(values) else values

    def has(self, index: int) -> bool:
        """Return whether the frame is present; its checksum is verified."""
        return self.read(index) is not None

    def missing(self, indices: Iterable[int]) -> list[int]:
        """Return the absent or damaged frames among `indices`, in the order given."""
        return [index for index in indices if not self.has(index)]

    def write(self, index: int, values: npt.NDArray[Any]) -> None:
        """Store one frame; a reader sees all of it or none.

        Args:
            index: The frame's number, from 0.
            values: The array's dtype and frame shape.

        Raises:
            IndexError: The source has no such frame.
            ValueError: The shape or dtype differs, or all values equal the fill value.
        """
        self._check_index(index)
        if values.shape != self.frame_shape or values.dtype != self._array.dtype:
            raise ValueError(
                f"expected {self._array.dtype} {self.frame_shape} for {self._array.path}, "
                f"got {values.dtype} {values.shape}"
            )
        if self._is_fill(values):
            raise ValueError(f"frame {index} holds only {self._array.fill_value}, which is absent")
        self._array[index] = values

    def sweep(self) -> None:
        """Remove what killed writers left half-written an hour ago or longer (local stores)."""
        if self._folder is None:
            return
        for partial in self._folder.glob("*.partial"):
            try:
                if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
                    partial.unlink()
            except FileNotFoundError:
                continue  # another process was faster

    def _read_file(self, path: Path, index: int) -> npt.NDArray[Any] | None:
        # zarr's own reading through its event loop and codecs reaches about 1 GB/s; the same bytes
        # read and checked here reach several. The layout is the one requested by `open_chunks`.
        size = int(np.prod(self.frame_shape)) * self._file_dtype.itemsize
        data = np.empty(size + _CHECKSUM_BYTES + 1, np.uint8)
        try:
            with path.open("rb", buffering=0) as file:
                count = _read_into(file, data)
        except FileNotFoundError:
            return None
        values, stored = data[:size], data[size : size + _CHECKSUM_BYTES]
        values.flags.writeable = False  # the checksum takes read-only buffers only
        if count != size + _CHECKSUM_BYTES or stored.tobytes() != google_crc32c.value(
            values
        ).to_bytes(_CHECKSUM_BYTES, "little"):
            self._log_damage(index)
            return None
        return data[:size].view(self._file_dtype).reshape(self.frame_shape)

    def _chunk_name(self, index: int) -> str:
        # The encoding requested by `open_chunks`: one flat file per frame.
        return ".".join(["c", str(index), *("0" for _ in self.frame_shape)])

    def _is_fill(self, values: npt.NDArray[Any]) -> bool:
        fill = np.asarray(self._array.fill_value)
        if fill.dtype.kind == "f" and np.isnan(fill):
            return bool(np.isnan(values).all())
        return bool((values == fill).all())

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.frames:
            raise IndexError(f"frame {index} of {self.frames} in {self._array.path}")

    def _log_damage(self, index: int) -> None:
        _log.warning(
            "Frame %d of %s is damaged in the store; it counts as absent and is computed again.",
            index,
            self._array.path,
        )


def open_chunks(
    group: zarr.Group,
    name: str,
    *,
    shape: tuple[int, ...],
    dtype: str,
    fill_value: float,
    attributes: Mapping[str, Any],
) -> FrameChunks:
    """Open an array with one chunk per frame, or create it; several processes may do so at once.

    Args:
        group: The parent group.
        name: The array's name.
        shape: (frames, ...).
        dtype: numpy's name of the values' type.
        fill_value: Value of absent frames.
        attributes: Written when the array is made.

    Raises:
        InputError: The store holds an array of that name with another shape or type.
    """
    array = find_array(group, name)
    if array is None:
        try:
            array = group.create_array(
                name,
                shape=shape,
                chunks=(1, *shape[1:]),
                dtype=dtype,
                filters=None,
                serializer=BytesCodec(endian="little"),
                compressors=[Crc32cCodec()],
                fill_value=fill_value,
                chunk_key_encoding={"name": "default", "separator": "."},
                attributes=dict(attributes),
            )
        except (ContainsArrayError, ContainsGroupError):
            array = find_array(group, name)  # by another process meanwhile
            if array is None:
                raise _damaged(group, name) from None
    if array.shape != shape or array.dtype != np.dtype(dtype) or array.chunks != (1, *shape[1:]):
        raise InputError(
            f"the store's {array.path} is {array.dtype} {array.shape}, expected {dtype} {shape}; "
            f"delete it or use another store"
        )
    chunks = FrameChunks(array)
    if not array.read_only:
        chunks.sweep()
    return chunks


def get_node(group: zarr.Group, name: str) -> zarr.Array[Any] | zarr.Group | None:
    """Return the array or group of that name, or None.

    Raises:
        InputError: Its metadata cannot be read, possibly after a power failure.
    """
    try:
        return group.get(name)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise _damaged(group, name) from error


def _damaged(group: zarr.Group, name: str) -> InputError:
    path = f"{group.path}/{name}".strip("/")
    return InputError(
        f"{path}/zarr.json in the store is damaged; delete the folder {path} in it, and run "
        f"again to compute it anew"
    )


def find_array(group: zarr.Group, name: str) -> zarr.Array[Any] | None:
    """Return the array of that name, or None."""
    found = get_node(group, name)
    return found if isinstance(found, zarr.Array) else None


def require_group(parent: zarr.Group, name: str, attributes: Mapping[str, Any]) -> zarr.Group:
    """Open a group, or create it with its attributes; safe among several processes."""
    found = get_node(parent, name)
    if isinstance(found, zarr.Group):
        return found
    try:
        return parent.create_group(name, attributes=dict(attributes))
    except (ContainsArrayError, ContainsGroupError):
        found = get_node(parent, name)  # by another process meanwhile
        if not isinstance(found, zarr.Group):
            raise _damaged(parent, name) from None
        return found


def local_folder(node: zarr.Array[Any] | zarr.Group) -> Path | None:
    """Return the folder of an array or group, or None if the store is not on a local disk."""
    return node.store.root / node.path if isinstance(node.store, LocalStore) else None


def _read_into(file: Any, data: npt.NDArray[np.uint8]) -> int:
    """Fill `data` from an unbuffered file as far as the file goes; return the bytes read."""
    view, total = data.data, 0
    while total < len(view) and (count := file.readinto(view[total:])):
        total += count
    return total
