"""HTML report of an evaluation, drawn while cases are measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic

import numpy as np
import numpy.typing as npt
from ignite.engine import Engine, Events

from samonai.core.settings import renamed_parameters
from samonai.domains.base import Domain, SourceT
from samonai.engine.processes import is_main_process
from samonai.evaluation.case_metrics import CaseMetrics
from samonai.inference.case_dataset import CaseItem
from samonai.metrics.statistics import worst_cases
from samonai.report.html import write_report
from samonai.report.overlays import informative_indices, overlay_png
from samonai.report.palette import METHOD_LABELS, METRIC_LABELS
from samonai.report.plots import dice_bars, reliability_diagram
from samonai.report.statistics import bland_altman_plot, metric_boxes, prompt_words
from samonai.report.tables import ensemble_lines

PICTURES = "pictures"


@renamed_parameters(folder="evaluation_dir")
class EvaluationReport(Generic[SourceT]):
    """Handler that draws the first and the worst cases, and finally the diagrams and the page.

    Attach it after the `CaseMetrics` whose predictions and metrics it shows.

    Args:
        evaluation_dir: Folder of `index.html`, `dice.png` and the pictures.
        domain: Cuts the frames to draw.
        metrics: The handler that measures.
        title: The page's heading.
        cases: Number of cases to draw.
        frames: Number of frames of each.
    """

    def __init__(
        self,
        evaluation_dir: Path | str,
        domain: Domain[SourceT],
        metrics: CaseMetrics[SourceT],
        title: str = "Evaluation",
        cases: int = 8,
        frames: int = 6,
    ) -> None:
        """Start without pictures."""
        self.folder, self.title = Path(evaluation_dir), title
        self.domain, self.metrics = domain, metrics
        self.cases, self.frames = cases, frames
        self.pictures: list[tuple[str, Path]] = []
        self._drawn: list[Path] = []
        self._worst: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator, on the main process only."""
        if is_main_process():
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.case_completed)
            engine.add_event_handler(Events.COMPLETED, self.completed)

    def case_completed(self, engine: Engine) -> None:
        """Draw the measured case, if it is among the first."""
        item: CaseItem[SourceT] = engine.state.batch
        path = self.folder / PICTURES / f"{item.case.case_id}.png"
        first = len(self.pictures) < self.cases
        if not (self._is_among_the_worst(item.case.case_id) or first):
            return
        rows = {
            label: self.metrics.predictions[method]
            for method, label in METHOD_LABELS.items()
            if method != "box" and method in self.metrics.predictions
        }
        draw_case(self.domain, item.source, rows, path, self.metrics.classes, self.frames)
        if first:
            self.pictures.append((item.case.case_id, path))
        self._keep(path)

    def _is_among_the_worst(self, case_id: str) -> bool:
        """Return whether a case is among the worst of those measured so far."""
        rows = [row for row in self.metrics.rows if row["method"] == "finetuned"]
        self._worst = [one["case"] for one in worst_cases(rows, self.metrics.measure.names[0])]
        return case_id in self._worst

    def _keep(self, drawn: Path) -> None:
        """Remove pictures of cases that are neither the first nor among the worst any more."""
        self._drawn.append(drawn)
        shown = {path for _, path in self.pictures}
        for path in list(self._drawn):
            if path not in shown and path.stem not in self._worst:
                path.unlink(missing_ok=True)
                self._drawn.remove(path)

    def _worst_pictures(self) -> list[tuple[str, Path]]:
        """Return caption and picture of the worst cases; those of other processes have none."""
        found = self.metrics.document.get("statistics", {}).get("worst", [])
        metric = self.metrics.measure.names[0]
        paths = {path.stem: path for path in self._drawn}
        return [
            (f"{one['case']}: {METRIC_LABELS.get(metric, metric)} {one[metric]:.3f}", path)
            for one in found
            if (path := paths.get(one["case"])) is not None
        ]

    def completed(self, engine: Engine) -> None:
        """Write the diagrams and the page."""
        document = self.metrics.document
        diagrams = [("Mean Dice by class", dice_bars(document, self.folder / "dice.png"))]
        for caption, drawn in (
            ("Dice of the cases by class", metric_boxes(document, self.folder / "boxes.png")),
            (
                "Bland-Altman: predicted minus reference volume",
                bland_altman_plot(document, self.folder / "bland_altman.png"),
            ),
        ):
            if drawn is not None:
                diagrams.append((caption, drawn))
        if document.get("calibration", {}).get("per_class"):
            curve = reliability_diagram(document["calibration"], self.folder / "reliability.png")
            diagrams.append(("Reliability of the probabilities", curve))
        facts: dict[str, Any] = {
            key: document[key] for key in ("model", "prompts") if key in document
        }
        if "prompts" in facts:
            facts["prompts came from"] = prompt_words(document["prompts"])
        for line in ensemble_lines(document):
            facts["calibration"] = line
        write_report(
            self.folder,
            title=self.title,
            metrics=document,
            pictures=[*diagrams, *self.pictures],
            facts=facts,
            worst=self._worst_pictures(),
        )


def draw_case(
    domain: Domain[SourceT],
    source: SourceT,
    predictions: Mapping[str, npt.NDArray[np.integer]],
    path: Path,
    class_names: Mapping[int, str] | None = None,
    frames: int = 6,
) -> Path:
    """Draw label maps of a source on some of its frames, one row each.

    Args:
        domain: Cuts the frames.
        source: The source, with its label when it has one.
        predictions: Name to label map on the source's grid.
        path: The PNG file to write.
        class_names: Label value to name.
        frames: Largest number of frames.
    """
    labelled = {name: domain.with_label(source, label) for name, label in predictions.items()}
    for guide in (source, *labelled.values()):
        # Only the labels of the whole source are kept; pictures of the chosen frames alone.
        labels = [domain.frame(guide, n).label for n in range(domain.frame_count(guide))]
        if any(label is not None and label.any() for label in labels):
            break
    chosen = informative_indices(labels, frames)
    shown = [domain.frame(source, index) for index in chosen]
    return overlay_png(
        [frame.image for frame in shown],
        [frame.label for frame in shown],
        {name: [_label(domain, own, index) for index in chosen] for name, own in labelled.items()},
        path,
        class_names=class_names,
        titles=[str(index) for index in chosen],
    )


def _label(domain: Domain[SourceT], source: SourceT, index: int) -> npt.NDArray[np.integer]:
    label = domain.frame(source, index).label
    assert label is not None
    return label
