"""Generated pages as a data set: PDFs whose layout and words are known because they were set here.

`write_pages(folder, count, seed)` leaves documents of one to three pages each, in one look each;
`labels.json`, COCO in PubLayNet's classes, boxes drawn around the ink as theirs are; and
`words.json`, the words of every region. Running heads and page numbers belong to no region, as in
PubLayNet. The same seed writes the same pages.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pypdfium2
from reportlab.lib.pagesizes import A4, letter
from reportlab.pdfgen.canvas import Canvas

from benchmarks import page_blocks
from benchmarks.page_blocks import CLASSES, Part, Runs, Style
from samonai.core.files import write_atomically

LABELS, WORDS = "labels.json", "words.json"
DPI = 150.0
"""Resolution of the pages' labels: the default at which the documents domain draws PDFs."""

_POINTS = 72.0
_MOST_PAGES = 3  # of a document
_WHITE = 250
_REACH = 3.0  # points that ink may reach beyond a part's box, less than half of any gap
_LEAST_SHARE = 0.45  # of a column's height: less is left white at times

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Block:
    """One region of a generated page.

    Attributes:
        name: Its class.
        box: xyxy in pixels of the page at `DPI`, around its ink, upper ends exclusive.
        runs: Its words, by paragraph, item or cell; none in figures.
    """

    name: str
    box: Box
    runs: Runs


@dataclass(frozen=True)
class MadePage:
    """One generated page.

    Attributes:
        file: Name of its PDF.
        number: Of the page in it, from 1.
        size: (H, W) in pixels at `DPI`.
        blocks: Its regions.
    """

    file: str
    number: int
    size: tuple[int, int]
    blocks: tuple[Block, ...]


def write_pages(folder: Path, count: int, seed: int = 0, name: str = "document") -> list[MadePage]:
    """Write pages into a folder, unless they are there already.

    Args:
        folder: For `document_0000.pdf`, …, `labels.json` and `words.json`.
        count: Of pages.
        seed: Of all that is drawn.
        name: What documents are called, which tells sets apart.
    """
    if (folder / WORDS).is_file():
        made = read_pages(folder)
        if len(made) == count:
            return made
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    while len(made) < count:
        number = len({page.file for page in made})
        rng = np.random.default_rng([seed, number])
        pages = min(int(rng.integers(1, _MOST_PAGES + 1)), count - len(made))
        made += _write_document(folder / f"{name}_{number:04}.pdf", pages, rng)
    _write_json(folder / LABELS, coco_of(made))
    # Last: it says that all is there.
    _write_json(folder / WORDS, [asdict(page) for page in made])
    return made


def read_pages(folder: Path) -> list[MadePage]:
    """Read what `write_pages` wrote of its pages."""
    return [
        MadePage(
            page["file"],
            page["number"],
            (page["size"][0], page["size"][1]),
            tuple(
                Block(block["name"], tuple(block["box"]), tuple(map(tuple, block["runs"])))
                for block in page["blocks"]
            ),
        )
        for page in json.loads((folder / WORDS).read_text(encoding="utf-8"))
    ]


def coco_of(pages: Sequence[MadePage]) -> dict[str, object]:
    """Return the regions of pages as COCO."""
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for image, page in enumerate(pages, 1):
        height, width = page.size
        images.append(
            {"id": image, "file_name": page.file, "page_no": page.number}
            | {"height": height, "width": width}
        )
        for block in page.blocks:
            x0, y0, x1, y1 = block.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": CLASSES.index(block.name) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _write_json(path: Path, content: object) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _write_document(path: Path, pages: int, rng: np.random.Generator) -> Iterator[MadePage]:
    """Write one PDF, and yield the content of its pages."""
    style = page_blocks.draw_style(rng)
    size = A4 if rng.random() < 0.6 else letter
    canvas = Canvas(str(path), pagesize=size, invariant=1)
    placed = []
    for number in range(1, pages + 1):
        placed.append(list(_lay_out(canvas, size, style, rng, number)))
        canvas.showPage()
    canvas.save()
    with pypdfium2.PdfDocument(path) as document:
        for number, parts in enumerate(placed, 1):
            bitmap = document[number - 1].render(scale=DPI / _POINTS, rev_byteorder=True)
            ink = bitmap.to_numpy()[..., :3].min(-1) < _WHITE
            blocks = (
                Block(part.name, _around_ink(ink, box, size), part.runs) for part, box in parts
            )
            yield MadePage(path.name, number, ink.shape, tuple(blocks))


def _lay_out(
    canvas: Canvas,
    size: tuple[float, float],
    style: Style,
    rng: np.random.Generator,
    number: int,
) -> Iterator[tuple[Part, Box]]:
    """Draw one page; yield its parts and where they lie, xyxy in points with y upwards."""
    width, height = size
    left, right = rng.uniform(40, 75, 2)
    top, bottom = height - float(rng.uniform(60, 90)), float(rng.uniform(55, 80))
    _running_head(canvas, size, style, number)
    inner = width - left - right
    if number == 1:
        title = page_blocks.heading(style, rng, scale=float(rng.uniform(1.7, 2.2)))
        top = yield from _place(canvas, title, left, top, inner, style.gap * 1.5)
    if style.columns > 1 and rng.random() < 0.35:
        make = page_blocks.table if rng.random() < 0.5 else page_blocks.figure
        wide = make(style, rng, inner)
        if wide.height(inner) < 0.4 * (top - bottom):
            top = yield from _place(canvas, wide, left, top, inner, style.gap)
            caption = page_blocks.paragraph(style, rng, 5, 20)
            top = yield from _place(canvas, caption, left, top, inner, style.gap * 1.5)
    gutter = float(rng.uniform(14, 26))
    column = (inner - gutter * (style.columns - 1)) / style.columns
    for place in range(style.columns):
        share = 1.0 if rng.random() < 0.8 else float(rng.uniform(_LEAST_SHARE, 1))
        x = left + place * (column + gutter)
        yield from _fill(canvas, style, rng, (x, top, column, top - share * (top - bottom)))


def _fill(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    column: tuple[float, float, float, float],
) -> Iterator[tuple[Part, Box]]:
    """Draw parts below each other in a column (x, top, width, bottom) until one does not fit."""
    x, top, width, bottom = column
    while True:
        for part in _next_parts(style, rng, width):
            if top - part.height(width) < bottom:
                return
            top = yield from _place(canvas, part, x, top, width, style.gap)


def _next_parts(style: Style, rng: np.random.Generator, width: float) -> list[Part]:
    """Draw what comes next in a column."""
    chance = rng.random()
    if chance < 0.5:
        return [page_blocks.paragraph(style, rng)]
    if chance < 0.68:
        return [page_blocks.heading(style, rng), page_blocks.paragraph(style, rng)]
    if chance < 0.8:
        return [page_blocks.bullets(style, rng)]
    made = page_blocks.table(style, rng, width) if chance < 0.9 else None
    captioned = [made or page_blocks.figure(style, rng, width)]
    return [*captioned, page_blocks.paragraph(style, rng, 5, 18)]


def _place(
    canvas: Canvas, part: Part, x: float, top: float, width: float, gap: float
) -> Generator[tuple[Part, Box], None, float]:
    """Draw a part, yield it with its place, and return where the next one begins."""
    bottom = part.draw(canvas, x, top, width)
    yield part, (x, bottom, x + width, top)
    return bottom - gap


def _running_head(canvas: Canvas, size: tuple[float, float], style: Style, number: int) -> None:
    """Draw what belongs to no region."""
    canvas.setFont(style.font, 8)
    canvas.drawString(50, size[1] - 36, "Generated pages")
    canvas.drawCentredString(size[0] / 2, 30, str(number))


def _around_ink(ink: npt.NDArray[np.bool_], box: Box, size: tuple[float, float]) -> Box:
    """Return the box of the drawn content within a box of the page, in pixels, y downwards."""
    grown = box[0] - _REACH, box[1] - _REACH, box[2] + _REACH, box[3] + _REACH
    x0, y0, x1, y1 = (value * DPI / _POINTS for value in grown)
    height = size[1] * DPI / _POINTS
    rows = slice(max(int(height - y1), 0), int(np.ceil(height - y0)))
    columns = slice(max(int(x0), 0), int(np.ceil(x1)))
    drawn = ink[rows, columns]
    down, across = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    assert len(down), "a part that leaves no ink"
    return (
        float(columns.start + across[0]),
        float(rows.start + down[0]),
        float(columns.start + across[-1] + 1),
        float(rows.start + down[-1] + 1),
    )
