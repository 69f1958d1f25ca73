"""Small pages for tests: pictures of blocks, and PDFs whose text layer is the truth."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

CLASSES = ("text", "title", "table", "figure")
EXIF_ORIENTATION = 0x0112

WORDS = (
    "harbour", "lantern", "meadow", "copper", "willow", "granite", "ribbon", "falcon",
    "orchard", "thimble", "saddle", "quartz", "velvet", "canyon", "beacon", "cinder", "hollow",
    "marble", "nettle", "oyster", "pepper", "quiver", "russet", "timber", "umbra", "violet",
    "walnut", "yonder", "zephyr", "anchor", "basil", "cobalt", "dune", "ember", "fennel",
    "glacier", "hazel", "indigo",
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A block of a generated page: xyxy in points from the upper left corner, and its words."""

    name: str
    box: tuple[float, float, float, float]
    words: tuple[str, ...] = ()


def block_page(
    height: int, width: int, seed: int = 0, classes: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture (H, W, 3) of coloured blocks, and the class of each pixel."""
    rng = np.random.default_rng(seed)
    label = np.zeros((height, width), np.uint8)
    for _ in range(6):
        y0, x0 = rng.integers(0, height), rng.integers(0, width)
        y1, x1 = y0 + rng.integers(2, height // 2 + 3), x0 + rng.integers(2, width // 2 + 3)
        label[y0:y1, x0:x1] = rng.integers(0, classes + 1)
    colours = np.array([(255, 255, 255), (40, 40, 40), (180, 30, 30), (30, 90, 200), (0, 160, 80)])
    return colours[label].astype(np.uint8), label


def save_picture(
    path: Path, image: np.ndarray, orientation: int = 1, dpi: float | None = None
) -> Path:
    """Save a picture whose upright pixels are `image`, stored as EXIF `orientation` says."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    picture = Image.fromarray(image)
    if orientation in undo:
        picture = picture.transpose(undo[orientation])
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    extra: dict[str, Any] = {} if dpi is None else {"dpi": (dpi, dpi)}
    picture.save(path, exif=exif, **extra)
    return path


def text_pdf(path: Path, pages: int = 1, seed: int = 0) -> list[list[Block]]:
    """Write a PDF of pages with a title, two columns of paragraphs, a table and a figure.

    Returns:
        The blocks of each page.
    """
    rng = np.random.default_rng(seed)
    canvas = Canvas(str(path), pagesize=A4, invariant=1)
    written = []
    for _ in range(pages):
        written.append(_page(canvas, rng))
        canvas.showPage()
    canvas.save()
    return written


def _page(canvas: Canvas, rng: np.random.Generator) -> list[Block]:
    height = A4[1]
    blocks = [_lines(canvas, height, "title", (60, 60, 535, 92), rng, size=20)]
    for x in (60.0, 305.0):
        top = 120.0
        while top < 520:
            bottom = top + float(rng.integers(4, 9)) * 13
            blocks.append(_lines(canvas, height, "text", (x, top, x + 230, bottom), rng, size=9))
            top = bottom + 18
    table = (60.0, 660.0, 290.0, 760.0)
    words = []
    canvas.setLineWidth(0.8)
    for row in range(6):
        y = table[1] + row * 20
        canvas.line(table[0], height - y, table[2], height - y)
        for column in range(3 if row < 5 else 0):
            word = str(rng.choice(WORDS))
            words.append(word)
            canvas.setFont("Helvetica", 9)
            canvas.drawString(table[0] + 6 + column * 76, height - y - 14, word)
    for column in range(4):
        x = table[0] + column * (table[2] - table[0]) / 3
        canvas.line(x, height - table[1], x, height - table[3])
    blocks.append(Block("table", table, tuple(words)))
    figure = (305.0, 660.0, 535.0, 760.0)
    canvas.setFillColorRGB(*rng.uniform(0.6, 0.9, 3))
    canvas.rect(figure[0], height - figure[3], 230, 100, fill=1, stroke=0)
    canvas.setFillColorRGB(0, 0, 0)
    blocks.append(Block("figure", figure))
    return blocks


def _lines(
    canvas: Canvas,
    height: float,
    name: str,
    box: tuple[float, float, float, float],
    rng: np.random.Generator,
    size: float,
) -> Block:
    """Fill a box with lines of words."""
    x0, y0, x1, y1 = box
    words: list[str] = []
    step = size * 1.4
    y = y0 + size
    while y <= y1:
        line = ""
        while True:
            word = str(rng.choice(WORDS))
            if canvas.stringWidth(f"{line} {word}", "Helvetica", size) > x1 - x0:
                break
            line = f"{line} {word}".strip()
            words.append(word)
        canvas.setFont("Helvetica", size)
        canvas.drawString(x0, height - y, line)
        y += step
    return Block(name, box, tuple(words))


def write_coco(path: Path, pages: list[list[Block]], file_name: str, dpi: float = 150.0) -> Path:
    """Write the blocks of a PDF's pages as COCO, in pixels at a resolution."""
    scale = dpi / 72
    images, annotations = [], []
    for number, blocks in enumerate(pages, 1):
        size = [int(np.ceil(side * scale)) for side in A4]
        images.append(
            {"id": number, "file_name": file_name, "page_no": number}
            | {"width": size[0], "height": size[1]}
        )
        for block in blocks:
            x0, y0, x1, y1 = (value * scale for value in block.box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": CLASSES.index(block.name) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": n, "name": name} for n, name in enumerate(CLASSES, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path
