"""Parts of generated pages: paragraphs, titles, lists, tables and figures of many looks.

All is set and drawn by reportlab. Each block says the words that it set, run by run (a paragraph,
an item, a cell), so that nothing has to be read off a page to know what stands on it.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import Image
from reportlab.graphics.charts.barcharts import VerticalBarChart
from reportlab.graphics.charts.lineplots import LinePlot
from reportlab.graphics.charts.piecharts import Pie
from reportlab.graphics.shapes import Drawing, Rect
from reportlab.lib import colors
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, Table
from reportlab.platypus import Image as Picture

CLASSES = ("text", "title", "list", "table", "figure")
"""PubLayNet's, in its order: the classes 1, 2, …"""

Runs = tuple[tuple[str, ...], ...]

_VOCABULARY = """
    ability account active advance agency airport almond amber anchor animal answer apple archive
    armour arrow aspect autumn balance bamboo banner barley basket beacon beetle border bottle
    branch breeze bridge bronze bucket budget butter button cabin candle canvas carbon carpet
    castle cattle cavern cedar cellar cement centre chamber channel cherry circle citizen clay
    climate clover coast cobalt column comet common copper coral corner cotton council country
    cradle crystal current curtain damage decade degree desert detail diamond dinner doctor dolphin
    domain double dragon drawer driver dynamo early eastern echo editor effect eleven ember empire
    energy engine estate evening exact fabric factor family farmer feather fellow fennel figure
    filter finger flame flavour flint flower forest formal fossil fountain fragile frozen future
    galaxy garden gather gentle ginger glacier golden gospel granite gravel guitar habit hammer
    harbour harvest hazel helmet heron hollow honest horizon hotel hundred hunter igloo impulse
    index indigo island ivory jacket jasmine jersey journal jungle junior kernel kettle kingdom
    kitchen ladder lantern lately laurel lawyer leather lemon letter level liberty lime linen
    liquid little lobster locker lunar magnet maple marble margin market meadow medal melody
    member metal method middle mineral mirror modern moment monkey mortar motion mountain museum
    narrow nation nature needle nephew nettle neutral nickel normal notion novel number object
    ocean office olive onion opera orange orchard origin osprey oxygen oyster packet palace panel
    paper parade parcel pastry pencil pepper period phrase pillar planet plaster pocket poem polar
    portal potato powder prairie present prism profit public puzzle quarry quarter quiver rabbit
    radio rapid raven record region remedy ribbon river rocket roof rubber runner saddle salmon
    sample season secret sector seven shadow shelter signal silver simple sister sketch smooth
    socket spider spiral spring square stable station statue stone stream street studio summer
    sunset supply surface symbol table talent target temple tender theory thimble thunder ticket
    timber tomato tower tractor travel tunnel turtle twelve uncle union unique upper useful valley
    value velvet vessel village violet vision volume voyage wagon walnut water weather welcome
    western wheat whisper willow window winter wisdom wonder wooden yellow yonder zephyr
"""
_WORDS = tuple(_VOCABULARY.split())


@dataclass(frozen=True)
class Style:
    """Style of a document, shared by its pages.

    Attributes:
        font: Of the text; its bold form is the titles'.
        size: Of the text, in points.
        leading: From line to line, as a multiple of the size.
        justified: Whether lines end below each other.
        indent: Of a paragraph's first line, in points.
        gap: Between blocks, in points.
        columns: Of text on a page.
        numbered: Whether lists count instead of having bullets.
        rules: Which lines tables have: "grid", "few" or "striped".
        colour: Of titles, bars, lines and stripes.
    """

    font: str
    size: float
    leading: float
    justified: bool
    indent: float
    gap: float
    columns: int
    numbered: bool
    rules: str
    colour: colors.Color

    @property
    def bold(self) -> str:
        """Return the name of the bold font."""
        return {"Times-Roman": "Times-Bold"}.get(self.font, f"{self.font}-Bold")

    def paragraph(self, **changed: Any) -> ParagraphStyle:
        """Return the style of a paragraph, and its differences from the document's."""
        usual: dict[str, Any] = {
            "fontName": self.font,
            "fontSize": self.size,
            "leading": self.size * self.leading,
            "alignment": 4 if self.justified else 0,
            "firstLineIndent": self.indent,
            "splitLongWords": 0,
        }
        return ParagraphStyle("block", **{**usual, **changed})


@dataclass(frozen=True)
class Part:
    """One class of region, ready to be drawn.

    Attributes:
        name: Its class.
        flowables: What reportlab draws, from top to bottom.
        runs: The words of each paragraph, item or cell.
        between: Points between the flowables.
    """

    name: str
    flowables: tuple[Flowable, ...]
    runs: Runs = ()
    between: float = 0.0

    def height(self, width: float) -> float:
        """Return the height in points at a width."""
        heights = [flowable.wrap(width, 10_000)[1] for flowable in self.flowables]
        return float(sum(heights) + self.between * (len(heights) - 1))

    def draw(self, canvas: Canvas, x: float, top: float, width: float) -> float:
        """Draw below `top`, in PDF's coordinates (y upwards), and return the bottom."""
        for flowable in self.flowables:
            height = flowable.wrap(width, 10_000)[1]
            flowable.drawOn(canvas, x, top - height)
            top -= height + self.between
        return top + self.between


def draw_style(rng: np.random.Generator) -> Style:
    """Draw a document's look."""
    columns = int(rng.choice([1, 2, 2, 2, 3]))
    indented = bool(rng.random() < 0.3)
    return Style(
        font=str(rng.choice(["Helvetica", "Times-Roman", "Times-Roman"])),
        size=float(rng.uniform(8.5, 10) if columns > 1 else rng.uniform(10, 12)),
        leading=float(rng.uniform(1.12, 1.4)),
        justified=bool(rng.random() < 0.6),
        indent=12.0 if indented else 0.0,
        gap=float(rng.uniform(7, 14)),
        columns=columns,
        numbered=bool(rng.random() < 0.4),
        rules=str(rng.choice(["grid", "few", "striped"])),
        colour=colors.Color(*(0.55 * rng.random(3)).tolist()),
    )


def heading(style: Style, rng: np.random.Generator, scale: float = 1.25) -> Part:
    """Return a title of a few words, set larger than the text."""
    words = _words(rng, int(rng.integers(2, 6)), sentence=False)
    look = style.paragraph(
        fontName=style.bold,
        fontSize=style.size * scale,
        leading=style.size * scale * 1.2,
        alignment=0,
        firstLineIndent=0,
        textColor=style.colour if rng.random() < 0.5 else colors.black,
    )
    words = (words[0].capitalize(), *words[1:])
    return Part("title", (_set(words, look),), (words,))


def paragraph(style: Style, rng: np.random.Generator, least: int = 15, most: int = 90) -> Part:
    """Return a paragraph of sentences."""
    words = _words(rng, int(rng.integers(least, most)))
    return Part("text", (_set(words, style.paragraph()),), (words,))


def bullets(style: Style, rng: np.random.Generator) -> Part:
    """Return a list of three to six items."""
    items = [_words(rng, int(rng.integers(3, 16))) for _ in range(int(rng.integers(3, 7)))]
    look = style.paragraph(leftIndent=16, bulletIndent=4, firstLineIndent=0, alignment=0)
    flowables = [
        _set(words, look, bullet=f"{number}." if style.numbered else "\u2022")
        for number, words in enumerate(items, 1)
    ]
    return Part("list", tuple(flowables), tuple(items), between=float(rng.uniform(0, 2)))


def table(style: Style, rng: np.random.Generator, width: float) -> Part:
    """Return a table of words and numbers, with a head."""
    columns = int(rng.integers(2, max(min(int(width) // 60, 6), 2) + 1))
    head = [_words(rng, 1, sentence=False)[0].capitalize() for _ in range(columns)]
    rows = [
        [_words(rng, 1, sentence=False)[0], *(_figure(rng) for _ in range(columns - 1))]
        for _ in range(int(rng.integers(3, 10)))
    ]
    cells = [head, *rows]
    size = style.size * 0.95
    look: list[tuple[Any, ...]] = [
        ("FONT", (0, 0), (-1, -1), style.font, size, size * 1.2),
        ("FONT", (0, 0), (-1, 0), style.bold, size, size * 1.2),
        ("ALIGN", (1, 0), (-1, -1), "RIGHT" if rng.random() < 0.5 else "LEFT"),
        *_rules(style),
    ]
    made = Table(cells, colWidths=[width / columns] * columns, style=look)
    return Part("table", (made,), tuple((cell,) for row in cells for cell in row))


def figure(style: Style, rng: np.random.Generator, width: float) -> Part:
    """Return a chart, or a picture without edges inside."""
    size = width, width * float(rng.uniform(0.45, 0.8))
    kinds: list[Callable[..., Flowable]] = [_bars, _lines, _pie, _picture]
    return Part("figure", (kinds[int(rng.integers(len(kinds)))](style, rng, size),))


def _rules(style: Style) -> list[tuple[Any, ...]]:
    if style.rules == "grid":
        return [("GRID", (0, 0), (-1, -1), 0.5, colors.grey)]
    lines: list[tuple[Any, ...]] = [
        ("LINEABOVE", (0, 0), (-1, 0), 1, colors.black),
        ("LINEBELOW", (0, 0), (-1, 0), 0.5, colors.black),
        ("LINEBELOW", (0, -1), (-1, -1), 1, colors.black),
    ]
    if style.rules == "few":
        return lines
    pale = colors.Color(*(1 - 0.25 * (1 - part) for part in style.colour.rgb()))
    return [*lines, ("ROWBACKGROUNDS", (0, 1), (-1, -1), [colors.white, pale])]


def _bars(style: Style, rng: np.random.Generator, size: tuple[float, float]) -> Flowable:
    chart = VerticalBarChart()
    chart.data = rng.integers(5, 100, (2, int(rng.integers(4, 9)))).tolist()
    chart.bars[0].fillColor = style.colour
    chart.bars[1].fillColor = colors.lightgrey
    chart.valueAxis.valueMin = 0
    return _charted(chart, style, size)


def _lines(style: Style, rng: np.random.Generator, size: tuple[float, float]) -> Flowable:
    chart = LinePlot()
    steps = np.arange(12)
    chart.data = [
        list(zip(steps.tolist(), (20 + rng.normal(0, 4, 12).cumsum()).tolist(), strict=True))
        for _ in range(3)
    ]
    for number, colour in enumerate((style.colour, colors.black, colors.grey)):
        chart.lines[number].strokeColor = colour
    return _charted(chart, style, size)


def _charted(chart: Any, style: Style, size: tuple[float, float]) -> Drawing:
    drawing = Drawing(*size)
    chart.x, chart.y = 26, 18
    chart.width, chart.height = size[0] - 34, size[1] - 28
    for axis in ("valueAxis", "categoryAxis", "xValueAxis", "yValueAxis"):
        if hasattr(chart, axis):
            getattr(chart, axis).labels.fontSize = style.size * 0.75
            getattr(chart, axis).labels.fontName = style.font
    drawing.add(chart)
    return drawing


def _pie(style: Style, rng: np.random.Generator, size: tuple[float, float]) -> Flowable:
    drawing = Drawing(*size)
    drawing.add(Rect(0.5, 0.5, size[0] - 1, size[1] - 1, fillColor=None, strokeColor=colors.grey))
    pie = Pie()
    pie.width = pie.height = min(size) * 0.75
    pie.x, pie.y = (size[0] - pie.width) / 2, (size[1] - pie.height) / 2
    pie.data = rng.integers(5, 40, int(rng.integers(3, 7))).tolist()
    for number in range(len(pie.data)):
        share = number / len(pie.data)
        pie.slices[number].fillColor = colors.linearlyInterpolatedColor(
            style.colour, colors.white, 0, 1, share
        )
    drawing.add(pie)
    return drawing


def _picture(style: Style, rng: np.random.Generator, size: tuple[float, float]) -> Flowable:
    """Return a picture of smooth colours with some grain, as photographs have."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3)).astype(np.uint8))
    smooth = np.asarray(coarse.resize((120, 96), Image.Resampling.BICUBIC))
    noisy = np.clip(smooth + rng.normal(0, 9, (96, 120, 1)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, format="PNG")
    return Picture(file, *size)


def _words(rng: np.random.Generator, count: int, sentence: bool = True) -> tuple[str, ...]:
    """Draw words; as sentences, with capitals, commas, full stops, and a number here and there."""
    drawn = [str(word) for word in rng.choice(_WORDS, count)]
    if not sentence:
        return tuple(drawn)
    begins = True
    for place, word in enumerate(drawn):
        if not begins and rng.random() < 0.06:
            word = _figure(rng)
        word = word.capitalize() if begins else word
        begins = place == count - 1 or bool(rng.random() < 0.09)
        drawn[place] = word + ("." if begins else "," if rng.random() < 0.06 else "")
    return tuple(drawn)


def _figure(rng: np.random.Generator) -> str:
    return f"{rng.uniform(1, 999):.{int(rng.integers(0, 3))}f}"


def _set(words: tuple[str, ...], look: ParagraphStyle, bullet: str | None = None) -> Paragraph:
    return Paragraph(escape(" ".join(words)), look, bulletText=bullet)
