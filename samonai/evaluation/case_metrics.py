"""Metrics of each predicted case beside two baselines, as `metrics.json` and `metrics.csv`."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic

import numpy as np
import numpy.typing as npt
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from samonai.core.errors import InputError
from samonai.core.settings import renamed_parameters
from samonai.domains.base import SourceT
from samonai.engine.processes import gather, gather_rows, is_main_process
from samonai.evaluation.baselines import box_scores
from samonai.evaluation.calibration_metrics import CalibrationMetrics
from samonai.evaluation.measures import Measure, VolumeMeasure
from samonai.inference.case_dataset import CaseItem
from samonai.inference.inferer import Automatic, SourceInferer
from samonai.metrics.summary import summarise_members, write_metrics
from samonai.metrics.volumes import Row
from samonai.sam.network import SamNetwork

logger = logging.getLogger(__name__)


@renamed_parameters(folder="evaluation_dir")
class CaseMetrics(Generic[SourceT]):
    """Handler that measures every case beside the baselines; writes `metrics.json`, `metrics.csv`.

    The baselines get the same prompts: the model before fine-tuning, and the filled box where
    there are boxes.

    Args:
        evaluation_dir: Folder of the files.
        inferer: The evaluator's inferer, for the baselines.
        classes: Label value to name; values of the labels that it lacks get a name by number.
        zero_shot: The network before fine-tuning; None leaves that baseline out.
        extra: Further entries of `metrics.json`, such as the kind of prompts.
        surface_tolerance_mm: Tolerance of the surface Dice.
        calibration: The handler that counted probabilities while the cases were predicted.
        network: The first network of an ensemble; its members are then measured one by one too.
        measure: The measure; None: volumes, with that tolerance.

    Attributes:
        predictions: The last case's label map by method.
        document: Content of `metrics.json`, once it is written.
    """

    def __init__(
        self,
        evaluation_dir: Path | str,
        inferer: SourceInferer[SourceT],
        classes: Mapping[int, str],
        zero_shot: SamNetwork | None = None,
        extra: Mapping[str, Any] | None = None,
        surface_tolerance_mm: float = 1.0,
        calibration: CalibrationMetrics | None = None,
        network: SamNetwork | None = None,
        measure: Measure | None = None,
    ) -> None:
        """Start without cases."""
        self.folder = Path(evaluation_dir)
        self.inferer = inferer
        self.classes = {int(value): name for value, name in classes.items()}
        self.zero_shot = zero_shot
        self.extra = dict(extra or {})
        self.surface_tolerance_mm = surface_tolerance_mm
        self.calibration = calibration
        self.members: dict[str, SamNetwork] = {}
        if network is not None and calibration is not None and inferer.members:
            networks = [network, *inferer.members]
            self.members = dict(zip(calibration.names, networks, strict=True))
        self.measure = measure or VolumeMeasure(surface_tolerance_mm)
        self.rows: list[Row] = []
        self.member_rows: list[Row] = []
        self.patients: dict[str, str] = {}
        self.predictions: dict[str, Any] = {}
        self.document: dict[str, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.case_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def started(self, engine: Engine) -> None:
        """Clear the cases of an earlier run."""
        self.rows, self.member_rows = [], []

    def case_completed(self, engine: Engine) -> None:
        """Measure the predicted case.

        Raises:
            InputError: The case has no label.
        """
        item: CaseItem[SourceT] = engine.state.batch
        label = item.source.label
        if label is None:
            raise InputError(f"case {item.case.case_id} has no label to measure against")
        classes = self.classes_of(label)
        self.patients[item.case.case_id] = item.case.group or item.case.case_id
        predictions = {"finetuned": engine.state.output[CommonKeys.PRED]}
        if self.zero_shot is not None:
            predictions["zero_shot"] = self._alone(item, self.zero_shot)
        if not isinstance(item.prompts, Automatic) and _has_boxes(item.prompts):
            predictions["box"] = self.inferer.merge(item.source, item.prompts, box_scores)
        self.predictions = predictions
        for method, prediction in predictions.items():
            self.rows += self._measure(item, prediction, classes, method)
        for name, network in self.members.items():
            rows = self._measure(item, self._alone(item, network), classes)
            self.member_rows += [{**row, "member": name} for row in rows]

    def _alone(self, item: CaseItem[SourceT], network: SamNetwork) -> Any:
        return self.inferer(item.source, network, item.prompts, alone=True)

    def _measure(
        self,
        item: CaseItem[SourceT],
        prediction: Any,
        classes: Mapping[int, str],
        method: str = "finetuned",
    ) -> list[Row]:
        return self.measure.rows(
            self.inferer.domain,
            item.source,
            prediction,
            classes=classes,
            case_id=item.case.case_id,
            method=method,
        )

    def classes_of(self, label: npt.NDArray[np.integer]) -> dict[int, str]:
        """Return the classes to measure: the known ones, and any others in a label."""
        return self.classes | {
            int(v): f"class_{v}" for v in np.unique(label) if v and int(v) not in self.classes
        }

    def completed(self, engine: Engine) -> None:
        """Write the files."""
        rows, member_rows = gather_rows(self.rows), gather_rows(self.member_rows)
        patients = dict(gather(list(self.patients.items())))
        calibration = None if self.calibration is None else self.calibration.document()
        # Every process takes part: each holds the objects of its own cases only.
        facts = self.measure.facts(rows)
        if is_main_process():
            extra = {**self.extra, **facts}
            if calibration is not None:
                extra["calibration"] = calibration
            if self.members:
                extra |= summarise_members(member_rows, self.measure.names)
            alone = [{**row, "method": f"member {row['member']}"} for row in member_rows]
            self.document = write_metrics(
                self.folder, rows, extra, self.measure.names, patients, alone
            )
            engine.state.metrics["dice"] = self.document["summary"]["dice"]["finetuned"]
            logger.info("wrote %s", self.folder / "metrics.json")


def _has_boxes(prompts: Any) -> bool:
    """Return whether there is a box baseline: not for clicks alone; without prompts it is empty."""
    return not prompts or any(np.isfinite(frame.boxes).any() for frame in prompts.values())
