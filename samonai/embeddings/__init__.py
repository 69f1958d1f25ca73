"""Embeddings: frames encoded once, stored under a signature, with the targets of training."""

from typing import TYPE_CHECKING

from samonai.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from samonai.embeddings.embedder import (
        Embedder,
        embedding_signature,
    )
    from samonai.embeddings.encode import (
        EncodeReport,
        encode_cases,
    )
    from samonai.embeddings.encoding_plan import (
        EncodedCase,
    )
    from samonai.embeddings.memory_store import (
        MemoryStore,
    )
    from samonai.embeddings.store import (
        EmbeddingStore,
        MissingEmbeddingError,
        SourceEmbeddings,
        StoreSection,
    )
    from samonai.embeddings.target_store import (
        SourceTargets,
        load_targets,
    )
    from samonai.embeddings.targets import (
        DEFAULT_MIN_AREA,
        FrameTargets,
        build_targets,
    )
    from samonai.embeddings.views import (
        Augmentation,
        encode_views,
        summed,
        view_of,
    )

__all__ = [
    "DEFAULT_MIN_AREA",
    "Augmentation",
    "Embedder",
    "EmbeddingStore",
    "EncodeReport",
    "EncodedCase",
    "FrameTargets",
    "MemoryStore",
    "MissingEmbeddingError",
    "SourceEmbeddings",
    "SourceTargets",
    "StoreSection",
    "build_targets",
    "embedding_signature",
    "encode_cases",
    "encode_views",
    "load_targets",
    "summed",
    "view_of",
]

# MONAI takes seconds to import: only when a name is used.
_HOMES = {
    "DEFAULT_MIN_AREA": "targets",
    "Augmentation": "views",
    "Embedder": "embedder",
    "EmbeddingStore": "store",
    "EncodeReport": "encode",
    "EncodedCase": "encoding_plan",
    "FrameTargets": "targets",
    "MemoryStore": "memory_store",
    "MissingEmbeddingError": "store",
    "SourceEmbeddings": "store",
    "SourceTargets": "target_store",
    "StoreSection": "store",
    "build_targets": "targets",
    "embedding_signature": "embedder",
    "encode_cases": "encode",
    "encode_views": "views",
    "load_targets": "target_store",
    "summed": "views",
    "view_of": "views",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
