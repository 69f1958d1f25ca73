"""Target store: training targets keyed by source, label and component policy.

A source's targets are one file, written whole: the maps of its labelled frames, one record of
`frame_file.RecordFormat` each, then a line of JSON, the tables of `SourceTargets`, the size of
these in bytes, and their CRC-32C.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.geometry import FrameGeometry
from samonai.core.sealed import canonical_json, digest
from samonai.embeddings.frame_file import RecordFormat, crc32c
from samonai.embeddings.store import TARGETS, EmbeddingStore, MissingEmbeddingError
from samonai.embeddings.store_files import StoreFiles
from samonai.embeddings.targets import CONNECTIVITY, FrameTargets

_FORMAT_VERSION = 4  # 3 was a zarr group of three arrays
_VALID_BIT = np.uint16(0x8000)
_NUMBER_BITS = np.uint16(0x7FFF)
_DROPPED = np.uint16(0x7FFF)
_FRAME_COLUMNS = 6  # index, H, W, dropped, objects, which map
_OBJECT_COLUMNS = 6  # class, area, x0, y0, x1, y1
# Kind of a frame's map: derived from its size, stored, or all zeros (no pixel of
# the frame is valid, such as a missing slice).
_PLAIN, _STORED, _INVALID = 0, 1, 2
_MAP_SIDE = 256
_MAP = RecordFormat("uint16", (_MAP_SIDE, _MAP_SIDE))
_END_BYTES = 8  # size and CRC-32C of the part behind the maps
_READ_AT_ONCE = 1 << 14


class _End(NamedTuple):
    """The facts of a source's targets, and the tables of `SourceTargets`."""

    facts: dict[str, Any]
    frames: npt.NDArray[np.int64]
    objects: npt.NDArray[np.float64]


@dataclass(frozen=True)
class SourceTargets:
    """The targets of one source's frames: tables in memory, maps read on access.

    A frame without labels that is wholly valid, or wholly invalid, has a row in the table
    and no map.

    Attributes:
        key: Name of these targets in the store.
        source_id: The source's identifier.
        spacing: Size of a cell of the source's grid along each array axis.
        frame_count: Number of the source's frames, labelled or not.
        dropped: Components dropped by `min_area`, over all frames.
        long_side: Side of the model image in pixels.
        frames: int64 (T, 6), one row per frame: index, H, W, dropped, objects, kind of map.
        objects: float64 (N, 6), all frames' objects: class, area, box xyxy in model space.
    """

    key: str
    source_id: str
    spacing: tuple[float, ...]
    frame_count: int
    dropped: int
    long_side: int
    frames: npt.NDArray[np.int64]
    objects: npt.NDArray[np.float64]
    _files: StoreFiles

    @property
    def indices(self) -> tuple[int, ...]:
        """Return the numbers of the frames that have objects, ascending."""
        return tuple(self._rows_with_objects()[:, 0].tolist())

    @property
    def empty_indices(self) -> tuple[int, ...]:
        """Return the numbers of the frames without objects that have valid pixels, ascending."""
        empty = (self.frames[:, 4] == 0) & (self.frames[:, 5] != _INVALID)
        return tuple(self.frames[empty, 0].tolist())

    @property
    def original_sizes(self) -> tuple[tuple[int, int], ...]:
        """Return (H, W) of each frame of `indices`, in pixels."""
        sizes = self._rows_with_objects()[:, 1:3].tolist()
        return tuple((height, width) for height, width in sizes)

    def has_objects(self, index: int) -> bool:
        """Return whether a frame has objects."""
        row = int(np.searchsorted(self.frames[:, 0], index))
        return bool(
            row < len(self.frames) and self.frames[row, 0] == index and self.frames[row, 4] > 0
        )

    def classes_by_frame(self) -> dict[int, frozenset[int]]:
        """Return the label values on each frame of `indices`, by its number."""
        rows = self._rows_with_objects()
        values = np.split(self.objects[:, 0].astype(int), np.cumsum(rows[:-1, 4]))
        return {
            index: frozenset(found.tolist())
            for index, found in zip(rows[:, 0].tolist(), values, strict=False)
        }

    def read(self, index: int) -> FrameTargets:
        """Return the targets of one frame.

        Raises:
            MissingEmbeddingError: The frame has no targets, or they fail their checksum.
        """
        row = int(np.searchsorted(self.frames[:, 0], index))
        packed = None
        if row < len(self.frames) and self.frames[row, 0] == index:
            packed = self._packed(row)
        if packed is None:
            raise MissingEmbeddingError(
                f"frame {index} of {self.source_id} has no whole targets in the store; encode the "
                f"data set again, which adds missing frames"
            )
        numbers = packed & _NUMBER_BITS
        start = int(self.frames[:row, 4].sum())
        table = self.objects[start : start + int(self.frames[row, 4])]
        return FrameTargets(
            image_size=(int(self.frames[row, 1]), int(self.frames[row, 2])),
            components=np.where(numbers == _DROPPED, np.uint16(0), numbers),
            valid=packed >= _VALID_BIT,
            ignored=numbers == _DROPPED,
            classes=table[:, 0].astype(np.int32),
            boxes=table[:, 2:].astype(np.float32),
            areas=table[:, 1].astype(np.int32),
            dropped=int(self.frames[row, 3]),
        )

    def whole(self) -> bool:
        """Return whether all maps are present; every checksum is verified."""
        mapped = np.flatnonzero(self.frames[:, 5] == _STORED).tolist()
        return all(self._packed(row) is not None for row in mapped)

    def _rows_with_objects(self) -> npt.NDArray[np.int64]:
        return self.frames[self.frames[:, 4] > 0]

    def _packed(self, row: int) -> npt.NDArray[np.uint16] | None:
        """Return a frame's map as stored, or as derived if it needs none."""
        index, height, width = self.frames[row, :3].tolist()
        kind = self.frames[row, 5]
        if kind != _STORED:
            valid = FrameGeometry((height, width), self.long_side).valid_low_res()
            return np.where(valid & (kind == _PLAIN), _VALID_BIT, np.uint16(0))
        start = int((self.frames[:row, 5] == _STORED).sum()) * _MAP.nbytes
        record = self._files.read(_file(self.key), start, start + _MAP.nbytes)
        return _MAP.unpack(record, index)


def targets_key(
    source_hash: str,
    label_hash: str,
    domain: Mapping[str, Any],
    min_area: int,
    long_side: int,
    components: str = "each",
) -> str:
    """Return the name of a source's targets, which depends on label, policy and settings.

    Args:
        source_hash: sha256 of the source's content.
        label_hash: sha256 of its label map.
        domain: The domain's name and settings, which determine how frames are cut.
        min_area: Objects of fewer pixels are dropped.
        long_side: Side of the model image in pixels.
        components: One of `COMPONENT_POLICIES`.
    """
    policy: dict[str, Any] = {
        "format_version": _FORMAT_VERSION,
        "source": source_hash,
        "label": label_hash,
        "domain": dict(domain),
        "min_area": min_area,
        "connectivity": CONNECTIVITY,
        "long_side": long_side,
    }
    if components != "each":
        # Only then, so that names of older versions stay the same.
        policy["components"] = components
    return digest(canonical_json(policy))


def load_targets(store: EmbeddingStore, key: str) -> SourceTargets | None:
    """Return stored targets, or None if they are absent or their tables damaged."""
    end = _read_end(store.files, _file(key))
    if end is None:
        return None
    facts, frames, objects = end
    return SourceTargets(
        key=key,
        source_id=str(facts["source_id"]),
        spacing=tuple(facts["spacing"]),
        frame_count=int(facts["frame_count"]),
        dropped=int(facts["dropped"]),
        long_side=int(facts["long_side"]),
        frames=frames,
        objects=objects,
        _files=store.files,
    )


def save_targets(
    store: EmbeddingStore,
    key: str,
    frames: Iterable[tuple[int, FrameTargets]],
    *,
    source_id: str,
    spacing: tuple[float, ...],
    frame_count: int,
    long_side: int,
) -> SourceTargets:
    """Store a source's targets; they count as present only once they are complete.

    Args:
        store: The embedding store.
        key: From `targets_key`.
        frames: (index, targets) in ascending order, also of frames without objects.
        source_id: The source's identifier.
        spacing: Size of a cell of the source's grid along each array axis.
        frame_count: Number of the source's frames.
        long_side: Side of the model image in pixels.

    Raises:
        InputError: The store is read-only.
    """
    if store.read_only:
        raise InputError(f"the store {store.url} is read-only: no targets can be added to it")
    rows: list[tuple[int, ...]] = []
    objects: list[npt.NDArray[np.float64]] = []
    with store.files.replacing(_file(key)) as path, path.open("wb") as file:
        for index, targets in frames:
            kind = _map_kind(targets, long_side)
            if kind == _STORED:
                file.write(_MAP.pack(index, _packed_map(targets)).tobytes())
            rows.append((index, *targets.image_size, targets.dropped, len(targets), kind))
            objects.append(np.column_stack([targets.classes, targets.areas, targets.boxes]))
        facts = {
            "source_id": source_id,
            "spacing": [float(value) for value in spacing],
            "frame_count": frame_count,
            "long_side": long_side,
            "frames": len(rows),
            "dropped": sum(row[3] for row in rows),
        }
        file.write(_end_of(facts, rows, objects))
    saved = load_targets(store, key)
    assert saved is not None
    return saved


def _file(key: str) -> str:
    return f"{TARGETS}/{key}"


def _end_of(
    facts: Mapping[str, Any],
    rows: list[tuple[int, ...]],
    objects: list[npt.NDArray[np.float64]],
) -> bytes:
    """Return what lies behind the maps: the facts, two tables, their size and checksum."""
    frames = np.array(rows, "<i8").reshape(-1, _FRAME_COLUMNS)
    found = np.concatenate([np.zeros((0, _OBJECT_COLUMNS)), *objects]).astype("<f8")
    line = canonical_json(facts).encode() + b"\n"
    content = line + frames.tobytes() + found.tobytes()
    checksum = crc32c(np.frombuffer(content, np.uint8))
    return content + len(content).to_bytes(4, "little") + checksum.to_bytes(4, "little")


def _read_end(files: StoreFiles, name: str) -> _End | None:
    """Read the part behind the maps; None if it is absent or damaged."""
    size = files.size(name)
    if size is None or size < _END_BYTES:
        return None
    data = files.read(name, max(0, size - _READ_AT_ONCE), size)
    if data is None or len(data) < _END_BYTES:
        return None
    length = int.from_bytes(data[-8:-4].tobytes(), "little")
    if length + _END_BYTES > len(data):
        data = files.read(name, max(0, size - length - _END_BYTES), size)
    # The zeros within a map have the length and the checksum of nothing.
    if data is None or not 0 < length <= len(data) - _END_BYTES:
        return None
    content = data[len(data) - length - _END_BYTES : -_END_BYTES]
    if crc32c(content) != int.from_bytes(data[-4:].tobytes(), "little"):
        return None
    return _parsed(content.tobytes())


def _parsed(content: bytes) -> _End:
    line, _, tables = content.partition(b"\n")
    facts = json.loads(line)
    split = 8 * _FRAME_COLUMNS * int(facts["frames"])
    return _End(
        facts,
        np.frombuffer(tables[:split], "<i8").reshape(-1, _FRAME_COLUMNS),
        np.frombuffer(tables[split:], "<f8").reshape(-1, _OBJECT_COLUMNS),
    )


def _map_kind(targets: FrameTargets, long_side: int) -> int:
    """Return the kind of a frame's map: no map is stored for an unlabelled, wholly valid one."""
    if len(targets) or targets.ignored.any():
        return _STORED
    if not targets.valid.any():
        return _INVALID
    valid = FrameGeometry(targets.image_size, long_side).valid_low_res()
    return _PLAIN if bool((targets.valid == valid).all()) else _STORED


def _packed_map(targets: FrameTargets) -> npt.NDArray[np.uint16]:
    """Return a frame's map as `SourceTargets.read` unpacks it: numbers, and a bit for valid."""
    numbers: npt.NDArray[np.uint16] = np.where(targets.ignored, _DROPPED, targets.components)
    valid: npt.NDArray[np.uint16] = np.where(targets.valid, _VALID_BIT, np.uint16(0))
    return numbers | valid
