"""Two-dimensional medical pictures: PNG, JPEG and TIFF as volumes of one slice, without mm.

i counts columns and j rows of the upright picture. A picture states no size of its pixels that a
measurement could rely on (dots per inch are those of a printer), so nothing is measured in mm.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.domains.medical.volume import FormatFacts, RawVolume, ReadOptions
from samonai.domains.palette import palette
from samonai.domains.pictures import (
    count_pages,
    open_picture,
    read_picture,
    read_values,
    stored_grey,
    upright,
)

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
PICTURE = "picture"
_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*")
_LARGEST_PALETTE = 255
_TINT = 0.35
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_WHY = "a picture, which states no size of its pixels"


def is_picture(head: bytes) -> bool:
    """Return whether a file's first bytes are those of a PNG, JPEG or TIFF."""
    return head.startswith(_STARTS)


def read_medical_picture(path: Path, options: ReadOptions | None = None) -> RawVolume:
    """Read a picture as a volume of one slice, grey or with its colours; or a label map.

    Raises:
        InputError: The file is damaged, has several pages, or is no label map where one is read.
    """
    pages = count_pages(path)
    if pages > 1:
        raise InputError(
            f"{path}: {pages} pages; give a picture per file, or a stack as NIfTI or NRRD"
        )
    facts = FormatFacts(PICTURE, planar=True, uncalibrated=_WHY)
    if options is not None and options.of_label:
        return RawVolume(_as_slice(_label_values(path)), _affine(), facts)
    grey = stored_grey(path)
    if grey is not None:
        return RawVolume(_as_slice(grey.astype(np.float32)), _affine(), facts)
    image = read_picture(path).image
    if (image[..., :1] == image).all():
        return RawVolume(_as_slice(image[..., 0].astype(np.float32)), _affine(), facts)
    colours = np.ascontiguousarray(image.transpose(1, 0, 2)[:, :, None])
    luminance = (image @ _LUMINANCE).astype(np.float32)
    return RawVolume(_as_slice(luminance), _affine(), facts, colours=colours)


def write_label_picture(label: npt.NDArray[np.integer], path: Path) -> Path:
    """Write the label map of one slice as PNG: values are classes, one byte with a palette.

    Args:
        label: integer (I, J, 1).
        path: The file.

    Raises:
        InputError: There are several slices.
    """
    rows = _one_slice(label, path)
    if rows.max(initial=0) <= _LARGEST_PALETTE:
        image = Image.fromarray(rows.astype(np.uint8), mode="L")
        image.putpalette(palette())
    else:
        image = Image.fromarray(rows.astype(np.uint16))
    with write_atomically(path) as temporary:
        image.save(temporary, format="PNG")
    return path


def write_overlay(
    picture: npt.NDArray[np.uint8], label: npt.NDArray[np.integer], path: Path
) -> Path:
    """Write a picture with its label map over it as PNG.

    Args:
        picture: uint8 (H, W, 3), RGB.
        label: integer (I, J, 1).
        path: The file.

    Raises:
        InputError: There are several slices.
    """
    rows = _one_slice(label, path)
    colours = np.array(palette()).reshape(-1, 3)[rows.astype(np.int64) % 256]
    shown = np.where(rows[..., None] > 0, (1 - _TINT) * picture + _TINT * colours, picture)
    with write_atomically(path) as temporary:
        Image.fromarray(shown.astype(np.uint8)).save(temporary, format="PNG")
    return path


def _one_slice(label: npt.NDArray[np.integer], path: Path) -> npt.NDArray[np.integer]:
    if label.shape[2] != 1:
        raise InputError(f"{path}: a PNG holds one slice, and this scan has {label.shape[2]}")
    return label[:, :, 0].T


def _as_slice(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(rows.T)[:, :, None]


def _affine() -> npt.NDArray[np.float64]:
    return np.diag([-1.0, -1.0, 1.0, 1.0])  # as of DICOM pictures without a position


def _label_values(path: Path) -> npt.NDArray[np.integer]:
    """Return the values of a mask picture, integer (H, W).

    Raises:
        InputError: The file is a JPEG, whose values are not exact, or has colours.
    """
    with open_picture(path) as opened:
        lossy, several = opened.format == "JPEG", opened.mode in ("RGB", "RGBA", "LA")
        pixels = np.asarray(opened) if several and not lossy else None
    if lossy:
        raise InputError(
            f"{path}: a JPEG, whose compression changes label values; save the mask as PNG"
        )
    if pixels is None:
        return upright(*read_values(path))
    channels = pixels[..., : 1 if pixels.shape[2] == 2 else 3]
    if (channels != channels[..., :1]).any():
        raise InputError(f"{path}: a mask in colours; save it with one number per class")
    return channels[..., 0].astype(np.int32)
