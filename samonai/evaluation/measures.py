"""Measures of an evaluated case: volumes in mm, or maps of objects."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from samonai.core.errors import InputError
from samonai.core.settings import check_given
from samonai.domains.base import Domain, SourceT, metric_spacing
from samonai.domains.capabilities import capabilities
from samonai.engine.processes import gather
from samonai.metrics import objects as object_metrics
from samonai.metrics import volumes as metrics
from samonai.metrics.average_precision import (
    DetectedObject,
    average_precision,
    detected_objects,
)
from samonai.metrics.volumes import Row
from samonai.settings.inference import EvaluationSettings


class Measure(Protocol):
    """A measure of predictions, whose rows `CaseMetrics` collects."""

    names: tuple[str, ...]
    """Names of the averaged metrics."""

    def rows(
        self,
        domain: Domain[SourceT],
        source: SourceT,
        prediction: Any,
        *,
        classes: Mapping[int, str],
        case_id: str,
        method: str,
    ) -> list[Row]:
        """Measure one case's prediction against its reference, class by class."""
        ...

    def facts(self, rows: Iterable[Row]) -> dict[str, Any]:
        """Return the entries of `metrics.json` besides the rows of all processes and their means.

        All processes of an evaluation must call it together.
        """
        ...


@dataclass(frozen=True)
class VolumeMeasure:
    """Dice, surface Dice, HD95 and volume; see `metrics.volumes`.

    Attributes:
        surface_tolerance_mm: Tolerance of the surface Dice.
    """

    surface_tolerance_mm: float = 1.0
    names: tuple[str, ...] = metrics.METRICS

    def __post_init__(self) -> None:
        """Check the tolerance."""
        check_given(EvaluationSettings, vars(self))

    def rows(
        self,
        domain: Domain[SourceT],
        source: SourceT,
        prediction: Any,
        *,
        classes: Mapping[int, str],
        case_id: str,
        method: str,
    ) -> list[Row]:
        """Measure one label map of a labelled source."""
        assert source.label is not None
        return metrics.case_rows(
            prediction,
            source.label,
            spacing=metric_spacing(source),
            classes=classes,
            case_id=case_id,
            method=method,
            surface_tolerance_mm=self.surface_tolerance_mm,
            known=getattr(source, "known", None),
        )

    def facts(self, rows: Iterable[Row]) -> dict[str, Any]:
        """Return the tolerance."""
        return {"surface_tolerance_mm": self.surface_tolerance_mm}


@dataclass(frozen=True)
class ObjectMeasure:
    """Pixels, outlines and objects; see `metrics.objects`.

    Attributes:
        boundary_tolerance: Largest distance of matching outlines, in the unit of the
            source's spacing (metres of a raster, pixels where it has no CRS).
    """

    boundary_tolerance: float = 1.0
    names: tuple[str, ...] = object_metrics.METRICS

    def __post_init__(self) -> None:
        """Check the tolerance."""
        check_given(EvaluationSettings, vars(self))

    def rows(
        self,
        domain: Domain[SourceT],
        source: SourceT,
        prediction: Any,
        *,
        classes: Mapping[int, str],
        case_id: str,
        method: str,
    ) -> list[Row]:
        """Measure one map of objects.

        Raises:
            InputError: The domain has no objects.
        """
        objects = capabilities(domain).object_maps
        if objects is None:
            raise InputError(f"the {domain.name} domain has classes only, and no objects")
        return object_metrics.object_rows(
            objects.maps(source, prediction),
            objects.maps(source),
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


class DetectionMeasure:
    """`ObjectMeasure` with COCO's mean average precision; see `average_precision`.

    Args:
        boundary_tolerance: See `ObjectMeasure`.
    """

    names: tuple[str, ...] = object_metrics.METRICS

    def __init__(self, boundary_tolerance: float = 1.0) -> None:
        """Start without objects."""
        self._objects = ObjectMeasure(boundary_tolerance)
        self._classes: dict[int, str] = {}
        self._found: dict[tuple[str, str], list[DetectedObject]] = {}
        self._reference: dict[str, list[DetectedObject]] = {}

    def rows(
        self,
        domain: Domain[SourceT],
        source: SourceT,
        prediction: Any,
        *,
        classes: Mapping[int, str],
        case_id: str,
        method: str,
    ) -> list[Row]:
        """Measure one map of objects, and keep its objects."""
        asked: dict[str, Any] = {"classes": classes, "case_id": case_id, "method": method}
        measured = self._objects.rows(domain, source, prediction, **asked)
        objects = capabilities(domain).object_maps
        assert objects is not None
        self._classes.update(classes)
        reference = objects.maps(source)
        if case_id not in self._reference:
            found = detected_objects(reference, classes, case_id, reference.known)
            self._reference[case_id] = found
        # The ensemble's prediction comes first; those of its members are measured under its name
        # too.
        if (method, case_id) not in self._found:
            found = detected_objects(
                objects.maps(source, prediction), classes, case_id, reference.known
            )
            self._found[method, case_id] = found
        return measured

    def facts(self, rows: Iterable[Row]) -> dict[str, Any]:
        """Return also `average_precision` by method, over the cases of all processes.

        The stored objects are cleared.
        """
        facts = self._objects.facts(rows)
        # Equal scores rank in input order: by case, on any process.
        reference = dict(sorted(gather(list(self._reference.items()))))
        found = dict(sorted(gather(list(self._found.items()))))
        classes = dict(sorted(gather(list(self._classes.items()))))
        truth = [one for objects in reference.values() for one in objects]
        by_method: dict[str, list[DetectedObject]] = {}
        for (method, _), objects in found.items():
            by_method.setdefault(method, []).extend(objects)
        facts["average_precision"] = {
            method: average_precision(objects, truth, classes)
            for method, objects in by_method.items()
        }
        self._found, self._reference = {}, {}
        return facts
