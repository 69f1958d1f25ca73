"""Target store: training targets keyed by source, label and component policy."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from samonai.core.errors import InputError
from samonai.core.geometry import FrameGeometry
from samonai.core.sealed import canonical_json, digest, is_whole, sealed
from samonai.embeddings.chunks import (
    FrameChunks,
    find_array,
    get_node,
    open_chunks,
    require_group,
)
from samonai.embeddings.store import (
    EmbeddingStore,
    MissingEmbeddingError,
)
from samonai.embeddings.targets import CONNECTIVITY, FrameTargets

_FORMAT_VERSION = 3  # 2 had no digest of the attributes
_GROUP = "targets"
_VALID_BIT = np.uint16(0x8000)
_NUMBER_BITS = np.uint16(0x7FFF)
_DROPPED = np.uint16(0x7FFF)
_FRAME_COLUMNS = 6  # index, H, W, dropped, objects, which map
_OBJECT_COLUMNS = 6  # class, area, x0, y0, x1, y1
# Kind of a frame's map: derived from its size, stored, or all zeros (no pixel of
# the frame is valid, such as a missing slice), which the store would treat as absent.
_PLAIN, _STORED, _INVALID = 0, 1, 2


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
    _components: FrameChunks | None

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
        mapped = self.frames[self.frames[:, 5] == _STORED, 0].tolist()
        return not mapped or (self._components is not None and not self._components.missing(mapped))

    def _rows_with_objects(self) -> npt.NDArray[np.int64]:
        return self.frames[self.frames[:, 4] > 0]

    def _packed(self, row: int) -> npt.NDArray[np.uint16] | None:
        """Return a frame's map as stored, or as derived if it needs none."""
        index, height, width = self.frames[row, :3].tolist()
        kind = self.frames[row, 5]
        if kind != _STORED:
            valid = FrameGeometry((height, width), self.long_side).valid_low_res()
            return np.where(valid & (kind == _PLAIN), _VALID_BIT, np.uint16(0))
        return None if self._components is None else self._components.read(index)


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
    """Return stored targets, or None if they are absent, unfinished or their tables damaged."""
    parent = get_node(store.root, _GROUP)
    group = get_node(parent, key) if isinstance(parent, zarr.Group) else None
    if not isinstance(group, zarr.Group):
        return None
    facts: dict[str, Any] = group.attrs.asdict()
    if not facts.get("complete") or not is_whole(facts):
        return None
    frames: npt.NDArray[Any] | None = np.zeros((0, _FRAME_COLUMNS))
    objects: npt.NDArray[Any] | None = np.zeros((0, _OBJECT_COLUMNS))
    components = None
    if facts["frames"]:
        frames = _read_table(group, "frames")
    if facts["objects"]:
        objects = _read_table(group, "objects")
    if facts["maps"]:
        array = find_array(group, "components")
        components = None if array is None else FrameChunks(array)
    if frames is None or objects is None or (facts["maps"] and components is None):
        return None
    return SourceTargets(
        key=key,
        source_id=str(facts["source_id"]),
        spacing=tuple(facts["spacing"]),
        frame_count=int(facts["frame_count"]),
        dropped=int(facts["dropped"]),
        long_side=int(facts["long_side"]),
        frames=frames.astype(np.int64),
        objects=objects,
        _components=components,
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
    group = require_group(require_group(store.root, _GROUP, {}), key, {})
    rows: list[tuple[int, ...]] = []
    objects: list[npt.NDArray[np.float64]] = []
    components: FrameChunks | None = None
    for index, targets in frames:
        kind = _map_kind(targets, long_side)
        if kind == _STORED:
            components = components or _open_components(
                group, frame_count, targets.components.shape
            )
            components.write(index, _packed_map(targets))
        rows.append((index, *targets.image_size, targets.dropped, len(targets), kind))
        objects.append(np.column_stack([targets.classes, targets.areas, targets.boxes]))
    if rows:
        _write_table(group, "frames", np.array(rows, np.float64))
    if count := sum(map(len, objects)):
        _write_table(group, "objects", np.concatenate(objects).astype(np.float64))
    facts = sealed(
        {
            "key": key,
            "source_id": source_id,
            "spacing": [float(value) for value in spacing],
            "frame_count": frame_count,
            "long_side": long_side,
            "frames": len(rows),
            "objects": count,
            "maps": sum(row[5] == _STORED for row in rows),
            "dropped": sum(row[3] for row in rows),
            "complete": True,
        }
    )
    group.attrs.put(facts)
    saved = load_targets(store, key)
    assert saved is not None
    return saved


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


def _open_components(group: zarr.Group, frames: int, shape: tuple[int, ...]) -> FrameChunks:
    return open_chunks(
        group,
        "components",
        shape=(frames, *shape),
        dtype="uint16",
        fill_value=0,
        attributes={"bits": "0-14 object number, all of them for dropped ones; 15 valid"},
    )


def _write_table(group: zarr.Group, name: str, table: npt.NDArray[np.float64]) -> None:
    chunks = open_chunks(
        group,
        name,
        shape=(1, *table.shape),
        dtype="float64",
        fill_value=float("nan"),
        attributes={},
    )
    chunks.write(0, table)


def _read_table(group: zarr.Group, name: str) -> npt.NDArray[Any] | None:
    array = find_array(group, name)
    if array is None or array.shape[0] != 1:
        return None
    return FrameChunks(array).read(0)
