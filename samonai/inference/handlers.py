"""Handlers of the case evaluator: load the decoder, write predictions, show progress."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic

from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from samonai.core.frame import Frame
from samonai.core.settings import renamed_parameters
from samonai.domains.base import Domain, LabelFacts, SourceT
from samonai.engine.progress import EngineProgress
from samonai.inference.case_dataset import CaseItem
from samonai.inference.frame_outputs import FrameOutput
from samonai.inference.uncertainty import SourceCertainty, value_maps, warn_of_no_uncertainty
from samonai.inference.writing import PredictionWriter
from samonai.prompts.frame_prompts import FramePrompts
from samonai.sam.decoder_file import load_decoder
from samonai.sam.network import SamNetwork


@renamed_parameters(path="decoder")
class DecoderCheckpointLoader:
    """Handler that loads a fine-tuned decoder before the first case.

    MONAI's federated client leaves out every handler with "CheckpointLoader" in its name, because
    it brings the weights itself.

    Args:
        network: The decoder is loaded into it; it must have the encoder of its training.
        decoder: The decoder file.
    """

    def __init__(self, network: SamNetwork, decoder: Path | str) -> None:
        """Keep the network and the path."""
        self.network, self.path = network, decoder

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load."""
        load_decoder(getattr(self.network, "module", self.network), self.path)


@renamed_parameters(folder="output_dir")
class LabelWriter(PredictionWriter[SourceT]):
    """Handler that writes each label map on its source's own grid; see `PredictionWriter`."""

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator."""
        engine.add_event_handler(Events.ITERATION_STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def started(self, engine: Engine) -> None:
        """Check that no file of another source is overwritten, before the prediction is computed.

        Raises:
            InputError: Files of the case's name exist and are not of its source.
        """
        self.ownership.register(engine.state.batch.case)

    def __call__(self, engine: Engine) -> None:
        """Write the predicted label map."""
        item: CaseItem[SourceT] = engine.state.batch
        label, facts = engine.state.output[CommonKeys.PRED], item.facts(self.facts or LabelFacts())
        self.write(item.case.case_id, item.source, label, facts=facts)


@renamed_parameters(folder="output_dir", enabled="uncertainty")
class CertaintyWriter(Generic[SourceT]):
    """Handler that writes each case's uncertainty map and confidences beside its label map.

    Args:
        output_dir: Folder of the files, named after their cases.
        domain: Writes the map.
        decoders: The decoders' files, for their names and temperatures.
        classes: Label value to name.
        ending: File ending of the map; empty: the input's own.
        uncertainty: Whether files are written.

    Raises:
        InputError: The domain cannot write maps.
    """

    def __init__(
        self,
        output_dir: Path | str,
        domain: Domain[SourceT],
        decoders: Sequence[Path | str],
        classes: Mapping[int, str],
        ending: str = "",
        uncertainty: bool = False,
    ) -> None:
        """Keep the folder and the domain."""
        if uncertainty:
            value_maps(domain)
        self.folder, self.domain, self.ending = Path(output_dir), domain, ending
        self.decoders, self.enabled = list(decoders), uncertainty
        self.classes = {int(value): name for value, name in classes.items()}
        self._seen: SourceCertainty[SourceT] | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator."""
        if not self.enabled:
            return
        engine.add_event_handler(Events.ITERATION_STARTED, self.case_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.case_completed)

    def observe(self, frame: Frame, prompts: FramePrompts, output: FrameOutput) -> None:
        """Collect one frame."""
        assert self._seen is not None
        self._seen.observe(frame, prompts, output)

    def case_started(self, engine: Engine) -> None:
        """Prepare for the next case."""
        self._seen = SourceCertainty(self.domain, engine.state.batch.source, self.decoders)

    def case_completed(self, engine: Engine) -> None:
        """Write the uncertainty of the predicted case."""
        item: CaseItem[SourceT] = engine.state.batch
        found = None if self._seen is None else self._seen.finish(item.classes or self.classes)
        self._seen = None
        if found is None:
            warn_of_no_uncertainty(item.case.case_id)
        else:
            found.write(self.folder, item.case.case_id, self.domain, item.source, self.ending)


class CaseProgress(EngineProgress):
    """Progress bar over cases, which moves within a case as its prompts are answered.

    Args:
        title: Title of the bar.
        total: Number of cases.
        console: The console; standard error by default.
    """

    def __init__(self, title: str, total: int, console: Console | None = None) -> None:
        """Keep the title and the console."""
        super().__init__(console)
        self.title, self.total, self.cases = title, total, 0

    def started(self, engine: Engine) -> None:
        """Show the bar."""
        inferer: Any = getattr(engine, "inferer", None)
        if hasattr(inferer, "progress"):
            inferer.progress = lambda share: self.update(completed=self.cases + share)
        self.show(
            self.title, BarColumn(), MofNCompleteColumn(), TextColumn("cases"), total=self.total
        )

    def details(self, fields: Mapping[str, Any]) -> str:
        """Return the number of cases."""
        return f"{self.cases} of {self.total} cases"

    def iteration_completed(self, engine: Engine) -> None:
        """Move the bar."""
        self.cases += 1
        self.update(completed=self.cases)
