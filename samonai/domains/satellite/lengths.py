"""Ground lengths in settings, and the tiles and blocks of a raster."""

import math
import re
from dataclasses import dataclass

from samonai.core.errors import InputError
from samonai.domains.tiling.tiles import Window

_LENGTH = re.compile(r"^\s*(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>m|px|%)?\s*$")


@dataclass(frozen=True)
class Length:
    """A length in metres on the ground, in pixels, or as a share of another one.

    Attributes:
        value: The number.
        unit: "m" for metres on the ground, "px" for pixels, "%" for a share.
    """

    value: float
    unit: str

    @classmethod
    def parse(cls, text: str | float, name: str, share: bool = False) -> "Length":
        """Read "200m", "512px", "512" (pixels), or "25%".

        Args:
            text: The value of the setting.
            name: The setting, for the message.
            share: Whether it may be a share.

        Raises:
            InputError: The text has none of these forms.
        """
        found = _LENGTH.match(f"{text:g}" if isinstance(text, float) else str(text))
        if found is None or (found["unit"] == "%" and not share):
            raise InputError(
                f"{name}={text!r}: expected pixels such as 512 or metres such as 200m"
                + (", or a share such as 25%" if share else "")
            )
        return cls(float(found["value"]), found["unit"] or "px")

    def __str__(self) -> str:
        """Return the length in the form that `parse` reads."""
        return f"{self.value:g}{self.unit}"

    def pixels(
        self,
        ground: tuple[float, float] | None,
        name: str,
        whole: tuple[int, int] = (0, 0),
    ) -> tuple[int, int]:
        """Return the length in whole pixels along rows and columns.

        Args:
            ground: Metres per pixel (down, across); None if the raster has no ground size.
            name: The setting, for the message.
            whole: The length that a share refers to, in pixels.

        Raises:
            InputError: The length is in metres, and the raster has no ground size.
        """
        if self.unit == "px":
            return round(self.value), round(self.value)
        if self.unit == "%":
            return round(self.value / 100 * whole[0]), round(self.value / 100 * whole[1])
        if ground is None:
            raise InputError(
                f"{name}={self.value:g}m: the raster has no CRS that gives metres; give pixels"
            )
        return round(self.value / ground[0]), round(self.value / ground[1])


def blocks(size: tuple[int, int], block: tuple[int, int]) -> dict[str, Window]:
    """Cut a raster into parts that do not overlap, about `block` large, named by row and column."""
    if min(block) < 1:
        raise InputError(f"blocks of {block[0]} x {block[1]} pixels: expected at least 1 x 1")
    counts = [max(1, round(side / part)) for side, part in zip(size, block, strict=True)]
    edges = [
        [math.floor(n * side / count) for n in range(count + 1)]
        for side, count in zip(size, counts, strict=True)
    ]
    return {
        f"{row}-{column}": Window(top, left, bottom - top, right - left)
        for row, (top, bottom) in enumerate(zip(edges[0], edges[0][1:], strict=False))
        for column, (left, right) in enumerate(zip(edges[1], edges[1][1:], strict=False))
    }
