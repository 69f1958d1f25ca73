"""Work through an archive: thousands of studies, some of them broken, over days and interruptions.

A study that fails takes no other with it. What was done stands in `manifest.jsonl`: a run that was
stopped, even killed, goes on where it was and does nothing twice.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from samonai.core.errors import InputError
from samonai.core.files import as_path, output_folder
from samonai.domains.base import Case, Domain
from samonai.domains.capabilities import capabilities
from samonai.inference import CaseDataset, LabelWriter
from samonai.settings import compared
from samonai.workflows.archive.manifest import DONE, FAILED, SKIPPED, Manifest
from samonai.workflows.archive.worklist import Read, Work, claimed, still_open, work_through
from samonai.workflows.bundle_engine import one_line_errors, opened_bundle
from samonai.workflows.inputs import existing, shows_progress, store_location
from samonai.workflows.run import predict
from samonai.workflows.run_folder import file_fingerprint, path_fingerprint
from samonai.workflows.train import embedder, reader_of

MANIFEST_FILE = "manifest.jsonl"

# Options of `embed` that have nothing to do with reading a study.
_OF_ENCODING = {"checkpoint", "sha256", "device", "dtype", "case_map"}

_MOST_READERS = 256


@dataclass(frozen=True)
class ArchiveReport:
    """How an archive stands.

    Attributes:
        states: Case id to "done", "failed" or "skipped", of all runs so far.
        reasons: Case id to why, of those that are not done.
        waiting: Ids of the cases that are still to do.
        worked: Number of cases that this run worked on.
    """

    states: Mapping[str, str]
    reasons: Mapping[str, str]
    waiting: tuple[str, ...]
    worked: int

    def count(self, state: str) -> int:
        """Return the number of cases in a state."""
        return sum(found == state for found in self.states.values())

    def summary(self) -> str:
        """Return one line for people."""
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
        limit: Work on so many studies at most.
        dry_run: Only say what would be done.
        retry_failed: Try again what failed before.
        progress: Show a bar; by default where standard error is a terminal.
        **options: What `predict` takes besides.

    Returns:
        How the archive stands.

    Raises:
        InputError: Something that was given cannot be used, whatever the study.
    """
    source, out = existing(source, "the input"), _result_folder(out, dry_run)
    how = _How(readers, limit, dry_run, retry_failed, shows_progress(progress))
    reports: list[ArchiveReport] = []

    def over_archive(files: Sequence[Path], overrides: Mapping[str, Any]) -> None:
        quiet = {**overrides, "progress": False}
        if dry_run:
            quiet.pop("case_map", None)
        with opened_bundle(files, quiet, workflow_type="infer") as workflow:
            domain = workflow.parser.get_parsed_content("domain")
        cases, left_out = list_archive(domain, source)
        settings = _fingerprint(overrides)
        if dry_run:
            reports.append(_as_planned(cases, left_out, out, settings, how))
            return
        chosen = {**quiet, "domain": domain, "chosen_cases": cases}
        with opened_bundle(files, chosen, workflow_type="infer") as workflow:
            predictor = _Predictor(workflow.parser, cases)
            reports.append(
                _run(cases, left_out, out, settings, predictor.read, predictor.predict, how)
            )

    def given(files: Sequence[Path], overrides: Mapping[str, Any]) -> None:
        with nullcontext() if dry_run else claimed(out):
            over_archive(files, overrides)

    # What the folder holds is looked at above; a dry run leaves it, and what is not there, alone.
    with TemporaryDirectory(prefix="samonai-") if dry_run else nullcontext(out) as folder:
        predict(run, source, boxes, Path(folder), progress=False, run_with=given, **options)
    return reports[0]


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
        progress: Likewise.
        **options: What `embed` takes besides.
    """
    images, out = existing(images, "images"), _result_folder(out, dry_run)
    how = _How(readers, limit, dry_run, retry_failed, shows_progress(progress))
    if dry_run:
        domain = reader_of(**{k: v for k, v in options.items() if k not in _OF_ENCODING})
    else:
        domain, encode = embedder(sam, store, **options)
    cases, left_out = list_archive(domain, images)
    domain.fit(cases)
    settings = {
        "store": path_fingerprint(store_location(store)),
        "sam": sam if isinstance(sam, str) else sam.encoder_sha256,
        "input": path_fingerprint(images),
        **{key: value for key, value in options.items() if compared(key)},
    }
    if dry_run:
        return _as_planned(cases, left_out, out, settings, how)

    def work(case: Case, source: Any) -> Sequence[Path]:
        encode(cast("Domain[Any]", _AlreadyRead(domain, source)), [case], False)
        return ()

    with claimed(out):
        return _run(cases, left_out, out, settings, domain.read, work, how)


def _result_folder(out: Path | str, dry_run: bool) -> Path:
    """Return the folder for results, of which a dry run tries nothing."""
    if not dry_run:
        return output_folder(out)
    path = as_path(out, "the output folder")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give a folder")
    return path


def list_archive(domain: Domain[Any], source: Path) -> tuple[list[Case], dict[str, str]]:
    """List an archive's cases, and what is left out with the reason."""
    listing = capabilities(domain).archive
    if listing is not None:
        return listing.find_archive(source)
    return domain.find_cases(source), {}


@dataclass(frozen=True)
class _How:
    """How to go through an archive; the fields are those of `predict_archive`."""

    readers: int
    limit: int | None
    dry_run: bool
    retry_failed: bool
    progress: bool

    def __post_init__(self) -> None:
        if not 1 <= self.readers <= _MOST_READERS:
            raise InputError(f"readers={self.readers}: expected 1 to {_MOST_READERS}")
        if self.limit is not None and self.limit < 0:
            raise InputError(f"limit={self.limit}: expected 0 or more")


class _AlreadyRead:
    """A domain whose next case has been read in another thread."""

    def __init__(self, domain: Domain[Any], source: Any) -> None:
        self._domain, self._source = domain, source

    def read(self, case: Case) -> Any:
        """Return what was read."""
        return self._source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._domain, name)


class _Predictor:
    """Runs the bundle's evaluator on one case at a time, so that none takes another with it."""

    def __init__(self, parser: Any, cases: Sequence[Case]) -> None:
        self._parser = parser
        self._number = {case.case_id: number for number, case in enumerate(cases)}
        self._dataset: CaseDataset = parser.get_parsed_content("dataset")
        parser.get_parsed_content("inferer")  # a setting that is wrong is no study's fault
        handlers = parser.get_parsed_content("handlers")
        self._writer = next(each for each in handlers if isinstance(each, LabelWriter))

    def read(self, case: Case) -> Any:
        """Read a case and its prompts."""
        return self._dataset[self._number[case.case_id]]

    def predict(self, case: Case, item: Any) -> Sequence[Path]:
        """Predict a case and return the files written."""
        # An engine that met an error does not run again, so each case gets a new one.
        self._parser.ref_resolver.remove_resolved_content("evaluator")
        evaluator = self._parser.get_parsed_content("evaluator")
        evaluator.data_loader, evaluator.state.epoch_length = [item], 1
        before = len(self._writer.written)
        try:
            with one_line_errors():
                evaluator.run()
        finally:
            # The engine's parts refer to each other; its volume must not wait to be collected.
            evaluator.data_loader = []
            evaluator.state.batch = evaluator.state.output = evaluator.state.dataloader = None
        return self._writer.written[before:]


def _run(
    cases: Sequence[Case],
    left_out: Mapping[str, str],
    out: Path,
    settings: Mapping[str, Any],
    read: Read,
    work: Work,
    how: _How,
) -> ArchiveReport:
    manifest = Manifest(out / MANIFEST_FILE, settings)
    if how.retry_failed:
        manifest.forget_failures()
    for case_id, reason in left_out.items():
        if case_id not in manifest.states:
            manifest.finished(case_id, SKIPPED, reason)
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
        )
    return _report(cases, manifest, worked)


def _as_planned(
    cases: Sequence[Case],
    left_out: Mapping[str, str],
    out: Path,
    settings: Mapping[str, Any],
    how: _How,
) -> ArchiveReport:
    """Say how the archive would stand before anything is done."""
    manifest = Manifest(out / MANIFEST_FILE, settings)
    report = _report(cases, manifest, 0)
    states = {**dict.fromkeys(left_out, SKIPPED), **report.states}
    if how.retry_failed:
        states = {case: state for case, state in states.items() if state != FAILED}
    waiting = [case.case_id for case in cases if case.case_id not in states]
    return ArchiveReport(
        states, {**left_out, **report.reasons}, tuple(waiting[: how.limit]), worked=0
    )


def _report(cases: Sequence[Case], manifest: Manifest, worked: int) -> ArchiveReport:
    waiting = tuple(case.case_id for case in cases if case.case_id not in manifest.states)
    return ArchiveReport(dict(manifest.states), dict(manifest.reasons), waiting, worked)


def _fingerprint(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the results of a prediction depend on, without a path."""
    plain = {
        key: value
        for key, value in overrides.items()
        if compared(key) and (value is None or isinstance(value, bool | int | float | str))
    }
    network = overrides.get("network_def")
    decoders = [overrides.get("decoder"), *(overrides.get("members") or [])]
    boxes = overrides.get("boxes")
    return {
        **plain,
        "formats": list(overrides["output_formats"]),
        "decoders": [file_fingerprint(path) for path in decoders],
        "encoder_sha256": None if network is None else network.encoder_sha256,
        "boxes": file_fingerprint(boxes) or path_fingerprint(boxes),
        "input": path_fingerprint(overrides["input"]),
        "checkpoint": file_fingerprint(overrides.get("checkpoint")),
    }
