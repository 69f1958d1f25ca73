"""Settings of the satellite domain for rasters and labels, as JSON values."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from samonai.core.geometry import LONG_SIDE
from samonai.core.settings import check_given
from samonai.domains.label_map import parse_label_map
from samonai.domains.satellite.features import FeatureOptions
from samonai.domains.satellite.lengths import Length
from samonai.domains.satellite.placing import PROMPTS
from samonai.domains.satellite.polygons import PolygonOptions
from samonai.domains.satellite.raster import Raster
from samonai.domains.satellite.scale import frame_size, set_scale, tile_near
from samonai.domains.satellite.scaling import Scaling, parse_ranges
from samonai.domains.tiling.tiles import PlacedTiles, TileGrid, Tiles, Window
from samonai.settings.satellite import SatelliteSettings

logger = logging.getLogger(__name__)


class RasterSettings:
    """Settings of rasters and their labels.

    Args:
        tile: Side of a tile: pixels ("512") or metres on the ground ("200m").
        resolution: Metres on the ground per pixel of the model's 1024 pixel image; replaces
            `tile`, so that all rasters, including small ones, have one scale. `fit` measures it
            if it is not given.
        overlap: Overlap of neighbouring tiles, in pixels, metres, or as a share of a tile.
        offset: Rows and columns that the inner tiles are moved by, in pixels.
        placing: Placement of tiles for boxes or points: "prompts" centres them on these,
            as many in one as fit; "objects" centres one on each; "grid" covers the raster. See
            `placing`. Not part of `settings`.
        block: Each raster becomes several cases of about this size (pixels or metres), so that
            parts of one scene can be held out; None: a raster is a case.
        bands: Numbers of one band or three, such as "4,3,2"; None: by the file's names.
        scaling: See `Scaling`, as for the next three.
        lower: See `Scaling`.
        upper: See `Scaling`.
        ranges: "low:high" of all bands, or of each: "0:3000,0:2500,0:2000".
        nodata: Value of missing pixels besides the files' own.
        class_field: See `FeatureOptions`, as for the next four.
        classes: Names of the classes 1, 2, …: "building,road".
        line_width: See `FeatureOptions`.
        point_radius: See `FeatureOptions`.
        label_crs: See `FeatureOptions`.
        label_map: Stored mask value to class: "255:1".
        instances: Whether each vector feature is an object of its own; else touching ones join.
        any_driver: Let GDAL read all its formats, including the network and other files.
        fitted: Whether `tile` and `resolution` are the same scale of a training set, so that the
            first is used instead of the second for a raster without CRS.
        simplify: See `PolygonOptions`, as for the next two; these do not affect pixels and are
            not part of `settings`.
        right_angles: See `PolygonOptions`.
        polygon_min_area: See `PolygonOptions.min_area`.
    """

    def __init__(
        self,
        tile: str | int = "512",
        resolution: float | None = None,
        overlap: str | int = "25%",
        offset: int = 0,
        placing: str = PROMPTS,
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
        fitted: bool = False,
        simplify: float = 0.0,
        right_angles: bool = False,
        polygon_min_area: float = 0.0,
    ) -> None:
        check_given(SatelliteSettings, locals())
        self.placing = placing
        self.tile = Length.parse(tile, "tile")
        self.overlap = Length.parse(overlap, "overlap", share=True)
        self.block = None if block in (None, "") else Length.parse(block, "block")
        self.resolution, self.offset, self.fitted = resolution, offset, fitted
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
        """Return the arguments that rebuild this domain, as JSON values."""
        options, ranges = self.options, self.scaling.ranges
        return {
            "tile": str(self.tile),
            "resolution": self.resolution,
            "overlap": str(self.overlap),
            "offset": self.offset,
            "block": None if self.block is None else str(self.block),
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
            # Missing in older runs; with a fitted scale, their stores must not be used.
            **({"fitted": self.fitted} if self._keeps_scale else {}),
        }

    def tiles(self, source: Raster) -> Tiles:
        """Return the tiles of a raster: placed ones, or else a grid."""
        grid = self.grid(source)
        if source.places is None:
            return grid
        return PlacedTiles(grid.size, grid.tile, grid.overlap, source.places)

    def grid(self, source: Raster) -> TileGrid:
        """Return the tiles that cover a raster."""
        if self.resolution is not None and (source.ground is not None or not self.fitted):
            length = Length(self.resolution * LONG_SIDE, "m")
            tile = length.pixels(source.ground, "resolution")
        else:
            tile = self.tile.pixels(source.ground, "tile")
        if self._keeps_scale:
            tile = tile_near(tile, source.size)
        overlap = self.overlap.pixels(source.ground, "overlap", tile)
        return TileGrid(source.size, tile, overlap, (self.offset, self.offset))

    def frame_size(self, grid: Tiles, part: Window) -> tuple[int, int]:
        """Return the (H, W) of the frame that shows a tile, at least the tile's own."""
        return frame_size(grid, part) if self._keeps_scale else (part.height, part.width)

    def fit_scale(self, sources: Sequence[Raster]) -> None:
        """Keep the scale of most tiles of a training set."""
        if self.fitted or not sources:
            return
        grids = [self.grid(source) for source in sources]
        side, self.resolution = set_scale(sources, grids, self.resolution)
        if self.tile.unit == "px":
            self.tile, self.fitted = Length(side, "px"), True
        if self.resolution is not None:
            logger.info("a pixel of the model is %g m on the ground", self.resolution)

    @property
    def _keeps_scale(self) -> bool:
        return self.fitted or self.resolution is not None
