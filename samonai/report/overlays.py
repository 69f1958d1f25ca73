"""Overlays: frames with the predicted mask in colour and the reference as a line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from samonai.core.files import write_atomically
from samonai.report.palette import class_colour

LabelMap = npt.NDArray[np.integer]
Picture = npt.NDArray[np.uint8]

_DPI = 100
_HEX = "#{:02x}{:02x}{:02x}"
_FILL = 0.42  # opacity of the class colour
_MARGIN = 0.12  # of the shown part, around the masks
_SMALLEST_SHOWN = 0.35  # of the frame's sides: a crop keeps some surroundings


def overlay_png(
    images: Sequence[Picture],
    labels: Sequence[LabelMap | None],
    predictions: Sequence[LabelMap] | Mapping[str, Sequence[LabelMap]],
    path: Path | str,
    *,
    class_names: Mapping[int, str] | None = None,
    titles: Sequence[str] | None = None,
    pixel_size: tuple[float, float] = (1.0, 1.0),
    columns: int = 6,
    tile: int = 260,
) -> Path:
    """Draw frames as a montage, cropped to where the masks are.

    Args:
        images: uint8 (H, W) or (H, W, 3) each, 0..255; all of one size.
        labels: The reference, integer (H, W), drawn as a white line; None without one.
        predictions: Integer (H, W) per frame, drawn as translucent colour; or several such
            lists by name ("before", "after"), one row of the montage each.
        path: The PNG file to write.
        class_names: Label value to name, for colours and legend; else the values themselves.
        titles: Titles of the frames.
        pixel_size: Height and width of a pixel in any one unit, for frames across thick slices.
        columns: Frames per row.
        tile: Longest side of a frame in the picture, in pixels.

    Returns:
        The file that was written.
    """
    rows = predictions if isinstance(predictions, Mapping) else {"": predictions}
    if not images or any(len(row) != len(images) for row in (labels, *rows.values())):
        raise ValueError(
            f"Expected as many labels and predictions as images ({len(images)}, at least 1), got "
            f"{len(labels)} and {[len(row) for row in rows.values()]}."
        )
    names = class_names or _values_as_names(labels, rows)
    painter = _Painter(_shown_part(images, labels, rows), pixel_size, tile, list(names))
    blocks = [range(start, len(images))[:columns] for start in range(0, len(images), columns)]
    lines = [(block, name) for block in blocks for name in rows]
    figure, grid = _grid(painter, len(lines), len(blocks[0]), wide=any(rows))
    for axes_row, (block, name) in zip(grid, lines, strict=True):
        axes_row[0].set_ylabel(_plain(name), fontsize=11)
        for axes, index in zip(axes_row, block, strict=False):
            axes.imshow(painter.paint(images[index], labels[index], rows[name][index]))
            axes.patch.set_visible(True)
            if titles is not None and name == next(iter(rows)):
                axes.set_title(_plain(titles[index]), fontsize=9, pad=3)
    with write_atomically(path) as temporary:
        _legend(figure, names, any(label is not None for label in labels))
        figure.savefig(temporary, dpi=_DPI, format="png", facecolor="white")
    return Path(path)


def informative_indices(labels: Sequence[LabelMap | None], count: int = 6) -> list[int]:
    """Choose frames to show, evenly spaced among those with objects, else among all.

    Args:
        labels: Integer (H, W) or None per frame.
        count: Largest number of frames.
    """
    filled = [n for n, label in enumerate(labels) if label is not None and label.any()]
    candidates = filled or list(range(len(labels)))
    if len(candidates) <= count:
        return candidates
    places = (np.arange(count) + 0.5) * len(candidates) / count
    return [candidates[int(place)] for place in places]


@dataclass(frozen=True)
class _Painter:
    """Paints one frame, cropped and enlarged.

    Attributes:
        part: Rows and columns to show.
        pixel_size: Height and width of a pixel.
        tile: Longest side of the result, in pixels.
        values: The label values, in the order of their colours.
    """

    part: tuple[slice, slice]
    pixel_size: tuple[float, float]
    tile: int
    values: list[int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a painted frame."""
        sides = [
            (part.stop - part.start) * step
            for part, step in zip(self.part, self.pixel_size, strict=True)
        ]
        scale = self.tile / max(sides)
        return max(1, round(sides[0] * scale)), max(1, round(sides[1] * scale))

    def paint(self, image: Picture, label: LabelMap | None, prediction: LabelMap) -> Picture:
        """Return uint8 (size, 3)."""
        picture = Image.fromarray(np.ascontiguousarray(image[self.part])).convert("RGB")
        canvas = np.asarray(
            picture.resize(self.size[::-1], Image.Resampling.BICUBIC), np.float32
        ).copy()
        predicted = self._enlarge(prediction)
        reference = None if label is None else self._enlarge(label)
        for position, value in enumerate(self.values):
            mask = predicted == value
            colour = np.array(class_colour(position), np.float32)
            canvas[mask] += _FILL * (colour - canvas[mask])
            canvas[mask & ~binary_erosion(mask, border_value=1)] = colour
        for value in self.values if reference is not None else ():
            mask = reference == value
            line = mask & ~binary_erosion(mask, iterations=2, border_value=1)
            canvas[binary_dilation(line) & ~line] *= 0.45
            canvas[line] = 255
        return np.clip(canvas, 0, 255).astype(np.uint8)

    def _enlarge(self, label: LabelMap) -> npt.NDArray[np.int32]:
        picture = Image.fromarray(np.ascontiguousarray(label[self.part], np.int32))
        return np.asarray(picture.resize(self.size[::-1], Image.Resampling.NEAREST))


def _values_as_names(
    labels: Sequence[LabelMap | None], rows: Mapping[str, Sequence[LabelMap]]
) -> dict[int, str]:
    maps = [m for row in (labels, *rows.values()) for m in row if m is not None]
    values = sorted({int(v) for m in maps for v in np.unique(m)} - {0})
    return {value: f"class {value}" for value in values}


def _shown_part(
    images: Sequence[Picture],
    labels: Sequence[LabelMap | None],
    rows: Mapping[str, Sequence[LabelMap]],
) -> tuple[slice, slice]:
    """Return the rows and columns around all masks of all frames."""
    shape = images[0].shape[:2]
    maps = [m for row in (labels, *rows.values()) for m in row if m is not None]
    if any(array.shape[:2] != shape for array in (*images, *maps)):
        raise ValueError(f"Expected all frames and masks of one size, {shape} as the first.")
    filled = np.any([m != 0 for m in maps], axis=0)
    parts = []
    for axis, n in enumerate(shape):
        places = np.flatnonzero(filled.any(axis=1 - axis))
        low, high = (int(places[0]), int(places[-1]) + 1) if places.size else (0, n)
        half = max((high - low) * (0.5 + _MARGIN), n * _SMALLEST_SHOWN / 2)
        middle = (low + high) / 2
        parts.append(slice(max(0, math.floor(middle - half)), min(n, math.ceil(middle + half))))
    return parts[0], parts[1]


def _grid(
    painter: _Painter, rows: int, columns: int, wide: bool
) -> tuple[Figure, npt.NDArray[np.object_]]:
    height, width = painter.size
    margin = 34 if wide else 8
    size = (
        max(columns * (width + 6) + margin, 320) / _DPI,
        (rows * (height + 22) + 44) / _DPI,
    )
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    figure = Figure(figsize=size, layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        _blank(axes)
    return figure, grid


def _blank(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)


def _legend(figure: Figure, names: Mapping[int, str], with_reference: bool) -> None:
    entries: list[Patch | Line2D] = [
        Patch(color=_HEX.format(*class_colour(n)), label=_plain(name))
        for n, name in enumerate(names.values())
    ]
    if with_reference:
        entries.append(Line2D([], [], color="white", linewidth=2, label="reference"))
    legend = figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=max(1, min(len(entries), int(figure.get_figwidth() / 1.1))),
        fontsize=9,
        facecolor="#555555",
        labelcolor="white",
        framealpha=1,
        edgecolor="none",
    )
    legend.set_in_layout(True)


def _plain(text: str) -> str:
    # A dollar sign in a name is not a formula.
    return text.replace("$", r"\$")
