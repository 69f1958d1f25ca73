"""Embedding store: each frame is encoded once, under a signature of everything it depends on."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.files import STORE_FILE
from samonai.core.sealed import canonical_json, digest, is_whole, sealed
from samonai.embeddings import compact
from samonai.embeddings.frame_file import FrameFile, RecordFormat
from samonai.embeddings.store_files import StoreFiles, open_files

FORMAT_VERSION = 2  # 1 was a zarr hierarchy with about ten files per case
DTYPE, COMPACT_DTYPE = "float16", "int8"
DTYPES = (DTYPE, COMPACT_DTYPE)
"""Number formats of stored embeddings; `compact` describes int8."""

_FIRST_FORMAT_FILE = "zarr.json"
TARGETS = "targets"
"""Folder of a store's training targets, which sections share."""
_EMBEDDINGS = "embeddings"
_NAME_DIGITS = 16


class MissingEmbeddingError(InputError):
    """A frame's embedding is not in the store, or fails its checksum."""


class EmbeddingStore:
    """Embeddings and training targets in one place, local or behind an fsspec URL.

    A case takes three files: `<signature>/embeddings/<source content hash>`, with one record per
    frame (`frame_file`), `<signature>/cases/<hash of its paths>.json` (`case_index`) and, where it
    is labelled, `targets/<key>` (`target_store`). Renamed files are found again by their content; a
    changed file, setting or encoder has another name and is computed anew.
    A store can be pickled; each copy then counts for itself.

    Attributes:
        url: URL or path of the store.
        files: The files in it.
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
            url: A folder, or any URL that fsspec supports (`s3://...`, `memory://...`).
            read_only: Refuse to write.
            dtype: Number format of a new store, float16 by default; int8 takes half the
                bytes. None accepts any existing store.

        Raises:
            InputError: There is no store to read, the URL's protocol is not installed, or the
                store has another dtype or format.
        """
        if dtype not in (None, *DTYPES):
            raise InputError(f"a store's dtype is {' or '.join(DTYPES)}, got {dtype!r}")
        self.url = str(url)
        self.read_only = read_only
        self.encoded = 0
        self.reused = 0
        self.files = open_files(self.url)
        self.dtype = _begin_store(self.files, self.url, None if read_only else dtype or DTYPE)
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
        place = f"{name}/{STORE_FILE}"
        stored = _read_document(self.files, place)
        if not self.read_only:
            self.files.sweep(TARGETS)
        if stored is None and not self.read_only:
            document = sealed({"signature": json.loads(text)})
            self.files.write(place, canonical_json(document).encode())
        elif stored is not None and canonical_json(stored.get("signature")) != text:
            raise InputError(
                f"the store {self.url} holds another signature under {name}; delete that folder "
                f"or use another store"
            )
        return StoreSection(self, name)


class StoreSection:
    """The embeddings of one signature.

    Attributes:
        store: The section's store.
        name: The signature's short name in the store.
    """

    def __init__(self, store: EmbeddingStore, name: str) -> None:
        """Use `EmbeddingStore.section`."""
        self.store = store
        self.name = name

    def find(self, source_hash: str) -> "SourceEmbeddings | None":
        """Return a source's embeddings as far as they are stored, or None when none are."""
        found = FrameFile.find(self.store.files, self._file(source_hash))
        return None if found is None else SourceEmbeddings(self.store, found)

    def source(
        self,
        source_hash: str,
        frames: int,
        embedding_shape: tuple[int, int, int],
        source_id: str,
    ) -> "SourceEmbeddings":
        """Open a source's embeddings, whose file is made with the first of them.

        Args:
            source_hash: sha256 of the source's content, hexadecimal.
            frames: Number of frames that the source is cut into.
            embedding_shape: (C, h, w) of one embedding.
            source_id: Written into the file; contains no path and no patient's name.

        Raises:
            InputError: The store is read-only, or holds another shape for this source.
        """
        if self.store.read_only:
            raise InputError(f"the store {self.store.url} is read-only: nothing can be added to it")
        small = self.store.dtype == COMPACT_DTYPE
        shape = compact.packed_shape(embedding_shape) if small else embedding_shape
        unpacked = {"embedding_shape": list(embedding_shape)} if small else {}
        file = FrameFile.require(
            self.store.files,
            self._file(source_hash),
            frames=frames,
            record=RecordFormat(self.store.dtype, tuple(shape)),
            attributes={"source_id": source_id, **unpacked},
        )
        return SourceEmbeddings(self.store, file)

    def _file(self, source_hash: str) -> str:
        return f"{self.name}/{_EMBEDDINGS}/{source_hash}"


class SourceEmbeddings:
    """The stored embeddings of one source's frames."""

    def __init__(self, store: EmbeddingStore, file: FrameFile) -> None:
        """Use `StoreSection.source` or `StoreSection.find`."""
        self._store = store
        self._file = file

    @property
    def frames(self) -> int:
        """Return the number of the source's frames, stored or not."""
        return self._file.frames

    @property
    def source_id(self) -> str:
        """Return the identifier of the source at its first encoding."""
        return str(self._file.attributes.get("source_id", ""))

    def has(self, index: int) -> bool:
        """Return whether a frame's embedding is there and whole."""
        return self._file.has(index)

    def missing(self, indices: Iterable[int]) -> list[int]:
        """Return those of `indices` whose embedding is absent or damaged.

        Every record in a folder is read and its checksum verified; objects are listed, and count
        by their size.
        """
        return self._file.missing(indices)

    def get(self, index: int) -> npt.NDArray[np.float16] | None:
        """Return float16 (C, h, w), the caller's to keep, or None when absent or damaged."""
        values = self._file.read(index)
        return values if values is None else self._unpacked(values)

    def as_read(self, embedding: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
        """Return float16 (C, h, w): the embedding as reading would return it after writing."""
        packed = self._store.dtype == COMPACT_DTYPE
        return self._unpacked(compact.pack(embedding)) if packed else embedding

    def _unpacked(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
        if self._store.dtype != COMPACT_DTYPE:
            return values
        channels, height, width = self._file.attributes["embedding_shape"]
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
        self._file.write(
            index, compact.pack(values) if self._store.dtype == COMPACT_DTYPE else values
        )
        self._store.encoded += 1


def _begin_store(files: StoreFiles, url: str, dtype: str | None) -> str:
    """Return a store's number format; a store that does not exist begins with `dtype`.

    Raises:
        InputError: There is no store and `dtype` is None, or it has another format or is damaged.
    """
    stored = _read_document(files, STORE_FILE)
    if stored is None and files.size(STORE_FILE) is None:
        if files.size(_FIRST_FORMAT_FILE) is not None:
            stored = {"samonai_store": 1}
        elif dtype is None:
            raise InputError(f"there is no embedding store at {url}")
        else:
            document = sealed({"samonai_store": FORMAT_VERSION, "dtype": dtype})
            files.write(STORE_FILE, canonical_json(document).encode())
            stored = document
    if stored is None:
        raise InputError(
            f"the store {url} cannot be opened: its {STORE_FILE} is damaged; use another folder"
        )
    if stored.get("samonai_store") != FORMAT_VERSION:
        raise InputError(
            f"the store {url} has format {stored.get('samonai_store')}, this samonai reads "
            f"{FORMAT_VERSION}; delete it, or use another folder"
        )
    return str(stored["dtype"])


def _read_document(files: StoreFiles, name: str) -> dict[str, Any] | None:
    """Return a JSON document of the store; None if it is absent or damaged."""
    content = files.read(name)
    try:
        document = None if content is None else json.loads(content.tobytes())
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and is_whole(document) else None
