"""Prediction job: many sources through one session, each read, predicted and written by itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samonai.core.errors import InputError
from samonai.domains import DEFAULT_DOMAIN, get_domain
from samonai.domains.base import Case
from samonai.domains.capabilities import capabilities
from samonai.embeddings.memory_store import MemoryStore, process_store
from samonai.inference.case_dataset import CaseItem, prompted
from samonai.inference.output_ownership import OWNERSHIP_FILE, OutputOwnership
from samonai.inference.prediction import Prediction
from samonai.inference.writing import PredictionWriter
from samonai.workflows.bundle_files import INFERENCE, config_files, read_config
from samonai.workflows.inputs import (
    Boxes,
    check_prompt,
    existing,
    existing_or_elsewhere,
    given_prompts,
    listed,
    store_location,
)
from samonai.workflows.pacs_ends import opened_sink, pacs_series, sent_formats
from samonai.workflows.session import Session, runs_of
from samonai.workflows.settings import check_settings

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork
    from samonai.workflows.trained_run import Runs


class PredictionJob:
    """Sources to predict and write; the arguments are those of `predict`.

    With `remember` and without a store, embeddings stay in memory for the next job of the process.

    Attributes:
        session: The session that predicts.
        source: Path of the sources; of no meaning with `pacs`.
        pacs: The series of a PACS that are the sources; None: a path.
        sink: The PACS that results are sent to; None: none.
        boxes: Prompts as a file or as values; None: none.
        out: The folder of results; None if no file is written.
        formats: Formats by name.
        checkpoint: The model's weights, if not the published ones.
        given: The given settings.

    Raises:
        InputError: An argument cannot be used.
    """

    def __init__(
        self,
        run: "Runs | SamNetwork",
        source: Path | str,
        boxes: Boxes | None,
        out: Path | None,
        *,
        prompt: str | None = None,
        domain: str = DEFAULT_DOMAIN,
        series: str | None = None,
        ending: str = "",
        formats: Sequence[str] = (),
        measure: bool = False,
        store: Path | str | None = None,
        checkpoint: Path | str | None = None,
        sha256: str | None = None,
        device: Any = None,
        uncertainty: bool | None = None,
        send: str | None = None,
        remember: bool = False,
        **settings: Any,
    ) -> None:
        """Check the arguments, and load the networks."""
        runs = runs_of(run, checkpoint, device)
        name = runs[0].domain if runs else domain
        config = read_config(config_files(name, INFERENCE))
        if series is not None and "series" not in config:
            raise InputError("series is for DICOM, which is medical data")
        check_prompt(prompt)
        known = capabilities(get_domain(name))
        if uncertainty is None:
            uncertainty = len(runs) > 1 and known.value_maps is not None
        self.given = check_settings(
            {
                **settings,
                "ending": ending,
                "measure": measure,
                "uncertainty": uncertainty,
            },
            config,
        )
        find = existing_or_elsewhere if known.remote_sources else existing
        self.pacs = pacs_series(source, name, series)
        self.source = Path() if self.pacs else find(source, "the input")
        self.boxes, self.prompt, self.series = given_prompts(boxes), prompt, series
        self.out, self.formats, self.checkpoint = out, listed(formats, "formats"), checkpoint
        self.sink = opened_sink(send, self.pacs, name)
        if self.sink is not None:
            self.formats = sent_formats(self.formats)
        self._writer: PredictionWriter[Any] | None = None
        self.session = Session(
            runs or run,
            domain=name,
            store=_store(store, remember),
            memory=0,
            checkpoint=checkpoint,
            sha256=sha256,
            device=device,
            **self.given,
        )

    def cases(self) -> list[Case]:
        """List the sources."""
        if self.pacs is not None:
            return self.pacs.cases(self.session.domain)
        return self.session.cases(self.source, self.series)

    def start(self, *, several: bool, sources: str = OWNERSHIP_FILE) -> None:
        """Prepare reading and writing.

        Args:
            several: Whether there are several cases, so that prompts must state their case.
            sources: Name of the file that registers the sources of this job's files.

        Raises:
            InputError: The prompts or the formats cannot be used.
        """
        session, given = self.session, self.given
        self._prompts, self._domain = session.prompts(self.boxes, self.prompt, several=several)
        if given["uncertainty"]:
            session.check_uncertainty()
        self._writer = None
        if self.out is not None:
            self._writer = PredictionWriter(
                self.out,
                self._domain,
                given["ending"],
                self.formats,
                given["measure"],
                session.facts,
            )
            self._writer.ownership = OutputOwnership(self.out, sources)

    def read(self, case: Case) -> CaseItem[Any]:
        """Read a case and its prompts; safe in several threads."""
        domain = self._domain
        source = domain.read(case) if self.pacs is None else self.pacs.read(case, domain)
        return prompted(domain, case, source, self._prompts)

    def decode(self, case: Case, item: CaseItem[Any]) -> Prediction[Any]:
        """Predict a read case, once its name in the folder is known to be its own."""
        if self._writer is not None:
            self._writer.ownership.register(case if self.pacs is None else self.pacs.origin(case))
        return self.session.decode(item, self._domain, uncertainty=self.given["uncertainty"])

    def write(self, prediction: Prediction[Any]) -> list[Path]:
        """Write a prediction, send its DICOM objects if wanted, and return the files.

        Raises:
            InputError: A file cannot be written, or the PACS did not store it.
        """
        assert self._writer is not None
        written = prediction.write_with(self._writer)
        if self.sink is not None:
            self.sink.send(written)
        return written

    def release(self, case: Case) -> None:
        """Remove the fetched files of a case."""
        if self.pacs is not None:
            self.pacs.release(case)

    def close(self) -> None:
        """Remove all that was fetched."""
        if self.pacs is not None:
            self.pacs.close()


def _store(store: Path | str | None, remember: bool) -> "str | MemoryStore | None":
    if store is not None:
        return store_location(store)
    return process_store() if remember else None
