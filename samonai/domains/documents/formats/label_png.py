"""Class maps of pages as PNG files with a palette."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from samonai.core.files import write_atomically
from samonai.domains.documents.page import Page
from samonai.domains.palette import palette

_LARGEST_PALETTE = 255


def write_label(page: Page, label: npt.NDArray[np.integer], path: Path) -> Path:
    """Write a class map on the upright page.

    Args:
        page: The page, whose resolution is written.
        label: integer (H, W), class per pixel, 0 is background.
        path: The file; ".png" is added to a path without it.

    Returns:
        The file; its values are classes: one byte with a palette up to class 255, else two bytes.
    """
    if path.suffix.lower() != ".png":
        path = path.with_name(path.name + ".png")
    if label.max(initial=0) <= _LARGEST_PALETTE:
        image = Image.fromarray(label.astype(np.uint8), mode="L")
        image.putpalette(palette())
    else:
        image = Image.fromarray(label.astype(np.uint16))
    dpi = {} if page.dpi is None else {"dpi": page.dpi[::-1]}
    with write_atomically(path) as temporary:
        image.save(temporary, format="PNG", **dpi)
    return path
