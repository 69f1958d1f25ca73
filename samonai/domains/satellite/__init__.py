"""Satellite and aerial rasters: read and cut into tiles, predicted without seams, written back."""

from samonai.core.errors import InputError

try:
    import geopandas  # noqa: F401
    import pyogrio  # noqa: F401
    import rasterio  # noqa: F401
    import shapely  # noqa: F401
except ImportError as error:
    raise InputError(
        f"rasters need {error.name}, which is not installed: pip install 'samonai[satellite]'"
    ) from error

from samonai.domains.satellite.domain import SatelliteDomain
from samonai.domains.satellite.raster import Raster

__all__ = ["Raster", "SatelliteDomain"]
