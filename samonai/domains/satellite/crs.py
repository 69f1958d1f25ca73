"""Coordinate reference systems (CRS) on a body or a plane: ground metres, areas, degrees."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from pyproj import CRS, Geod, Proj, Transformer
from pyproj.exceptions import CRSError, ProjError

from samonai.core.errors import InputError

Points = npt.NDArray[np.float64]

WGS84 = Geod(ellps="WGS84")
_EARTH_RADIUS = 6_378_137.0
_ALIKE = 0.01  # of the radius: ellipsoids and spheres of the Earth differ by less


@dataclass(frozen=True)
class Surface:
    """The surface of a CRS: the Earth, another body, or a plane of its own.

    Attributes:
        crs: The CRS; its vertical part is ignored.
    """

    crs: CRS

    @cached_property
    def is_plane(self) -> bool:
        """Return whether the CRS (engineering, local) is not tied to a body."""
        return self.crs.geodetic_crs is None

    @cached_property
    def is_earth(self) -> bool:
        """Return whether the CRS is on the Earth."""
        body = self.crs.ellipsoid
        return (
            not self.is_plane
            and body is not None
            and abs(body.semi_major_metre / _EARTH_RADIUS - 1) < _ALIKE
        )

    @cached_property
    def geod(self) -> Geod:
        """Return the ellipsoid for distances and areas."""
        if self.is_earth:
            return WGS84
        body = self.crs.ellipsoid
        assert body is not None
        return Geod(a=body.semi_major_metre, b=body.semi_minor_metre)

    @cached_property
    def unit(self) -> float | None:
        """Return metres per unit of a plane's axes; None if they are not lengths."""
        factors = {axis.unit_conversion_factor for axis in self.crs.axis_info[:2]}
        angles = any("degree" in axis.unit_name or "rad" in axis.unit_name
                     for axis in self.crs.axis_info[:2])  # fmt: skip
        if len(factors) != 1 or angles:
            return None
        factor = factors.pop()
        return float(factor) if factor > 0 else None

    @cached_property
    def _to_degrees(self) -> Transformer:
        other = "EPSG:4326" if self.is_earth else self.crs.geodetic_crs
        return Transformer.from_crs(self.crs, other, always_xy=True)

    def degrees(self, points: Points) -> Points:
        """Return longitude and latitude, float64 (N, 2): WGS 84 on the Earth; not for a plane."""
        return np.column_stack(self._to_degrees.transform(points[:, 0], points[:, 1]))

    def from_degrees(self, degrees: Points) -> Points:
        """Return coordinates of the CRS, float64 (N, 2)."""
        back = self._to_degrees.transform(degrees[:, 0], degrees[:, 1], direction="INVERSE")
        return np.column_stack(back)

    def around(self, middle: Points) -> Proj:
        """Return an equidistant projection in metres around a point (longitude, latitude)."""
        return Proj(
            proj="aeqd", lon_0=middle[0], lat_0=middle[1], a=self.geod.a, b=self.geod.b, units="m"
        )

    def areas(self, geometries: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
        """Return areas on the ellipsoid in m², float64 (N,)."""
        if self.is_plane:
            return np.asarray(shapely.area(geometries), float) * (self.unit or 1.0) ** 2
        degrees = shapely.transform(geometries, self.degrees)
        return np.array(
            [abs(self.geod.geometry_area_perimeter(g)[0]) if not g.is_empty else 0 for g in degrees]
        )


def surface(crs: Any) -> Surface:
    """Return the surface of a CRS of pyproj or rasterio.

    Raises:
        InputError: PROJ does not know the CRS.
    """
    return _surface(crs.to_wkt())


@lru_cache(maxsize=64)
def _surface(wkt: str) -> Surface:
    try:
        return Surface(CRS.from_wkt(wkt).to_2d())
    except (CRSError, ProjError) as error:
        raise InputError(f"PROJ does not know the CRS {wkt[:60]!r}…") from error


def pixel_ground(
    crs: Any, transform: Affine, size: tuple[int, int], name: str
) -> tuple[float, float] | None:
    """Return the ground size of a raster's middle pixel, without the projection's distortion.

    Args:
        crs: The raster's CRS.
        transform: Pixel corners to its coordinates.
        size: (H, W) in pixels.
        name: The file, for the message.

    Returns:
        Metres (down, across); None if the CRS is a plane whose units are not lengths.

    Raises:
        InputError: The middle is outside of the CRS.
    """
    column, row = size[1] / 2, size[0] / 2
    at = np.array([transform @ p for p in ((column, row), (column, row + 1), (column + 1, row))])
    on = surface(crs)
    if on.is_plane:
        if on.unit is None:
            return None
        steps = np.hypot(*(at[1:] - at[0]).T) * on.unit
        return float(steps[0]), float(steps[1])
    try:
        corners = on.degrees(at)
    except ProjError as error:
        raise InputError(f"{name}: PROJ cannot use its CRS ({format_crs(crs)})") from error
    if not np.isfinite(corners).all():
        raise InputError(f"{name}: its middle lies nowhere on Earth in its CRS; is the CRS right?")
    down, across = (on.geod.inv(*corners[0], *other)[2] for other in corners[1:])
    return float(down), float(across)


def transformer(source: Any, target: Any, what: str) -> Transformer:
    """Return a transformer between two CRSs, x before y.

    Raises:
        InputError: One CRS is a plane of its own, or they are on different bodies.
    """
    try:
        return Transformer.from_crs(source.to_wkt(), target.to_wkt(), always_xy=True)
    except ProjError as error:
        raise InputError(
            f"{what}: {format_crs(source)} cannot be converted to {format_crs(target)}; where the "
            f"coordinates are the image's own, say so with --set label_crs=image"
        ) from error


def format_crs(crs: Any) -> str:
    """Return a short name of a CRS: its EPSG code, else its own name."""
    if crs is None:
        return "no CRS"
    try:
        code = rasterio.crs.CRS.from_user_input(crs).to_epsg()
    except rasterio.errors.CRSError:
        code = None
    if code:
        return f"EPSG:{code}"
    try:
        own = CRS.from_wkt(crs.to_wkt())
    except (CRSError, ProjError):
        return "a CRS of its own"
    return f"{own.type_name} {own.name!r}"
