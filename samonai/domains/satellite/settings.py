"""Settings of the satellite domain: what is done to rasters and labels, as JSON values."""

from collections.abc import Mapping, Sequence
from typing import Any

from samonai.domains.label_map import parse_label_map
from samonai.domains.satellite.features import FeatureOptions
from samonai.domains.satellite.polygons import PolygonOptions
from samonai.domains.satellite.scaling import Scaling, parse_ranges
from samonai.domains.satellite.tiles import Length
from samonai.errors import InputError

# Prediction takes from the run what is not said, so its configuration has no defaults whose types
# could be checked; and a text such as "no" would be true.
_NUMBERS = (
    *("resolution", "lower", "upper", "nodata", "point_radius", "simplify"),
    "polygon_min_area",
)
_FLAGS = ("instances", "any_driver", "right_angles")


class RasterSettings:
    """What is done to rasters and their labels.

    Args:
        tile: Side of a tile: pixels ("512") or metres on the ground ("200m").
        resolution: Metres on the ground per pixel of the model's 1024 pixel image; replaces
            `tile`, so that rasters of several resolutions are seen at one.
        overlap: What neighbouring tiles share, in pixels or metres.
        offset: Rows and columns that the inner tiles are moved by, in pixels.
        block: Each raster becomes several cases of about this size (pixels or metres), so that
            parts of one scene can be held out; None: a raster is a case.
        bands: Numbers of one band or three, such as "4,3,2"; None: as the file names them.
        scaling: See `Scaling`, as for the next three.
        lower: See `Scaling`.
        upper: See `Scaling`.
        ranges: "low:high" of all bands, or of each: "0:3000,0:2500,0:2000".
        nodata: Value that marks missing pixels besides what the files say.
        class_field: See `FeatureOptions`, as for the next four.
        classes: Names of the classes 1, 2, …: "building,road".
        line_width: See `FeatureOptions`.
        point_radius: See `FeatureOptions`.
        label_crs: See `FeatureOptions`.
        label_map: Stored mask value to class: "255:1".
        instances: Whether each vector feature is an object of its own; else touching ones join.
        any_driver: Let GDAL read all its formats, the network and other files included.
        simplify: See `PolygonOptions`, as for the next two; these change no pixel and are no
            part of `settings`.
        right_angles: See `PolygonOptions`.
        polygon_min_area: See `PolygonOptions.min_area`.
    """

    def __init__(
        self,
        tile: str | int = "512",
        resolution: float | None = None,
        overlap: str | int = "128",
        offset: int = 0,
        block: str | int | None = None,
        bands: str | None = None,
        scaling: str = "auto",
        lower: float = 2.0,
        upper: float = 98.0,
        ranges: str | Sequence[Sequence[float]] | None = None,
        nodata: float | None = None,
        class_field: str | None = None,
        classes: str | Sequence[str] | None = None,
        line_width: str | float | None = None,
        point_radius: float | None = None,
        label_crs: str | None = None,
        label_map: Mapping[Any, Any] | str | None = None,
        instances: bool = True,
        any_driver: bool = False,
        simplify: float = 0.0,
        right_angles: bool = False,
        polygon_min_area: float = 0.0,
    ) -> None:
        given = locals()
        for name in _NUMBERS:
            _check(name, given[name], (int, float), "a number")
        for name in _FLAGS:
            _check(name, given[name], (bool,), "true or false")
        _check("offset", offset, (int,), "a whole number of pixels")
        self.tile = Length.parse(tile, "tile")
        self.overlap = Length.parse(overlap, "overlap")
        self.block = None if block in (None, "") else Length.parse(block, "block")
        if resolution is not None and not resolution > 0:
            raise InputError(f"resolution={resolution!r}: expected metres per pixel above 0")
        self.resolution, self.offset = resolution, offset
        self.bands = None if bands in (None, "") else str(bands)
        self.scaling = Scaling(scaling, lower, upper, parse_ranges(ranges))
        self.nodata = nodata
        names = classes.split(",") if isinstance(classes, str) else classes
        self.options = FeatureOptions(
            class_field or None,
            tuple(str(name).strip() for name in names) if names else None,
            line_width,
            point_radius,
            label_crs or None,
            any_driver,
        )
        self.label_map = parse_label_map(label_map)
        self.instances, self.any_driver = instances, any_driver
        self.polygons = PolygonOptions(simplify, right_angles, polygon_min_area)

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds this domain: `SatelliteDomain(**settings)`, as JSON values."""
        options, ranges = self.options, self.scaling.ranges
        return {
            "tile": f"{self.tile.value:g}{self.tile.unit}",
            "resolution": self.resolution,
            "overlap": f"{self.overlap.value:g}{self.overlap.unit}",
            "offset": self.offset,
            "block": None if self.block is None else f"{self.block.value:g}{self.block.unit}",
            "bands": self.bands,
            "scaling": self.scaling.mode,
            "lower": self.scaling.lower,
            "upper": self.scaling.upper,
            "ranges": None if ranges is None else [list(pair) for pair in ranges],
            "nodata": self.nodata,
            "class_field": options.class_field,
            "classes": None if options.classes is None else list(options.classes),
            "line_width": options.line_width,
            "point_radius": options.point_radius,
            "label_crs": options.label_crs,
            "label_map": {str(stored): wanted for stored, wanted in self.label_map.items()},
            "instances": self.instances,
            "any_driver": self.any_driver,
        }


def _check(name: str, value: Any, kinds: tuple[type, ...], wanted: str) -> None:
    right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    if not (right or value is None):
        raise InputError(f"{name}={value!r}: expected {wanted}")
