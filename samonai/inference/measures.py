"""What an evaluation measures of a case: volumes in mm, or maps of objects."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from samonai.domains.base import Domain, ObjectMaps
from samonai.errors import InputError
from samonai.training import metrics, object_metrics
from samonai.training.metrics import Row


class Measure(Protocol):
    """Measures predictions; `CaseMetrics` collects what it says."""

    names: tuple[str, ...]
    """The metrics that are averaged."""

    def rows(
        self,
        domain: Domain,
        source: Any,
        prediction: Any,
        *,
        classes: Mapping[int, str],
        case_id: str,
        method: str,
    ) -> list[Row]:
        """Measure one case's prediction against its reference, class by class."""
        ...

    def facts(self, rows: Iterable[Row]) -> dict[str, Any]:
        """Return what `metrics.json` says besides the rows and their means."""
        ...


@dataclass(frozen=True)
class VolumeMeasure:
    """Dice, surface Dice, HD95 and volume; see `training.metrics`.

    Attributes:
        surface_tolerance_mm: Tolerance of the surface Dice.
    """

    surface_tolerance_mm: float = 1.0
    names: tuple[str, ...] = metrics.METRICS

    def rows(
        self,
        domain: Domain,
        source: Any,
        prediction: Any,
        *,
        classes: Mapping[int, str],
        case_id: str,
        method: str,
    ) -> list[Row]:
        """Measure one label map."""
        return metrics.case_rows(
            prediction,
            source.label,
            spacing=source.spacing,
            classes=classes,
            case_id=case_id,
            method=method,
            surface_tolerance_mm=self.surface_tolerance_mm,
        )

    def facts(self, rows: Iterable[Row]) -> dict[str, Any]:
        """Return the tolerance."""
        return {"surface_tolerance_mm": self.surface_tolerance_mm}


@dataclass(frozen=True)
class ObjectMeasure:
    """Pixels, outlines and objects; see `training.object_metrics`.

    Attributes:
        boundary_tolerance: How far outlines may lie apart and still agree, in the unit of the
            source's spacing (metres of a raster, pixels where it has no CRS).
    """

    boundary_tolerance: float = 1.0
    names: tuple[str, ...] = object_metrics.METRICS

    def rows(
        self,
        domain: Domain,
        source: Any,
        prediction: Any,
        *,
        classes: Mapping[int, str],
        case_id: str,
        method: str,
    ) -> list[Row]:
        """Measure one map of objects.

        Raises:
            InputError: The domain knows no objects.
        """
        if not isinstance(domain, ObjectMaps):
            raise InputError(f"the {domain.name} domain knows classes only, and no objects")
        return object_metrics.object_rows(
            domain.maps(source, prediction),
            domain.maps(source),
            spacing=source.spacing,
            classes=classes,
            case_id=case_id,
            method=method,
            boundary_tolerance=self.boundary_tolerance,
        )

    def facts(self, rows: Iterable[Row]) -> dict[str, Any]:
        """Return the tolerance, and the objects of all cases pooled."""
        return {
            "boundary_tolerance": self.boundary_tolerance,
            "pooled_instances": object_metrics.pooled_instances(rows),
        }
