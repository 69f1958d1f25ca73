"""Handlers of the case evaluator: load the decoder, write predictions, show progress."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from samonai.core.errors import InputError
from samonai.core.files import all_or_none
from samonai.domains.base import Domain, LabelFacts
from samonai.domains.capabilities import capabilities
from samonai.engine.progress import EngineProgress
from samonai.inference.cases import CaseItem
from samonai.inference.provenance import Claims
from samonai.sam.decoder_file import load_decoder
from samonai.sam.network import SamNetwork

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
        domain: Domain[Any],
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
            exporter = capabilities(self.domain).exporter
            if exporter is not None and not self.ending:
                return exporter.export(
                    source, label, stem, self.formats, measure=self.measure, facts=self.facts
                )
            return [self.domain.write(source, label, stem.with_name(case_id + self.ending))]


def _check_ending(domain: Domain[Any], ending: str) -> None:
    if not ending:
        return
    endings = capabilities(domain).endings
    if not endings:
        raise InputError(f"ending {ending}: the {domain.name} domain has one only; leave it out")
    if ending not in endings:
        raise InputError(f"ending {ending!r} is not known; use {', '.join(endings)}")


def _check_formats(domain: Domain[Any], ending: str, formats: Sequence[str], measure: bool) -> None:
    if not formats and not measure:
        return
    exporter = capabilities(domain).exporter
    if exporter is None:
        raise InputError(f"the {domain.name} domain writes label maps only: no formats, no measure")
    if measure and exporter.unmeasured:
        raise InputError(exporter.unmeasured)
    if ending:
        raise InputError(f"ending {ending} beside formats or measure; give formats alone")
    for name in formats:
        if name not in exporter.formats:
            raise InputError(f"format {name!r} is not known; use {', '.join(exporter.formats)}")


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
