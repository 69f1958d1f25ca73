"""Overlay of a page: its regions in colour, with number, class and score."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from samonai.core.files import write_atomically
from samonai.domains.documents.layout.prediction import Region
from samonai.domains.documents.page import Page
from samonai.domains.palette import palette

_TINT = 0.35


def write_overlay(page: Page, regions: Sequence[Region], path: Path) -> Path:
    """Draw the regions over a page: tinted, boxed, and numbered in reading order."""
    colours = np.array(palette()).reshape(-1, 3)
    canvas = page.image.astype(np.float32)
    for region in regions:
        colour = colours[region.value % len(colours)]
        canvas[region.mask] = (1 - _TINT) * canvas[region.mask] + _TINT * colour
    picture = Image.fromarray(canvas.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    size = max(page.size[0] // 70, 10)
    for region in regions:
        colour = tuple(colours[region.value % len(colours)].tolist())
        x0, y0, x1, y1 = region.box
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=colour, width=max(size // 8, 1))
        text = f"{region.number} {region.name} {region.score:.2f}"
        corner = draw.textbbox((x0, y0), text, font_size=size)
        draw.rectangle(corner, fill=colour)
        light = sum(colour) > 382
        draw.text((x0, y0), text, fill=(0, 0, 0) if light else (255, 255, 255), font_size=size)
    with write_atomically(path) as temporary:
        picture.save(temporary, format="PNG")
    return path
