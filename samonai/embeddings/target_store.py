"""Training targets in the store, keyed by source, label and component policy."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

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
    canonical_json,
    digest,
)
from samonai.embeddings.targets import CONNECTIVITY, FrameTargets
from samonai.errors import InputError

_FORMAT_VERSION = 1
_GROUP = "targets"
_VALID_BIT = np.uint16(0x8000)
_NUMBER_BITS = np.uint16(0x7FFF)
_FRAME_COLUMNS = 5  # index, H, W, dropped, objects
_OBJECT_COLUMNS = 6  # class, area, x0, y0, x1, y1


@dataclass(frozen=True)
class SourceTargets:
    """The targets of one source's labelled frames: tables in memory, maps read when asked for.

    Attributes:
        key: Name of these targets in the store.
        source_id: The source's identifier.
        spacing: Size of a cell of the source's grid along each array axis.
        frame_count: Number of the source's frames, labelled or not.
        dropped: Components dropped by `min_area`, over all frames.
        frames: int64 (T, 5), one row per frame with objects: index, H, W, dropped, objects.
        objects: float64 (N, 6), all frames' objects: class, area, box xyxy in model space.
    """

    key: str
    source_id: str
    spacing: tuple[float, ...]
    frame_count: int
    dropped: int
    frames: npt.NDArray[np.int64]
    objects: npt.NDArray[np.float64]
    _components: FrameChunks | None

    @property
    def indices(self) -> tuple[int, ...]:
        """Return the numbers of the frames that have objects, ascending."""
        return tuple(self.frames[:, 0].tolist())

    @property
    def original_sizes(self) -> tuple[tuple[int, int], ...]:
        """Return (H, W) of each frame of `indices`, in pixels."""
        return tuple((height, width) for height, width in self.frames[:, 1:3].tolist())

    def read(self, index: int) -> FrameTargets:
        """Return the targets of one frame of `indices`.

        Raises:
            MissingEmbeddingError: The frame has no targets, or they fail their checksum.
        """
        row = int(np.searchsorted(self.frames[:, 0], index))
        packed = None
        if row < len(self.frames) and self.frames[row, 0] == index and self._components:
            packed = self._components.read(index)
        if packed is None:
            raise MissingEmbeddingError(
                f"frame {index} of {self.source_id} has no whole targets in the store; encode the "
                f"data set again, which adds what is missing"
            )
        start = int(self.frames[:row, 4].sum())
        table = self.objects[start : start + int(self.frames[row, 4])]
        return FrameTargets(
            image_size=(int(self.frames[row, 1]), int(self.frames[row, 2])),
            components=packed & _NUMBER_BITS,
            valid=packed >= _VALID_BIT,
            classes=table[:, 0].astype(np.int32),
            boxes=table[:, 2:].astype(np.float32),
            areas=table[:, 1].astype(np.int32),
            dropped=int(self.frames[row, 3]),
        )

    def whole(self) -> bool:
        """Return whether the maps of all `indices` are there; every checksum is verified."""
        return not self.indices or (
            self._components is not None and not self._components.missing(self.indices)
        )


def targets_key(
    source_hash: str, label_hash: str, domain: Mapping[str, Any], min_area: int, long_side: int
) -> str:
    """Return the name of a source's targets: another label, policy or setting, another name.

    Args:
        source_hash: sha256 of the source's content.
        label_hash: sha256 of its label map.
        domain: The domain's name and settings, which decide how frames are cut.
        min_area: Components of fewer pixels are dropped.
        long_side: Side of the model image in pixels.
    """
    policy = {
        "format_version": _FORMAT_VERSION,
        "source": source_hash,
        "label": label_hash,
        "domain": dict(domain),
        "min_area": min_area,
        "connectivity": CONNECTIVITY,
        "long_side": long_side,
    }
    return digest(canonical_json(policy))


def load_targets(store: EmbeddingStore, key: str) -> SourceTargets | None:
    """Return stored targets, or None when they are absent, unfinished or their tables damaged."""
    parent = get_node(store.root, _GROUP)
    group = get_node(parent, key) if isinstance(parent, zarr.Group) else None
    if not isinstance(group, zarr.Group) or not group.attrs.get("complete"):
        return None
    facts: dict[str, Any] = group.attrs.asdict()
    frames: npt.NDArray[Any] | None = np.zeros((0, _FRAME_COLUMNS))
    objects: npt.NDArray[Any] | None = np.zeros((0, _OBJECT_COLUMNS))
    components = None
    if facts["labelled_frames"]:
        frames, objects = _read_table(group, "frames"), _read_table(group, "objects")
        array = find_array(group, "components")
        components = None if array is None else FrameChunks(array)
        if frames is None or objects is None or components is None:
            return None
    assert frames is not None
    assert objects is not None
    return SourceTargets(
        key=key,
        source_id=str(facts["source_id"]),
        spacing=tuple(facts["spacing"]),
        frame_count=int(facts["frame_count"]),
        dropped=int(facts["dropped"]),
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
) -> SourceTargets:
    """Store a source's targets; they count as there only once all of it is written.

    Args:
        store: Where to.
        key: From `targets_key`.
        frames: (index, targets) in ascending order; those without objects only count as dropped.
        source_id: The source's identifier.
        spacing: Size of a cell of the source's grid along each array axis.
        frame_count: Number of the source's frames.

    Raises:
        InputError: The store is read-only.
    """
    if store.read_only:
        raise InputError(f"the store {store.url} is read-only: no targets can be added to it")
    group = require_group(require_group(store.root, _GROUP, {}), key, {})
    rows: list[tuple[int, ...]] = []
    objects: list[npt.NDArray[np.float64]] = []
    components: FrameChunks | None = None
    dropped = 0
    for index, targets in frames:
        dropped += targets.dropped
        if not len(targets):
            continue
        if components is None:
            components = _open_components(group, frame_count, targets.components.shape)
        packed = targets.components | np.where(targets.valid, _VALID_BIT, np.uint16(0))
        components.write(index, packed)
        rows.append((index, *targets.image_size, targets.dropped, len(targets)))
        objects.append(np.column_stack([targets.classes, targets.areas, targets.boxes]))
    if rows:
        _write_table(group, "frames", np.array(rows, np.float64))
        _write_table(group, "objects", np.concatenate(objects).astype(np.float64))
    group.update_attributes(
        {
            "source_id": source_id,
            "spacing": [float(value) for value in spacing],
            "frame_count": frame_count,
            "labelled_frames": len(rows),
            "dropped": dropped,
            "complete": True,
        }
    )
    saved = load_targets(store, key)
    assert saved is not None
    return saved


def _open_components(group: zarr.Group, frames: int, shape: tuple[int, ...]) -> FrameChunks:
    return open_chunks(
        group,
        "components",
        shape=(frames, *shape),
        dtype="uint16",
        fill_value=0,
        attributes={"bits": "0-14 object number, 15 valid"},
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
    return None if array is None else FrameChunks(array).read(0)
