"""Handlers of the case evaluator: load the decoder, measure, write predictions, show progress."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from samonai.domains.base import ChoosesEnding, Domain, Exporter, LabelFacts
from samonai.errors import InputError
from samonai.files import all_or_none
from samonai.inference.calibration import CalibrationMetrics
from samonai.inference.cases import CaseItem
from samonai.inference.claims import Claims
from samonai.inference.inferer import Automatic, SourceInferer, box_scores
from samonai.inference.measures import Measure, VolumeMeasure
from samonai.sam.decoder_file import load_decoder
from samonai.sam.network import SamNetwork
from samonai.training.metrics import Row
from samonai.training.processes import gather_rows, is_main_process
from samonai.training.progress import EngineProgress
from samonai.training.summary import summarise_members, write_metrics

logger = logging.getLogger(__name__)


class DecoderCheckpointLoader:
    """Loads a fine-tuned decoder before the first case.

    MONAI's federated client leaves out every handler with "CheckpointLoader" in its name, because
    it brings the weights itself.

    Args:
        network: Takes the decoder; must have the encoder it was trained on.
        path: The decoder file.
    """

    def __init__(self, network: SamNetwork, path: Path | str) -> None:
        """Keep the network and the path."""
        self.network, self.path = network, path

    def attach(self, engine: Engine) -> None:
        """Listen to the evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load."""
        load_decoder(getattr(self.network, "module", self.network), self.path)


class CaseMetrics:
    """Measures every case beside the two baselines, and writes `metrics.json` and `metrics.csv`.

    The baselines get the same prompts: the model before fine-tuning, and the filled box where
    there are boxes.

    Args:
        folder: Where the files go.
        inferer: The evaluator's inferer, for the baselines.
        classes: Label value to name; values of the labels that it lacks get a name by number.
        zero_shot: The network before fine-tuning; None leaves that baseline out.
        extra: What else `metrics.json` says, such as which prompts were used.
        surface_tolerance_mm: Tolerance of the surface Dice.
        calibration: What counted probabilities while the cases were predicted.
        network: The first network of an ensemble; its members are then measured one by one too.
        measure: What is measured; None: volumes, with that tolerance.

    Attributes:
        predictions: The last case's label map by method.
        document: What `metrics.json` holds, once it is written.
    """

    def __init__(
        self,
        folder: Path | str,
        inferer: SourceInferer,
        classes: Mapping[int, str],
        zero_shot: SamNetwork | None = None,
        extra: Mapping[str, Any] | None = None,
        surface_tolerance_mm: float = 1.0,
        calibration: CalibrationMetrics | None = None,
        network: SamNetwork | None = None,
        measure: Measure | None = None,
    ) -> None:
        """Start with no case measured."""
        self.folder = Path(folder)
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
        self.predictions: dict[str, Any] = {}
        self.document: dict[str, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Listen to the evaluator."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.case_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def started(self, engine: Engine) -> None:
        """Forget the cases of an earlier run."""
        self.rows, self.member_rows = [], []

    def case_completed(self, engine: Engine) -> None:
        """Measure the case that was just predicted.

        Raises:
            InputError: The case has no label.
        """
        item: CaseItem = engine.state.batch
        label = item.source.label
        if label is None:
            raise InputError(f"case {item.case.case_id} has no label to measure against")
        classes = self.classes_of(label)
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

    def _alone(self, item: CaseItem, network: SamNetwork) -> Any:
        return self.inferer(item.source, network, item.prompts, alone=True)

    def _measure(
        self, item: CaseItem, prediction: Any, classes: Mapping[int, str], method: str = "finetuned"
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
        """Return the classes to measure: the known ones, and what else is in a label."""
        return self.classes | {
            int(v): f"class_{v}" for v in np.unique(label) if v and int(v) not in self.classes
        }

    def completed(self, engine: Engine) -> None:
        """Write the files."""
        rows, member_rows = gather_rows(self.rows), gather_rows(self.member_rows)
        calibration = None if self.calibration is None else self.calibration.document()
        # Every process takes part: each knows the objects of its own cases only.
        facts = self.measure.facts(rows)
        if is_main_process():
            extra = {**self.extra, **facts}
            if calibration is not None:
                extra["calibration"] = calibration
            if self.members:
                extra |= summarise_members(member_rows, self.measure.names)
            self.document = write_metrics(self.folder, rows, extra, self.measure.names)
            engine.state.metrics["dice"] = self.document["summary"]["dice"]["finetuned"]
            logger.info("wrote %s", self.folder / "metrics.json")


def _has_boxes(prompts: Any) -> bool:
    """Say whether a box baseline makes sense: not for clicks alone; for no prompts it is empty."""
    return not prompts or any(np.isfinite(frame.boxes).any() for frame in prompts.values())


class LabelWriter:
    """Writes every predicted label map onto its source's own grid.

    Args:
        folder: Where the files go, named after their cases.
        domain: Writes them.
        ending: File ending such as ".nii.gz" or ".mha"; empty: the input's own.
        formats: Formats by name instead, several if need be, of those that the domain writes.
        measure: Write measurements beside each prediction.
        facts: Names of the classes and what made the label maps, for formats that say so.

    Raises:
        InputError: The domain does not write the formats or the ending, or both are given.
    """

    def __init__(
        self,
        folder: Path | str,
        domain: Domain,
        ending: str = "",
        formats: Sequence[str] = (),
        measure: bool = False,
        facts: LabelFacts | None = None,
    ) -> None:
        """Keep where and how to write."""
        self.folder, self.domain, self.ending = Path(folder), domain, ending
        self.formats, self.measure, self.facts = tuple(formats), measure, facts
        self.written: list[Path] = []
        self.claims = Claims(self.folder)
        _check_ending(domain, ending)
        _check_formats(domain, ending, self.formats, measure)

    def attach(self, engine: Engine) -> None:
        """Listen to the evaluator."""
        engine.add_event_handler(Events.ITERATION_STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def started(self, engine: Engine) -> None:
        """Make sure that nothing of another source is overwritten, before anything is computed.

        Raises:
            InputError: Files of the case's name are there and not of its source.
        """
        self.claims.claim(engine.state.batch.case)

    def __call__(self, engine: Engine) -> None:
        """Write the label map that was just predicted."""
        item: CaseItem = engine.state.batch
        label = engine.state.output[CommonKeys.PRED]
        written = self.write(item.case.case_id, item.source, label)
        self.written += written
        for path in written:
            logger.info("wrote %s", path)

    def write(self, case_id: str, source: Any, label: npt.NDArray[np.integer]) -> list[Path]:
        """Write one label map in every way asked for and return the files."""
        stem = self.folder / case_id
        with all_or_none(self.folder, case_id):
            if isinstance(self.domain, Exporter) and not self.ending:
                return self.domain.export(
                    source, label, stem, self.formats, measure=self.measure, facts=self.facts
                )
            return [self.domain.write(source, label, stem.with_name(case_id + self.ending))]


def _check_ending(domain: Domain, ending: str) -> None:
    if not ending:
        return
    if not isinstance(domain, ChoosesEnding):
        raise InputError(f"ending {ending}: the {domain.name} domain has one only; leave it out")
    if ending not in domain.endings:
        raise InputError(f"ending {ending!r} is not known; use {', '.join(domain.endings)}")


def _check_formats(domain: Domain, ending: str, formats: Sequence[str], measure: bool) -> None:
    if not formats and not measure:
        return
    if not isinstance(domain, Exporter):
        raise InputError(f"the {domain.name} domain writes label maps only: no formats, no measure")
    if measure and domain.unmeasured:
        raise InputError(domain.unmeasured)
    if ending:
        raise InputError(f"ending {ending} beside formats or measure; give formats alone")
    for name in formats:
        if name not in domain.formats:
            raise InputError(f"format {name!r} is not known; use {', '.join(domain.formats)}")


class CaseProgress(EngineProgress):
    """A progress bar over cases.

    Args:
        title: What is done to them.
        total: Number of cases.
        console: Where to show it; standard error by default.
    """

    def __init__(self, title: str, total: int, console: Console | None = None) -> None:
        """Keep what is shown."""
        super().__init__(console)
        self.title, self.total = title, total

    def started(self, engine: Engine) -> None:
        """Show the bar."""
        title = TextColumn(self.title)
        self.show(title, BarColumn(), MofNCompleteColumn(), TextColumn("cases"), total=self.total)

    def iteration_completed(self, engine: Engine) -> None:
        """Move the bar."""
        self.update(advance=1)
