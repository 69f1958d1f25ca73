"""Settings of rasters: tiles, values, labels, polygons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from samonai.core.settings import Affects, setting
from samonai.settings.choices import PLACINGS, SCALINGS

_RESULTS, _WEIGHTS, _PIXELS = Affects.RESULTS, Affects.WEIGHTS, Affects.PIXELS


@dataclass(frozen=True)
class SatelliteSettings:
    """Satellite and aerial rasters."""

    tile: str | int = setting("512", "Side of a tile: 512 (pixels) or 200m.", _PIXELS)
    resolution: float | None = setting(
        None, "Ground size of a pixel of the model's image; replaces tile.", _PIXELS, unit="m",
        low=0, above=True,
    )  # fmt: skip
    overlap: str | float = setting(
        "25%", "What neighbouring tiles share: pixels, metres (20m) or a share (25%).", _WEIGHTS
    )
    offset: int = setting(
        0, "Rows and columns that inner tiles are moved by.", _WEIGHTS, unit="pixels"
    )
    placing: str = setting(
        "prompts", "Where tiles lie that prompts ask for.", _RESULTS, choices=PLACINGS
    )
    block: str | int | None = setting(
        None, "Size of the parts that a raster is cut into as cases: pixels or metres.", _WEIGHTS
    )
    bands: str | int | None = setting(
        None, "Numbers of one band or three: 4,3,2; null: as the file names them.", _PIXELS
    )
    scaling: str = setting(
        "auto", "How values become 8-bit: percentiles of each raster, or of the training set, or "
        "fixed ranges; auto: 8-bit as it is, else set.", _PIXELS, choices=SCALINGS,
    )  # fmt: skip
    lower: float = setting(
        2.0, "Percentile of valid pixels that becomes black.", _PIXELS, unit="%", low=0, high=100
    )
    upper: float = setting(
        98.0, "Percentile of valid pixels that becomes white.", _PIXELS, unit="%", low=0, high=100
    )
    ranges: str | Sequence[Sequence[float]] | None = setting(
        None, "low:high of all bands, or of each: 0:3000,0:2500,0:2000.", _PIXELS
    )
    nodata: float | None = setting(
        None, "Value of missing pixels, besides what the files say.", _WEIGHTS
    )
    class_field: str | None = setting(
        None, "Column of a vector file that tells the class.", _WEIGHTS
    )
    classes: str | Sequence[str] | None = setting(
        None, "Names of the classes 1, 2, …: building,road.", _WEIGHTS
    )
    line_width: str | float | None = setting(
        None, "Width of lines, or the column that holds it.", _WEIGHTS, unit="m", low=0, above=True
    )
    point_radius: float | None = setting(
        None, "Radius of the disc that a point stands for.", _WEIGHTS, unit="m", low=0, above=True
    )
    label_crs: str | None = setting(
        None, "CRS of vector labels instead of the file's: EPSG:32616, or image.", _WEIGHTS
    )
    label_map: str | Mapping[str, int] | None = setting(
        None, "Stored mask value to class: 255:1.", _WEIGHTS
    )
    instances: bool = setting(
        True, "Each vector feature is an object; else touching ones join.", _WEIGHTS
    )
    any_driver: bool = setting(False, "Let GDAL read all its formats.", _WEIGHTS)
    fitted: bool = setting(
        False, "tile and resolution were measured on the training set.", _WEIGHTS, internal=True
    )
    simplify: float = setting(
        0.0, "Distance that outlines of polygons may move; 0: along pixels.", _RESULTS, unit="m",
        low=0,
    )  # fmt: skip
    right_angles: bool = setting(
        False, "Make outlines right-angled where they nearly are.", _RESULTS
    )
    polygon_min_area: float = setting(
        0.0, "Smaller polygons are left out.", _RESULTS, unit="m²", low=0
    )
