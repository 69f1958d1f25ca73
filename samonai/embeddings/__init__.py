"""Embeddings: frames encoded once, stored under a signature, with the targets of training."""

from samonai.embeddings.encode import (
    Embedder,
    EncodeReport,
    embedding_signature,
    encode_cases,
)
from samonai.embeddings.plan import EncodedCase
from samonai.embeddings.store import (
    EmbeddingStore,
    MissingEmbeddingError,
    SourceEmbeddings,
    StoreSection,
)
from samonai.embeddings.target_store import SourceTargets, load_targets
from samonai.embeddings.targets import DEFAULT_MIN_AREA, FrameTargets, build_targets
from samonai.embeddings.views import Augmentation, encode_views, summed, view_of

__all__ = [
    "DEFAULT_MIN_AREA",
    "Augmentation",
    "Embedder",
    "EmbeddingStore",
    "EncodeReport",
    "EncodedCase",
    "FrameTargets",
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
