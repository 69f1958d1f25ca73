"""Picture reading through Pillow: upright, RGB, 8 bit, on white; several pages of a TIFF."""

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
"""Largest number of pixels of a page, limited by memory."""

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
_ORIENTATION = 0x0112
_WHITE = (255, 255, 255, 255)
# Of the upright picture, after rows and columns are swapped if needed.
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
        orientation: EXIF orientation of the stored pixels, 1 to 8; already applied.
        dpi: (down, across) of the upright picture; None if the file has none.
    """

    image: npt.NDArray[np.uint8]
    orientation: int = 1
    dpi: tuple[float, float] | None = None


def count_pages(path: Path) -> int:
    """Return the number of pages of a picture file.

    Raises:
        InputError: The file cannot be read.
    """
    with open_picture(path) as opened:
        # An MPO holds previews of one photograph, a WebP an animation: only TIFFs have pages.
        return int(getattr(opened, "n_frames", 1)) if opened.format == "TIFF" else 1


def read_picture(path: Path, number: int = 1) -> Picture:
    """Read one page of a picture file.

    Args:
        path: PNG, JPEG, TIFF or WebP.
        number: Number of the page, from 1.

    Raises:
        InputError: The file is damaged, too large, or its values are not a picture's.
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


def stored_grey(path: Path) -> npt.NDArray[np.integer] | None:
    """Return the upright stored values of a picture of one channel, integer (H, W); None: colours.

    Raises:
        InputError: The file is damaged, too large, or holds fractions.
    """
    with open_picture(path) as opened:
        check_size(path, opened.size[::-1])
        if opened.mode == "F":
            raise InputError(f"{path}: holds fractions; expected whole numbers, or colours")
        if opened.mode not in ("L", "I", "I;16", "I;16B", "I;16L") or opened.has_transparency_data:
            return None
        return upright(np.asarray(opened), _orientation(opened))


def read_values(path: Path) -> tuple[npt.NDArray[np.integer], int]:
    """Read the stored values of a mask picture, and its EXIF orientation.

    Returns:
        integer (H, W), stored values (palette indices for a palette); and the orientation, 1 to 8.

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
    """Rotate and mirror stored pixels, (H, W) or (H, W, C), by their EXIF orientation."""
    if orientation in _TURNED:
        pixels = pixels.swapaxes(0, 1)
    down, across = _FLIPS[orientation]
    return pixels[:: -1 if down else 1, :: -1 if across else 1].copy()


def check_size(path: Path, size: tuple[int, int], dpi: float | None = None) -> None:
    """Refuse a picture too large for memory, before it is decompressed.

    Args:
        path: The file.
        size: (H, W) in pixels.
        dpi: Resolution of drawing; None if the file has its size in pixels.

    Raises:
        InputError: The picture has too many pixels, or none.
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
    """Open a picture file; any error while it is read becomes an InputError.

    Raises:
        InputError: The file is not a supported picture, too large or damaged.
    """
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is replaced by `check_size`; damaged EXIF and TIFF tags are
            # ignored.
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
    """Convert to RGB, transparency on white."""
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
    """Scale grey of up to 16 bits to 8 by the depth that the file states, else needs."""
    least, most = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if least < 0 or most >= 1 << _DEPTHS[-1]:
        raise InputError(f"{path}: grey values {least} to {most}, not of 16 bits")
    depth = next(bits for bits in _DEPTHS if most < 1 << bits)
    if stated := _significant_bits(path):
        # Values are on the scale of 16 bits, unless all of them fit into fewer.
        depth = stated if most < 1 << stated else _DEPTHS[-1]
    elif depth < _DEPTHS[-1]:
        logger.warning("%s: 16 bit grey up to %d is taken for %d bit", path, most, depth)
    grey = np.round(values.astype(np.float32) * (255 / ((1 << depth) - 1))).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _significant_bits(path: Path) -> int | None:
    """Return the significant bits of grey that a PNG states (sBIT), if any."""
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
    """Return dots per inch (down, across) stated in the file, if plausible."""
    stored = opened.info.get("dpi")
    try:
        across, down = (float(value) for value in stored or ())
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (down, across) if 1 < down < 10_000 and 1 < across < 10_000 else None
