"""Click simulation on labelled cases, at native resolution: Dice by number of clicks.

The first click on an object is its interior centre; every further one falls into the largest part
of the error region of the current prediction, at the pixel farthest from that part's border
(`samonai.prompts.clicks`, rule "largest"). The logits of the last round are fed back as mask
prompt. An object without an error gets no further click and keeps its mask.
"""

import csv
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine, Events

from samonai.core.csv_cells import csv_row
from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.frame import Frame
from samonai.core.geometry import FrameGeometry
from samonai.core.settings import renamed_parameters
from samonai.domains.base import SourceT, metric_spacing
from samonai.embeddings.targets import object_map
from samonai.engine.processes import gather_rows, is_main_process
from samonai.evaluation.case_metrics import CaseMetrics
from samonai.inference.case_dataset import CaseItem
from samonai.inference.inferer import SourceInferer
from samonai.inference.tta import refuse_augmentation
from samonai.metrics.summary import summarise
from samonai.metrics.volumes import Row, case_rows
from samonai.prompts.clicks import corrective_clicks
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.types import Prompts
from samonai.sam.network import SamNetwork

logger = logging.getLogger(__name__)

CLICKS_FILE = "clicks.csv"


def parse_counts(counts: str) -> tuple[int, ...]:
    """Read numbers of clicks such as "1,3,5,9", ascending.

    Raises:
        InputError: The text is not a list of whole numbers from 1.
    """
    parts = [part.strip() for part in counts.split(",")]
    if not all(part.isdecimal() and 0 < int(part) < 1000 for part in parts):
        raise InputError(f"clicks={counts!r}: expected numbers of clicks such as 1,3,5,9")
    return tuple(sorted({int(part) for part in parts}))


@renamed_parameters(counts="clicks")
class ClickSimulation(Generic[SourceT]):
    """Simulated clicks on every object of a labelled source, with the label map after some counts.

    Args:
        inferer: Embeds and decodes.
        clicks: Numbers of clicks after which a label map is returned, ascending; or as text.
        min_area: Objects of fewer pixels are not clicked on.
        components: Division of a scattered label into objects, see `embeddings.targets`.
    """

    def __init__(
        self,
        inferer: SourceInferer[SourceT],
        clicks: tuple[int, ...] | str,
        min_area: int = 1,
        components: str = "each",
    ) -> None:
        """Keep the regime."""
        self.inferer = inferer
        self.counts = parse_counts(clicks) if isinstance(clicks, str) else clicks
        self.min_area, self.components = min_area, components

    def __call__(self, source: SourceT, network: SamNetwork) -> dict[int, Any]:
        """Return the label map after each of `counts` clicks per object.

        Args:
            source: The source, with its label.
            network: Decodes the clicks.

        Raises:
            InputError: The inferer uses test-time augmentation, which has no single prediction to
                correct.
        """
        refuse_augmentation(self.inferer.orientations, "clicks that follow an answer")
        domain = self.inferer.domain
        mergers = {count: domain.merger(source) for count in self.counts}
        for index in range(domain.frame_count(source)):
            frame = domain.frame(source, index)
            if frame.label is None or not frame.label.any():
                continue
            numbers, classes, instances = object_map(frame, self.min_area, self.components)
            if not len(classes):
                continue
            nowhere = np.full((len(classes), 4), np.nan, np.float32)
            asked = FramePrompts(nowhere, classes, instances)
            embedding = self.inferer.embed(source, frame, network)
            for count, scores in self._scores(network, embedding, frame, numbers, len(classes)):
                mergers[count].add(frame, scores, asked)
        return {count: merger.finish() for count, merger in mergers.items()}

    def _scores(
        self,
        network: SamNetwork,
        embedding: torch.Tensor,
        frame: Frame,
        numbers: npt.NDArray[np.int32],
        objects: int,
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield the (N, H, W) scores of a frame's objects after each of the counts."""
        parts = [
            self._click(
                network,
                embedding,
                frame,
                torch.from_numpy(numbers[None] == chosen[:, None, None].numpy()),
            )
            for chosen in torch.arange(1, objects + 1).split(self.inferer.prompts_at_once)
        ]
        for position, count in enumerate(self.counts):
            yield count, torch.cat([part[position] for part in parts]).numpy()

    @torch.no_grad()
    def _click(
        self, network: SamNetwork, embedding: torch.Tensor, frame: Frame, masks: torch.Tensor
    ) -> list[torch.Tensor]:
        """Simulate clicks on a few objects: float32 (n, H, W) scores after each of the counts."""
        geometry = FrameGeometry(frame.size, network.long_side)
        valid = torch.ones_like(masks)
        if frame.valid is not None:
            valid &= torch.from_numpy(frame.valid)
        prompts = Prompts(torch.zeros(len(masks), dtype=torch.int64))
        logits = scores = torch.zeros(())
        kept = []
        for number in range(1, self.counts[-1] + 1):
            predicted = scores > 0 if number > 1 else torch.zeros_like(masks)
            clicks = corrective_clicks(predicted, masks, valid, rule="largest")
            points = torch.from_numpy(geometry.points_to_model(clicks.points.numpy()))
            prompts = prompts.add_points(points, clicks.labels)
            if number > 1:
                prompts = prompts.feed_back(logits)
            answer = network.decode_single(embedding[None], prompts).low_res_logits.float().cpu()
            clicked = (clicks.labels >= 0)[:, None, None, None]
            logits = torch.where(clicked, answer, logits) if number > 1 else answer
            scores = geometry.logits_to_frame(logits)[:, 0]
            if number in self.counts:
                kept.append(scores)
        return kept


class ClickMetrics(Generic[SourceT]):
    """Metrics of label maps by number of clicks, after fine-tuning and before.

    Attach it before the `CaseMetrics` whose networks, classes and document it shares: that
    document gets `clicks`, for each number of clicks the means like `summary` and `per_class`;
    `clicks.csv` gets a row for every case, class, number and method.

    Args:
        case_metrics: Measures the same cases.
        simulation: The click simulation.
    """

    def __init__(
        self, case_metrics: CaseMetrics[SourceT], simulation: ClickSimulation[SourceT]
    ) -> None:
        """Start without cases."""
        self.case_metrics, self.simulation = case_metrics, simulation
        self.rows: list[Row] = []

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.case_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def started(self, engine: Engine) -> None:
        """Clear the cases of an earlier run."""
        self.rows = []

    def case_completed(self, engine: Engine) -> None:
        """Simulate clicks on a case with each network, and measure."""
        item: CaseItem[SourceT] = engine.state.batch
        finetuned = getattr(engine.network, "module", engine.network)
        networks = {"finetuned": finetuned, "zero_shot": self.case_metrics.zero_shot}
        for method, network in networks.items():
            if network is None or item.source.label is None:
                continue
            for count, prediction in self.simulation(item.source, network).items():
                rows = case_rows(
                    prediction,
                    item.source.label,
                    spacing=metric_spacing(item.source),
                    classes=self.case_metrics.classes_of(item.source.label),
                    case_id=item.case.case_id,
                    method=method,
                    surface_tolerance_mm=self.case_metrics.surface_tolerance_mm,
                    known=getattr(item.source, "known", None),
                )
                self.rows += [{"clicks": count, **row} for row in rows]

    def completed(self, engine: Engine) -> None:
        """Add the means to the document, and write the rows."""
        rows = gather_rows(self.rows)
        if is_main_process():
            self.case_metrics.extra["clicks"] = click_table(rows, self.simulation.counts)
            write_rows(rows, self.case_metrics.folder / CLICKS_FILE)


def click_table(rows: list[Row], counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return for each number of clicks the means over cases and classes, and per class."""
    table = []
    for count in counts:
        means = summarise(row for row in rows if row["clicks"] == count)
        table.append({"clicks": count, **{k: means[k] for k in ("summary", "per_class")}})
    return table


def write_rows(rows: list[Row], path: Path) -> None:
    """Write rows of one kind as CSV."""
    with (
        write_atomically(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["clicks"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(csv_row, rows))
    logger.info("wrote %s", path)
