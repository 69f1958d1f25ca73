"""Archive jobs: thousands of studies, some of them broken, over days and interruptions.

A failed study does not stop the others. Finished ones are recorded in `manifest.jsonl`: a
stopped or killed run resumes and does nothing twice.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from samonai.core.errors import InputError
from samonai.core.files import (
    as_path,
    no_empty_folders,
    nothing_left_of_a_mistake,
    output_folder,
)
from samonai.domains import DEFAULT_DOMAIN
from samonai.domains.base import Case, Domain, Source, SourceT
from samonai.domains.capabilities import capabilities
from samonai.inference.case_dataset import CaseItem
from samonai.inference.output_ownership import OWNERSHIP_FILE
from samonai.prompts.values import PromptValues
from samonai.settings import compared
from samonai.workflows.archive.manifest import DONE, FAILED, SKIPPED, Manifest
from samonai.workflows.archive.parts import WHOLE, Part, as_part, check_counts, parts_of
from samonai.workflows.archive.worklist import Read, Work, locked_results, still_open, work_through
from samonai.workflows.bundle_engine import one_line_errors, quiet_third_parties
from samonai.workflows.inputs import existing, shows_progress, store_location
from samonai.workflows.pacs_ends import is_pacs, pacs_series
from samonai.workflows.prediction_job import PredictionJob
from samonai.workflows.run_folder import file_fingerprint, path_fingerprint, text_fingerprint
from samonai.workflows.train import embedder, reader_of

if TYPE_CHECKING:
    from samonai.pacs.fetching import PacsSeries

MANIFEST_FILE = WHOLE.manifest

# Options of the outputs, which a dry run ignores.
_WRITTEN = {"store", "case_map"}

# Options of `embed` that do not affect the reading of a study.
_OF_ENCODING = {"checkpoint", "sha256", "device", "dtype", "case_map"}

_MOST_READERS = 256


@dataclass(frozen=True)
class ArchiveReport:
    """State of an archive.

    Attributes:
        states: Case id to "done", "failed" or "skipped", of all runs so far.
        reasons: Case id to reason, of cases that are not done.
        waiting: Ids of the remaining cases.
        worked: Number of cases of this run.
    """

    states: Mapping[str, str]
    reasons: Mapping[str, str]
    waiting: tuple[str, ...]
    worked: int

    def count(self, state: str) -> int:
        """Return the number of cases in a state."""
        return sum(found == state for found in self.states.values())

    def summary(self) -> str:
        """Return one line for users."""
        counts = ", ".join(f"{self.count(state)} {state}" for state in (DONE, FAILED, SKIPPED))
        left = f", {len(self.waiting)} to do" if self.waiting else ""
        return f"{len(self.states) + len(self.waiting)} cases: {counts}{left}"


def predict_archive(
    run: Any,
    source: Path | str,
    boxes: Any,
    out: Path | str,
    *,
    readers: int = 2,
    limit: int | None = None,
    dry_run: bool = False,
    retry_failed: bool = False,
    part: Part | str | None = None,
    progress: bool | None = None,
    **options: Any,
) -> ArchiveReport:
    """Predict every study of an archive; see `workflows.run.predict` for the other arguments.

    Args:
        run: As there.
        source: The archive's folder.
        boxes: As there; a CSV file with a case column, or a folder with a file per case.
        out: Folder for the results and the manifest.
        readers: Studies that are read at once; so many, and the one worked on, are in memory.
        limit: Largest number of studies.
        dry_run: Only list the studies.
        retry_failed: Retry failed studies.
        part: The part of the studies to do, such as "2/8"; several processes, each with a part of
            its own, may share `out` and `store`. None: all studies.
        progress: Show a bar; by default if standard error is a terminal.
        **options: Further arguments of `predict`.

    Returns:
        The state of the archive.

    Raises:
        InputError: An argument cannot be used for any study.
    """
    source = source if is_pacs(source) else existing(source, "the input")
    how = _How(readers, limit, dry_run, retry_failed, as_part(part), shows_progress(progress))
    out = _result_folder(out, how)
    if dry_run:
        options = {key: value for key, value in options.items() if key not in _WRITTEN}
    store = options.get("store")
    # Other processes may be about to work in folders that this one has made.
    alone = how.part.count == 1
    with (
        no_empty_folders(out, None if store is None else store_location(store))
        if alone
        else nullcontext(),
        nothing_left_of_a_mistake(out, results=True) if alone else nullcontext(),
        nullcontext() if dry_run else locked_results(out, how.part),
        one_line_errors(),
        quiet_third_parties(),
    ):
        job = PredictionJob(run, source, boxes, None if dry_run else out, **options)
        with closing(job):
            cases, left_out = list_archive(job.session.domain, source, job.pacs)
            settings = _fingerprint(job)
            if dry_run:
                return _as_planned(cases, left_out, out, settings, how)
            job.start(several=len(cases) > 1, sources=how.part.named(OWNERSHIP_FILE))

            def work(case: Case, item: CaseItem[Any]) -> Sequence[Path]:
                try:
                    with one_line_errors():
                        return job.write(job.decode(case, item))
                finally:
                    job.release(case)

            def frames(item: CaseItem[Any]) -> int:
                return job.session.domain.frame_count(item.source)

            return _run(cases, left_out, out, settings, job.read, work, frames, how)


def embed_archive(
    sam: Any,
    images: Path | str,
    out: Path | str,
    *,
    store: Path | str,
    readers: int = 2,
    limit: int | None = None,
    dry_run: bool = False,
    retry_failed: bool = False,
    part: Part | str | None = None,
    progress: bool | None = None,
    **options: Any,
) -> ArchiveReport:
    """Encode every study of an archive into a store; see `samonai.embed`.

    Args:
        sam: As there.
        images: The archive's folder.
        out: Folder for the manifest.
        store: As there.
        readers: As in `predict_archive`, like the rest.
        limit: Likewise.
        dry_run: Likewise.
        retry_failed: Likewise.
        part: Likewise.
        progress: Likewise.
        **options: Further arguments of `embed`.
    """
    pacs = pacs_series(images, options.get("domain", DEFAULT_DOMAIN))
    if pacs is None:
        images = existing(images, "images")
    how = _How(readers, limit, dry_run, retry_failed, as_part(part), shows_progress(progress))
    out = _result_folder(out, how)
    if dry_run:
        domain = reader_of(**{k: v for k, v in options.items() if k not in _OF_ENCODING})
    else:
        domain, encode = embedder(sam, store, **options)
    cases, left_out = list_archive(domain, images, pacs)
    domain.fit(cases)
    settings = {
        "store": path_fingerprint(store_location(store)),
        "sam": sam if isinstance(sam, str) else sam.encoder_sha256,
        "input": path_fingerprint(images) if pacs is None else pacs.fingerprint(),
        **{key: value for key, value in options.items() if compared(key)},
    }
    if dry_run:
        return _as_planned(cases, left_out, out, settings, how)

    def read(case: Case) -> Source:
        return domain.read(case) if pacs is None else pacs.read(case, domain)

    def work(case: Case, source: Source) -> Sequence[Path]:
        if pacs is not None:
            pacs.release(case)
        encode(cast("Domain[Any]", _AlreadyRead(domain, source)), [case], False)
        return ()

    with locked_results(out, how.part), nullcontext() if pacs is None else closing(pacs):
        return _run(cases, left_out, out, settings, read, work, domain.frame_count, how)


def _result_folder(out: Path | str, how: "_How") -> Path:
    """Return the folder for results, which a dry run does not check."""
    if not how.dry_run:
        return output_folder(out, keep=how.part.count > 1)
    path = as_path(out, "the output folder")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give a folder")
    return path


def list_archive(
    domain: Domain[Any], source: Path | str, pacs: "PacsSeries | None" = None
) -> tuple[list[Case], dict[str, str]]:
    """List an archive's cases, and the skipped ones with the reason."""
    if pacs is not None:
        return pacs.cases(domain), pacs.left_out
    source = Path(source)
    listing = capabilities(domain).archive
    if listing is not None:
        return listing.find_archive(source)
    return domain.find_cases(source), {}


@dataclass(frozen=True)
class _How:
    """Options of going through an archive; the fields are those of `predict_archive`."""

    readers: int
    limit: int | None
    dry_run: bool
    retry_failed: bool
    part: Part
    progress: bool

    def __post_init__(self) -> None:
        if not 1 <= self.readers <= _MOST_READERS:
            raise InputError(f"readers={self.readers}: expected 1 to {_MOST_READERS}")
        if self.limit is not None and self.limit < 0:
            raise InputError(f"limit={self.limit}: expected 0 or more")


class _AlreadyRead(Generic[SourceT]):
    """A domain whose next case was read in another thread."""

    def __init__(self, domain: Domain[SourceT], source: SourceT) -> None:
        self._domain, self._source = domain, source

    def read(self, case: Case) -> SourceT:
        """Return the read source."""
        return self._source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._domain, name)


def _run(
    cases: Sequence[Case],
    left_out: Mapping[str, str],
    out: Path,
    settings: Mapping[str, Any],
    read: Read,
    work: Work,
    frames: Callable[[Any], int],
    how: _How,
) -> ArchiveReport:
    manifest, total = _opened(out, settings, how.part), len(cases) + len(left_out)
    cases, left_out = _of_part(cases, left_out, how.part)
    if how.retry_failed:
        manifest.forget_failures()
    for case_id, reason in left_out.items():
        if case_id not in manifest.states:
            manifest.finished(case_id, SKIPPED, reason)
    if still_open(cases, manifest) or manifest.is_new:
        manifest.begin(len(cases) + len(left_out), total)
    todo = len(still_open(cases, manifest)[: how.limit])
    columns = (TextColumn("studies"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not how.progress, transient=True) as bar:
        task = bar.add_task("", total=todo)
        worked = work_through(
            cases,
            manifest,
            read,
            work,
            readers=how.readers,
            limit=how.limit,
            on_case=lambda case_id, state: bar.update(task, advance=1),
            frames=frames,
        )
    return _report(cases, manifest, worked)


def _as_planned(
    cases: Sequence[Case],
    left_out: Mapping[str, str],
    out: Path,
    settings: Mapping[str, Any],
    how: _How,
) -> ArchiveReport:
    """Return the state of the archive before any study is done."""
    check_counts(out, how.part)
    manifest = _opened(out, settings, how.part)
    cases, left_out = _of_part(cases, left_out, how.part)
    report = _report(cases, manifest, 0)
    states = {**dict.fromkeys(left_out, SKIPPED), **report.states}
    if how.retry_failed:
        states = {case: state for case, state in states.items() if state != FAILED}
    waiting = [case.case_id for case in cases if case.case_id not in states]
    return ArchiveReport(
        states, {**left_out, **report.reasons}, tuple(waiting[: how.limit]), worked=0
    )


def _opened(out: Path, settings: Mapping[str, Any], part: Part) -> Manifest:
    """Open the manifest of a part, whose settings must be those of the other parts."""
    manifest = Manifest(out / part.manifest, settings)
    for other in parts_of(out):
        if other != part:
            Manifest(out / other.manifest, settings)
    return manifest


def _of_part(
    cases: Sequence[Case], left_out: Mapping[str, str], part: Part
) -> tuple[list[Case], dict[str, str]]:
    """Return the cases and the skipped ones of a part."""
    return (
        [case for case in cases if part.has(case.case_id)],
        {case_id: reason for case_id, reason in left_out.items() if part.has(case_id)},
    )


def _report(cases: Sequence[Case], manifest: Manifest, worked: int) -> ArchiveReport:
    waiting = tuple(case.case_id for case in cases if case.case_id not in manifest.states)
    return ArchiveReport(dict(manifest.states), dict(manifest.reasons), waiting, worked)


def _fingerprint(job: PredictionJob) -> dict[str, Any]:
    """Return everything that the results of a prediction depend on, without paths."""
    given = {
        **job.given,
        **{k: v for k, v in (("prompt", job.prompt), ("series", job.series)) if v is not None},
    }
    session, boxes = job.session, job.boxes
    return {
        **{key: value for key, value in given.items() if compared(key)},
        "formats": job.formats,
        "decoders": [file_fingerprint(path) for path in session.decoders],
        "encoder_sha256": session.networks[0].encoder_sha256,
        "boxes": text_fingerprint(json.dumps(boxes))
        if isinstance(boxes, PromptValues)
        else file_fingerprint(boxes) or path_fingerprint(boxes),
        "input": path_fingerprint(job.source) if job.pacs is None else job.pacs.fingerprint(),
        **({} if job.sink is None else {"send": job.sink.address.shown}),
        "checkpoint": file_fingerprint(job.checkpoint),
    }
