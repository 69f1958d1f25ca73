"""Frames: the 2D images that a domain cuts from a source, with their location in it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLANK_LEVELS = 2
"""Largest difference between the pixels of a blank frame, of 255."""


def mask_box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Return the tight box around a mask (H, W), xyxy, upper ends exclusive; None if empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class FrameLocation:
    """The location of a frame in its source.

    Attributes:
        source_id: The source's identifier; never carries a patient's name.
        index: The frame's number among its source's frames, from 0.
        origin: (row, column) of the frame's first pixel in the source's plane, in pixels.
    """

    source_id: str
    index: int
    origin: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Frame:
    """One 2D image cut from a source (slice, tile, page), and its location.

    Attributes:
        image: uint8 (H, W, 3), RGB, 0..255, frame space.
        location: Location of the frame in its source.
        label: integer (H, W), class per pixel, 0 is background; None when unlabelled.
        valid: bool (H, W), False on pixels that are neither trained on nor predicted; None: all
            valid.
        instances: integer (H, W), number of the object that each pixel belongs to, unique in the
            source, 0 is none; None where the label holds classes only.
    """

    image: npt.NDArray[np.uint8]
    location: FrameLocation
    label: npt.NDArray[np.integer] | None = None
    valid: npt.NDArray[np.bool_] | None = None
    instances: npt.NDArray[np.integer] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Return the frame's (H, W) in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def part(self) -> tuple[slice, slice]:
        """Return the rows and columns of the source's plane that the frame shows."""
        (row, column), (height, width) = self.location.origin, self.size
        return slice(row, row + height), slice(column, column + width)

    @property
    def is_blank(self) -> bool:
        """Return whether the frame is blank: air, nodata, an empty page.

        It is blank if no pixel is valid, or if in each channel all valid pixels lie within
        `BLANK_LEVELS` of 255 of each other. A single speck makes a frame not blank.
        """
        pixels = self.image if self.valid is None else self.image[self.valid]
        if not pixels.size:
            return True
        flat = pixels.reshape(-1, pixels.shape[-1])
        return bool((flat.max(0).astype(int) - flat.min(0) <= BLANK_LEVELS).all())
