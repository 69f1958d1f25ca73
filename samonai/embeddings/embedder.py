"""Embedder of single frames for inference: read from a store, else computed."""

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from samonai.core.frame import Frame
from samonai.domains.base import Domain, Source
from samonai.embeddings.memory_store import MemoryEmbeddings, MemorySection, MemoryStore
from samonai.sam.encoder import resolve_precision
from samonai.sam.network import SamNetwork

if TYPE_CHECKING:  # not every prediction needs them
    from samonai.embeddings.store import EmbeddingStore, SourceEmbeddings, StoreSection

    AnyStore: TypeAlias = EmbeddingStore | MemoryStore
    _Stored: TypeAlias = SourceEmbeddings | MemoryEmbeddings


def embedding_signature(
    network: SamNetwork, domain: Domain[Any], precision: str = "auto"
) -> dict[str, Any]:
    """Return all that an embedding depends on, apart from its source, as JSON values."""
    return {
        "encoder_sha256": network.encoder_sha256,
        "normalisation": network.normalisation.to_metadata(),
        "precision": resolve_precision(precision, network.device),
        "long_side": network.long_side,
        "domain": domain.name,
        "domain_settings": domain.settings(),
    }


class Embedder:
    """Embeddings of single frames for inference: from the store if present, else computed.

    Values are rounded as in the store in both cases, so that a warm and a cold store give one
    result.
    """

    def __init__(
        self,
        network: SamNetwork,
        domain: Domain[Any],
        store: "AnyStore | None" = None,
        *,
        precision: str = "auto",
    ) -> None:
        """Open the section of the store.

        Args:
            network: The encoder.
            domain: The domain that cuts the frames; its settings enter the signature.
            store: Read from and, unless it is read-only, added to. None encodes every time.
            precision: As for `SamNetwork.encode`.
        """
        self._network = network
        self._domain = domain
        self._store = store
        self._precision = resolve_precision(precision, network.device)
        self._section: StoreSection | MemorySection | None = None
        if store is not None:
            self._section = store.section(embedding_signature(network, domain, precision))
        self._opened: dict[int, tuple[weakref.ref[Source], _Stored | None]] = {}

    def __call__(self, source: Source, frames: Sequence[Frame]) -> torch.Tensor:
        """Return the embeddings of frames of one source.

        Args:
            source: The source that the frames were cut from.
            frames: The frames, from `domain.frame`.

        Returns:
            float32 (B, C, h, w) on the network's device, in the order of `frames`.
        """
        stored = self._of(source)
        found = [None if stored is None else stored.get(f.location.index) for f in frames]
        absent = [position for position, values in enumerate(found) if values is None]
        if absent:
            images = [self._network.preprocess(frames[position].image) for position in absent]
            computed = self._network.encode(torch.stack(images), precision=self._precision)
            for position, values in zip(absent, as_stored(computed), strict=True):
                found[position] = values if stored is None else stored.as_read(values)
                if stored is not None and self._store is not None and not self._store.read_only:
                    stored.write(frames[position].location.index, values)
        if self._store is not None:
            self._store.reused += len(frames) - len(absent)
        embeddings = torch.from_numpy(np.stack([values for values in found if values is not None]))
        return embeddings.to(self._network.device, torch.float32)

    def _of(self, source: Source) -> "_Stored | None":
        """Return a source's stored embeddings, whose hash is cached as long as it lives."""
        if self._section is None or self._store is None:
            return None
        key = id(source)
        known = self._opened.get(key)
        if known is not None and known[0]() is source:
            return known[1]
        source_hash = source.content_hash()
        stored: _Stored | None = self._section.find(source_hash)
        if stored is None and not self._store.read_only:
            stored = self._section.source(
                source_hash,
                self._domain.frame_count(source),
                self._network.embedding_shape,
                source.source_id,
            )
        opened = self._opened
        opened[key] = weakref.ref(source, lambda _: opened.pop(key, None)), stored
        return stored


def as_stored(embeddings: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Return embeddings as float16, the format of every store.

    Raises:
        ValueError: A value is not finite as float16.
    """
    values = embeddings.to(torch.float16)
    if not bool(torch.isfinite(values).all()):
        raise ValueError("the encoder gave values that float16 cannot hold; is its file whole?")
    return values.cpu().numpy()
