"""COCO masks: run-length encoding and decoding, and outlines drawn as by pycocotools."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError

_FIRST_CHARACTER, _MORE, _SIGN, _BITS = 48, 0x20, 0x10, 5
_MOST_CHARACTERS = 13
"""Largest number of characters of one compressed run length; more would exceed 64 bits."""


def read_run_lengths(segmentation: Any, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the run lengths of a mask, column by column, beginning with its background.

    Args:
        segmentation: `size` and `counts`, compressed text or a list of whole numbers.
        size: (H, W) of the image.

    Returns:
        int64 (N,), 0 or more each, H x W altogether.

    Raises:
        ValueError: The run lengths are damaged, or for another size.
    """
    stated = tuple(int(side) for side in segmentation["size"])
    if stated != size:
        raise ValueError(f"run lengths for {list(stated)}, the image has {list(size)}")
    counts = segmentation["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    found = _decompressed(counts) if isinstance(counts, str) else list(counts)
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in found):
        raise ValueError("run lengths that are no whole numbers from 0")
    if sum(found) != size[0] * size[1]:
        raise ValueError(f"run lengths do not add up to {size[0]} x {size[1]} pixels")
    return np.array(found, np.int64)


def runs_to_mask(counts: npt.NDArray[np.int64], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the mask of run lengths, bool (H, W)."""
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(values.reshape(size[::-1]).T)


def decode_rle(segmentation: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Decode run lengths, compressed or not, to bool (H, W).

    Raises:
        ValueError: The run lengths are damaged, or for another size.
    """
    return runs_to_mask(read_run_lengths(segmentation, size), size)


def encode_rle(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Encode bool (H, W) as compressed run lengths, as JSON values.

    Raises:
        InputError: pycocotools is not installed.
    """
    encoded = _coco_mask().encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def draw_part(
    rings: Sequence[npt.NDArray[np.float64]], size: tuple[int, int]
) -> tuple[tuple[int, int], npt.NDArray[np.bool_]]:
    """Draw the outlines of one object by pycocotools' rule, cropped to their surroundings.

    The rule reproduces about the same mask from outlines along pixel edges and from outlines
    through pixel centres (as traced around masks by some programs). Each outline is filled by
    itself, by the even-odd rule; the object is their union.

    Args:
        rings: float64 (n, 2) each, corners (x, y) as COCO counts them.
        size: (H, W) of the image.

    Returns:
        (row, column) of the part's upper left pixel, and bool (h, w).

    Raises:
        InputError: pycocotools is not installed.
    """
    corners = np.concatenate(rings) if len(rings) else np.zeros((0, 2))
    if not len(corners):
        return (0, 0), np.zeros((0, 0), bool)
    width, height = size[::-1]
    low = np.clip(np.floor(corners.min(0)) - 1, 0, [width, height]).astype(int)
    high = np.clip(np.ceil(corners.max(0)) + 2, 0, [width, height]).astype(int)
    if (high <= low).any():
        return (0, 0), np.zeros((0, 0), bool)
    coco = _coco_mask()
    # A shift by whole pixels does not change the drawing.
    moved = [(ring - low).ravel().tolist() for ring in rings]
    across, down = (high - low).tolist()
    runs = coco.merge(coco.frPyObjects(moved, down, across))
    return (int(low[1]), int(low[0])), np.asarray(coco.decode(runs), bool)


def draw_whole(
    rings: Sequence[npt.NDArray[np.float64]], size: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Draw the outlines of one object, bool (H, W); see `draw_part`."""
    (row, column), part = draw_part(rings, size)
    mask = np.zeros(size, bool)
    mask[row : row + part.shape[0], column : column + part.shape[1]] = part
    return mask


def _decompressed(text: str) -> list[int]:
    """Return the numbers of compressed run lengths, with differences resolved.

    Raises:
        ValueError: The text is not a list of run lengths.
    """
    numbers: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - _FIRST_CHARACTER
        if not 0 <= bits < 1 << (_BITS + 1) or shift >= _BITS * _MOST_CHARACTERS:
            raise ValueError("damaged run lengths")
        value |= (bits & (_MORE - 1)) << shift
        shift += _BITS
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        # From the fourth on, each is the difference to the one before the last.
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("damaged run lengths: the last one is cut off")
    return numbers


def _coco_mask() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise InputError(
            "outlines of COCO files need pycocotools: pip install 'samonai[documents]'"
        ) from error
    return mask
