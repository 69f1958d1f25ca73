"""Pictures through Pillow: upright, RGB, 8 bit, on white; several pages of a TIFF one by one."""

import logging
import math
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from samonai.core.errors import InputError

logger = logging.getLogger(__name__)

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
LARGEST_PICTURE = 100_000_000
"""Most pixels of a page: what one may take in memory."""

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
_ORIENTATION = 0x0112
_WHITE = (255, 255, 255, 255)
# Of the upright picture, after rows and columns have changed places where they do.
_FLIPS = {
    1: (False, False), 2: (False, True), 3: (True, True), 4: (True, False),
    5: (False, False), 6: (False, True), 7: (True, True), 8: (True, False),
}  # fmt: skip
_TURNED = (5, 6, 7, 8)
_DEPTHS = (8, 10, 12, 14, 16)
"""Bits of grey that scanners and cameras store in 16."""
_PNG_HEAD, _PNG_CHUNK = 8, ">I4s"


@dataclass(frozen=True)
class Picture:
    """One page of a picture file, upright.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        orientation: EXIF orientation of the stored pixels, 1 to 8; it has been applied.
        dpi: (down, across) of the upright picture; None where the file does not tell.
    """

    image: npt.NDArray[np.uint8]
    orientation: int = 1
    dpi: tuple[float, float] | None = None


def count_pages(path: Path) -> int:
    """Return how many pages a picture file has.

    Raises:
        InputError: It cannot be read.
    """
    with open_picture(path) as opened:
        # An MPO holds previews of one photograph, a WebP an animation: only TIFFs have pages.
        return int(getattr(opened, "n_frames", 1)) if opened.format == "TIFF" else 1


def read_picture(path: Path, number: int = 1) -> Picture:
    """Read one page of a picture file.

    Args:
        path: PNG, JPEG, TIFF or WebP.
        number: Of the page, from 1.

    Raises:
        InputError: The file is damaged, enormous, or of values that are no picture.
    """
    with open_picture(path) as opened:
        if number > 1:
            opened.seek(number - 1)
        check_size(path, opened.size[::-1])
        orientation = _orientation(opened)
        dpi = _dpi(opened)
        if dpi is not None and orientation in _TURNED:
            dpi = dpi[::-1]
        return Picture(upright(np.asarray(_as_rgb(path, opened)), orientation), orientation, dpi)


def read_values(path: Path) -> tuple[npt.NDArray[np.integer], int]:
    """Read the values of a mask picture as they are stored, and its EXIF orientation.

    Returns:
        integer (H, W), stored values (of a palette: its numbers); and the orientation, 1 to 8.

    Raises:
        InputError: The picture has several channels.
    """
    with open_picture(path) as opened:
        check_size(path, opened.size[::-1])
        if opened.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
            raise InputError(
                f"{path}: a mask has one channel of class values; this one is {opened.mode}"
            )
        return np.asarray(opened).astype(np.int32), _orientation(opened)


def upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn and mirror stored pixels, (H, W) or (H, W, C), as their EXIF orientation says."""
    if orientation in _TURNED:
        pixels = pixels.swapaxes(0, 1)
    down, across = _FLIPS[orientation]
    return pixels[:: -1 if down else 1, :: -1 if across else 1].copy()


def check_size(path: Path, size: tuple[int, int], dpi: float | None = None) -> None:
    """Refuse what would not fit into memory, before it is unpacked.

    Args:
        path: The file.
        size: (H, W) in pixels.
        dpi: What it would be drawn at; None where the file says its size in pixels.

    Raises:
        InputError: It has too many pixels, or none.
    """
    height, width = size
    if height * width > LARGEST_PICTURE:
        lower = "Is it a decompression bomb? Otherwise lower its resolution"
        if dpi is not None:
            most = math.floor(dpi * math.sqrt(LARGEST_PICTURE / (height * width)))
            lower = f"Drawn at {dpi:g} dpi it is too large; dpi={most} fits"
        raise InputError(
            f"{path}: {width} x {height} pixels; at most {LARGEST_PICTURE} can be read. {lower}"
        )
    if height < 1 or width < 1:
        raise InputError(f"{path}: an empty picture of {width} x {height} pixels")


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Open a picture file; whatever goes wrong while it is read becomes one line.

    Raises:
        InputError: As said.
    """
    try:
        with warnings.catch_warnings():
            # Its own limit is checked in `check_size`; damaged EXIF and TIFF tags are no obstacle.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as opened:
                yield opened
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a PNG, JPEG, TIFF or WebP picture") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: more pixels than can be read; a decompression bomb?") from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise InputError(f"{path}: damaged, or not readable: {error}") from error


def _as_rgb(path: Path, opened: Image.Image) -> Image.Image:
    """Convert to RGB; what is transparent shows white paper."""
    if opened.mode in ("I;16", "I;16B", "I;16L", "I"):
        return _from_16_bit(path, np.asarray(opened))
    if opened.mode == "F":
        raise InputError(f"{path}: holds fractions; expected 8 or 16 bit grey, or colours")
    if opened.has_transparency_data:
        on_white = Image.new("RGBA", opened.size, _WHITE)
        on_white.alpha_composite(opened.convert("RGBA"))
        return on_white.convert("RGB")
    return opened.convert("RGB")


def _orientation(opened: Image.Image) -> int:
    stored = opened.getexif().get(_ORIENTATION, 1)
    return stored if isinstance(stored, int) and stored in _FLIPS else 1


def _from_16_bit(path: Path, values: npt.NDArray[np.integer]) -> Image.Image:
    """Scale grey of up to 16 bits to 8: by the depth that the file states, else that it needs."""
    least, most = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if least < 0 or most >= 1 << _DEPTHS[-1]:
        raise InputError(f"{path}: grey values {least} to {most}, not of 16 bits")
    depth = next(bits for bits in _DEPTHS if most < 1 << bits)
    if stated := _significant_bits(path):
        # Values are stored on the scale of 16 bits, unless all of them fit into the fewer.
        depth = stated if most < 1 << stated else _DEPTHS[-1]
    elif depth < _DEPTHS[-1]:
        logger.warning("%s: 16 bit grey up to %d is taken for %d bit", path, most, depth)
    grey = np.round(values.astype(np.float32) * (255 / ((1 << depth) - 1))).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _significant_bits(path: Path) -> int | None:
    """Return how many bits of its grey a PNG says are significant (sBIT), if it does."""
    with path.open("rb") as file:
        if not file.read(_PNG_HEAD).startswith(b"\x89PNG"):
            return None
        while len(head := file.read(struct.calcsize(_PNG_CHUNK))) == struct.calcsize(_PNG_CHUNK):
            length, kind = struct.unpack(_PNG_CHUNK, head)
            if kind == b"sBIT":
                bits = file.read(1)
                return bits[0] if bits and 1 <= bits[0] <= _DEPTHS[-1] else None
            if kind == b"IDAT":
                return None
            file.seek(length + 4, 1)
    return None


def _dpi(opened: Image.Image) -> tuple[float, float] | None:
    """Return dots per inch (down, across) as the file tells them, if it does sensibly."""
    stored = opened.info.get("dpi")
    try:
        across, down = (float(value) for value in stored or ())
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (down, across) if 1 < down < 10_000 and 1 < across < 10_000 else None
