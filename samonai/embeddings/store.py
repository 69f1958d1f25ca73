"""Embedding store: each frame is encoded once, under a signature of everything it depends on."""

import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import zarr
from zarr.errors import GroupNotFoundError

from samonai.core.errors import InputError
from samonai.core.sealed import canonical_json, digest
from samonai.embeddings import compact
from samonai.embeddings.chunks import FrameChunks, find_array, get_node, open_chunks, require_group

FORMAT_VERSION = 1
DTYPE, COMPACT_DTYPE = "float16", "int8"
DTYPES = (DTYPE, COMPACT_DTYPE)
"""Number formats of stored embeddings; `compact` describes int8."""

_EMBEDDINGS = "embeddings"
_NAME_DIGITS = 16


class MissingEmbeddingError(InputError):
    """A frame's embedding is not in the store, or fails its checksum."""


class EmbeddingStore:
    """Embeddings and training targets in one zarr v3 hierarchy, local or behind an fsspec URL.

    The hierarchy is `<signature>/embeddings/<source content hash>`, one array per source with one
    chunk per frame, beside `targets/<key>` (`target_store`). Renamed files are found again by
    their content; a changed file, setting or encoder has another name and is computed anew.
    A store can be pickled; each copy then counts for itself.

    Attributes:
        url: URL or path of the store.
        read_only: Whether writing is refused.
        dtype: Number format of the embeddings, one of `DTYPES`.
        encoded: Frames written through this object.
        reused: Frames found here by callers instead of encoding them.
    """

    def __init__(
        self, url: str | Path, *, read_only: bool = False, dtype: str | None = None
    ) -> None:
        """Open a store; it is created if it does not exist, unless it is `read_only`.

        Args:
            url: A folder, or any fsspec URL that zarr supports (`s3://...`, `memory://...`).
            read_only: Refuse to write.
            dtype: Number format of a new store, float16 by default; int8 takes half the
                bytes. None accepts any existing store.

        Raises:
            InputError: There is no store to read, the URL's protocol is not installed, or the
                store has another dtype.
        """
        if dtype not in (None, *DTYPES):
            raise InputError(f"a store's dtype is {' or '.join(DTYPES)}, got {dtype!r}")
        self.url = str(url)
        self.read_only = read_only
        self.encoded = 0
        self.reused = 0
        self.root = _open_root(self.url, read_only, dtype or DTYPE)
        version = self.root.attrs.get("samonai_store", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise InputError(
                f"the store {self.url} has format {version}, this samonai reads {FORMAT_VERSION}; "
                f"use another folder"
            )

        self.dtype = str(self.root.attrs.get("dtype", DTYPE))
        if self.dtype not in DTYPES:
            raise InputError(
                f"the store {self.url} cannot be opened: its zarr.json is damaged (dtype "
                f"{self.dtype[:20]!r}); use another folder"
            )
        if dtype not in (None, self.dtype):
            raise InputError(
                f"the store {self.url} keeps {self.dtype}, not {dtype}; use another folder"
            )

    def section(self, signature: Mapping[str, Any]) -> "StoreSection":
        """Open the part of the store that holds embeddings of one signature.

        Args:
            signature: JSON values of everything that an embedding depends on, apart from
                the source: encoder, normalisation, precision, domain settings.

        Raises:
            InputError: The section of this name has another signature.
        """
        signature = {"format_version": FORMAT_VERSION, "dtype": self.dtype, **signature}
        text = canonical_json(signature)
        name = digest(text)[:_NAME_DIGITS]
        attributes = {"signature": json.loads(text)}
        if self.read_only and get_node(self.root, name) is None:
            return StoreSection(self, name, None)
        group = require_group(self.root, name, attributes)
        if canonical_json(group.attrs.get("signature")) != text:
            raise InputError(
                f"the store {self.url} holds another signature under {name}; delete that group "
                f"or use another folder"
            )
        return StoreSection(self, name, group)


class StoreSection:
    """The embeddings of one signature.

    Attributes:
        store: The section's store.
        name: The signature's short name in the store.
    """

    def __init__(self, store: EmbeddingStore, name: str, group: zarr.Group | None) -> None:
        """Use `EmbeddingStore.section`; `group` is None where a read-only store has none."""
        self.store = store
        self.name = name
        self._group = group
        self._embeddings = self.subgroup(_EMBEDDINGS)

    def subgroup(self, name: str) -> zarr.Group | None:
        """Open a group in this section, created if need be; None if read-only and absent."""
        if self._group is None:
            return None
        if self.store.read_only and get_node(self._group, name) is None:
            return None
        return require_group(self._group, name, {})

    def find(self, source_hash: str) -> "SourceEmbeddings | None":
        """Return a source's embeddings as far as they are stored, or None when none are."""
        array = None if self._embeddings is None else find_array(self._embeddings, source_hash)
        return None if array is None else SourceEmbeddings(self.store, FrameChunks(array))

    def source(
        self,
        source_hash: str,
        frames: int,
        embedding_shape: tuple[int, int, int],
        source_id: str,
    ) -> "SourceEmbeddings":
        """Open a source's embeddings, or create their array.

        Args:
            source_hash: sha256 of the source's content, hexadecimal.
            frames: Number of frames that the source is cut into.
            embedding_shape: (C, h, w) of one embedding.
            source_id: Written into the attributes; contains no path and no patient's name.

        Raises:
            InputError: The store is read-only, or holds another shape for this source.
        """
        if self._embeddings is None:
            raise InputError(f"the store {self.store.url} is read-only: nothing can be added to it")
        small = self.store.dtype == COMPACT_DTYPE
        shape = compact.packed_shape(embedding_shape) if small else embedding_shape
        unpacked = {"embedding_shape": list(embedding_shape)} if small else {}
        chunks = open_chunks(
            self._embeddings,
            source_hash,
            shape=(frames, *shape),
            dtype=self.store.dtype,
            fill_value=0 if small else float("nan"),
            attributes={"source_id": source_id, **unpacked},
        )
        return SourceEmbeddings(self.store, chunks)


class SourceEmbeddings:
    """The stored embeddings of one source's frames."""

    def __init__(self, store: EmbeddingStore, chunks: FrameChunks) -> None:
        """Use `StoreSection.source` or `StoreSection.find`."""
        self._store = store
        self._chunks = chunks

    @property
    def frames(self) -> int:
        """Return the number of the source's frames, stored or not."""
        return self._chunks.frames

    @property
    def source_id(self) -> str:
        """Return the identifier of the source at its first encoding."""
        return str(self._chunks.attributes.get("source_id", ""))

    def has(self, index: int) -> bool:
        """Return whether a frame's embedding is there and whole."""
        return self._chunks.has(index)

    def missing(self, indices: Iterable[int]) -> list[int]:
        """Return those of `indices` whose embedding is absent or damaged.

        Every chunk is read and its checksum verified.
        """
        return self._chunks.missing(indices)

    def get(self, index: int) -> npt.NDArray[np.float16] | None:
        """Return float16 (C, h, w), the caller's to keep, or None when absent or damaged."""
        values = self._chunks.read(index)
        return values if values is None else self._unpacked(values)

    def as_read(self, embedding: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
        """Return float16 (C, h, w): the embedding as reading would return it after writing."""
        packed = self._store.dtype == COMPACT_DTYPE
        return self._unpacked(compact.pack(embedding)) if packed else embedding

    def _unpacked(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
        if self._store.dtype != COMPACT_DTYPE:
            return values
        channels, height, width = self._chunks.attributes["embedding_shape"]
        return compact.unpack(values, (channels, height, width))

    def read(self, index: int) -> npt.NDArray[np.float16]:
        """Return float16 (C, h, w), the caller's to keep.

        Raises:
            MissingEmbeddingError: The frame is absent or damaged.
        """
        values = self.get(index)
        if values is None:
            raise MissingEmbeddingError(
                f"frame {index} of {self.source_id} is not in the store {self._store.url} or is "
                f"damaged there; encode the data set again, which adds missing frames"
            )
        return values

    def write(self, index: int, embedding: npt.NDArray[np.floating]) -> None:
        """Store one frame's embedding in the store's dtype.

        Args:
            index: The frame's number.
            embedding: float (C, h, w), finite and within float16's range.

        Raises:
            InputError: The store is read-only.
            ValueError: The shape differs, or a value is not finite as float16.
        """
        if self._store.read_only:
            raise InputError(f"the store {self._store.url} is read-only")
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(embedding, dtype=DTYPE)
        if not np.isfinite(values).all():
            raise ValueError(
                f"the embedding of frame {index} of {self.source_id} has values that are not "
                f"finite as {DTYPE}; is the encoder's checkpoint whole?"
            )
        self._chunks.write(
            index, compact.pack(values) if self._store.dtype == COMPACT_DTYPE else values
        )
        self._store.encoded += 1


def _open_root(url: str, read_only: bool, dtype: str) -> zarr.Group:
    location: str | Path = url
    if "://" not in url:
        location = Path(url)
    elif urlsplit(url).scheme == "file":
        location = Path(unquote(urlsplit(url).path))
    elif importlib.util.find_spec("fsspec") is None:
        raise InputError(f"the store {url} needs fsspec: pip install 'samonai[remote]'")
    try:
        if read_only:
            return zarr.open_group(location, mode="r", zarr_format=3)
        return zarr.open_group(
            location,
            mode="a",
            zarr_format=3,
            attributes={"samonai_store": FORMAT_VERSION, "dtype": dtype},
        )
    except (GroupNotFoundError, FileNotFoundError) as error:
        raise InputError(f"there is no embedding store at {url}") from error
    except (ImportError, ValueError, TypeError, LookupError) as error:
        raise InputError(f"the store {url} cannot be opened: {error}") from error
