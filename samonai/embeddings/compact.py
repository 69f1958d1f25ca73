"""Int8 embeddings: a quarter of float32's bytes, with one scale per channel and frame.

A channel's values are divided by its largest magnitude / 127 and rounded. The scale, a float32,
lies behind the channel's values, so that a frame stays one chunk under one checksum.
"""

import numpy as np
import numpy.typing as npt

_LEVELS = 127
_SCALE_BYTES = 4


def packed_shape(embedding_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return the shape of a packed embedding (C, h, w): one row of int8 per channel."""
    channels, height, width = embedding_shape
    return channels, height * width + _SCALE_BYTES


def pack(embedding: npt.NDArray[np.floating]) -> npt.NDArray[np.int8]:
    """Quantise float (C, h, w), finite, to int8 (C, h·w + 4)."""
    rows = np.asarray(embedding, np.float32).reshape(len(embedding), -1)
    scales = np.abs(rows).max(1, keepdims=True) / np.float32(_LEVELS)
    scales[scales == 0] = 1
    values = np.rint(rows / scales).astype(np.int8)
    return np.concatenate([values, scales.astype("<f4").view(np.int8)], axis=1)


def unpack(
    packed: npt.NDArray[np.int8], embedding_shape: tuple[int, int, int]
) -> npt.NDArray[np.float16]:
    """Return float16 (C, h, w) of a packed embedding."""
    scales = np.ascontiguousarray(packed[:, -_SCALE_BYTES:]).view("<f4")
    values = packed[:, :-_SCALE_BYTES] * scales
    return values.astype(np.float16).reshape(embedding_shape)
