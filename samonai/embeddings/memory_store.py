"""Embedding store in main memory: for one process, bounded in bytes."""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

DEFAULT_BYTES = 1 << 30
"""512 embeddings of 256 x 64 x 64 in float16."""

_Key = tuple[str, str]


@cache
def process_store() -> "MemoryStore":
    """Return the store of this process, which predictions share that are given no other.

    It is bounded by `DEFAULT_BYTES`, and keyed by weights, settings and pixels, so that any model
    and any source may use it.
    """
    return MemoryStore()


class MemoryStore:
    """Least-recently-used cache of sources' embeddings, float16, instead of an `EmbeddingStore`.

    The least recently used sources are removed first. A source that fills the store by itself
    keeps its first frames, so that going through it again finds these.

    Args:
        max_bytes: Limit of the embeddings' size; 0 keeps none.

    Attributes:
        encoded: Frames written.
        reused: Frames found here instead of being encoded.
        read_only: False, as for a store on disk that can be written.
    """

    read_only = False

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        """Start empty."""
        self.max_bytes = max_bytes
        self.encoded = 0
        self.reused = 0
        self._sources: OrderedDict[_Key, dict[int, npt.NDArray[np.float16]]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Return the size of the embeddings in bytes."""
        return self._bytes

    def section(self, signature: Mapping[str, Any]) -> "MemorySection":
        """Return the part of the store that holds embeddings of one signature."""
        return MemorySection(self, json.dumps(signature, sort_keys=True))

    def get(self, key: _Key, index: int) -> npt.NDArray[np.float16] | None:
        """Return a frame's embedding, or None."""
        with self._lock:
            frames = self._sources.get(key)
            if frames is None:
                return None
            self._sources.move_to_end(key)
            return frames.get(index)

    def put(self, key: _Key, index: int, values: npt.NDArray[np.float16]) -> None:
        """Keep a frame's embedding, if there is or can be made room for it."""
        with self._lock:
            self.encoded += 1
            frames = self._sources.setdefault(key, {})
            self._sources.move_to_end(key)
            self._bytes -= frames.pop(index).nbytes if index in frames else 0
            while self._bytes + values.nbytes > self.max_bytes and len(self._sources) > 1:
                _, oldest = self._sources.popitem(last=False)
                self._bytes -= sum(one.nbytes for one in oldest.values())
            if self._bytes + values.nbytes <= self.max_bytes:
                frames[index] = values
                self._bytes += values.nbytes


class MemorySection:
    """The embeddings of one signature in a `MemoryStore`."""

    def __init__(self, store: MemoryStore, name: str) -> None:
        """Use `MemoryStore.section`."""
        self._store, self._name = store, name

    def find(self, source_hash: str) -> "MemoryEmbeddings":
        """Return a source's embeddings, as far as they are kept."""
        return MemoryEmbeddings(self._store, (self._name, source_hash))

    def source(
        self, source_hash: str, frames: int, embedding_shape: tuple[int, int, int], source_id: str
    ) -> "MemoryEmbeddings":
        """Return a source's embeddings; see `StoreSection.source`."""
        return self.find(source_hash)


class MemoryEmbeddings:
    """The embeddings of one source's frames in a `MemoryStore`."""

    def __init__(self, store: MemoryStore, key: _Key) -> None:
        """Use `MemorySection.find`."""
        self._store, self._key = store, key

    def get(self, index: int) -> npt.NDArray[np.float16] | None:
        """Return float16 (C, h, w), not to be written to; or None."""
        return self._store.get(self._key, index)

    def as_read(self, embedding: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
        """Return the embedding as reading would return it: unchanged."""
        return embedding

    def write(self, index: int, embedding: npt.NDArray[np.floating]) -> None:
        """Keep one frame's embedding, if there is room."""
        self._store.put(self._key, index, np.array(embedding, np.float16))
