"""Run: a fine-tuned decoder on disk, to load, evaluate and predict with."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

from samonai.core.errors import InputError
from samonai.core.files import (
    no_empty_folders,
    nothing_left_of_a_mistake,
    output_folder,
    written_meanwhile,
)
from samonai.core.progress_lines import ProgressLines, told_by_lines
from samonai.domains import DEFAULT_DOMAIN
from samonai.domains.base import Case
from samonai.embeddings.counting import FrameCounts
from samonai.settings import flat
from samonai.workflows.bundle_engine import one_line_errors, quiet_third_parties, run_bundle
from samonai.workflows.bundle_files import EVALUATE, TRAIN, config_files, read_config
from samonai.workflows.inputs import Boxes, data_paths, shows_progress, store_location
from samonai.workflows.prediction_job import PredictionJob
from samonai.workflows.settings import check_settings, domain_of, kept_settings
from samonai.workflows.trained_run import Runs, TrainedRun, opened_runs

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork


class Run(TrainedRun):
    """A fine-tuned decoder on disk.

    Args:
        path: The run's folder.
        sam: The network that it was fine-tuned from, if available; else it is loaded.
        checkpoint: Path of its weights, if they were moved.
        device: Device of computation; by default a GPU if there is one.

    Raises:
        InputError: The folder is not a run's.
    """

    def predict(
        self,
        source: Path | str,
        boxes: Boxes | None = None,
        *,
        prompt: "str | Boxes | None" = None,
        out: Path | str | None = None,
        **options: Any,
    ) -> Any:
        """Predict the label map of one source.

        Args:
            source: The file, or the folder of a DICOM series.
            boxes: None for a run with a semantic head, which needs none; else (N, 6) voxel boxes
                [i0, j0, k0, i1, j1, k1], upper ends exclusive; or the content of the JSON file; or
                that file, a CSV file, or a coarse label map's.
            prompt: Name of the class of the semantic head; of pages also words, a
                regular expression or a question; or boxes. None: all classes.
            out: Folder to write the label map into as well.
            **options: `series`, `uncertainty`, `store` (by default the last sources' embeddings
                stay in memory, 1 GiB at most), and settings of prediction. With `out` also those
                of writing, see `predict`.

        Returns:
            int32, the label map on the source's grid, in index order; of a page its `QueryResult`.
        """
        if prompt is not None and not isinstance(prompt, str):
            boxes, prompt = prompt, None
        if out is None and options.get("send") is not None:
            raise InputError("send needs out: a folder for the objects that are sent")
        folder = None if out is None else output_folder(out)
        with _writing(folder, options.get("store")), one_line_errors(), quiet_third_parties():
            job = PredictionJob(
                self, source, boxes, folder, prompt=prompt, remember=True, **options
            )
            cases = job.cases()
            if len(cases) != 1:
                raise InputError(
                    f"{source} holds {len(cases)} sources; give one, or use samonai.predict"
                )
            job.start(several=False)
            prediction = job.decode(cases[0], job.read(cases[0]))
            if folder is not None:
                job.write(prediction)
            job.close()
        return prediction.label if prediction.query_result is None else prediction.query_result

    def evaluate(
        self, images: Path | str, labels: Path | str | None, out: Path | str, **options: Any
    ) -> dict[str, Any]:
        """Measure the decoder beside its baselines; see `evaluate`."""
        return evaluate(self, images, labels, out, **options)


def open_runs(
    runs: Runs,
    *,
    checkpoint: Path | str | None = None,
    device: Any = None,
    domain: str | None = None,
) -> list[Run]:
    """Open runs; a folder of folds or of seeds means all of its runs; see `opened_runs`."""
    return opened_runs(Run, runs, checkpoint=checkpoint, device=device, domain=domain)


def evaluate(
    run: Runs,
    images: Path | str,
    labels: Path | str | None,
    out: Path | str,
    *,
    cases: str | Sequence[str] | None = None,
    prompts: str = "slices",
    box_jitter: float | None = None,
    seed: int = 0,
    zero_shot: bool = True,
    report: bool = True,
    progress: bool | None = None,
    groups: Path | str | None = None,
    found_cases: Sequence[Case] | None = None,
    counts: FrameCounts | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure a run beside the model before fine-tuning and the filled box, all on the same boxes.

    Args:
        run: The run, or its folder; or several, whose averaged logits are measured, and also
            each run by itself.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that has them.
        out: Folder for `metrics.json`, `metrics.csv`, and the report.
        cases: Names of cases, or "all"; None: the run's held-out cases, if they are there.
        prompts: "slices" for a box per slice and object, "volume" for one 3D box per class,
            "middle" for one box per class on its middle slice, propagated to the others,
            "middle_click" for one click there, "keyframes" for boxes on the first, middle and last
            slice, interpolated between,
            "clicks" for clicks on each object of each slice, see `evaluation.clicks`,
            "none" for the semantic head, which has no baselines.
        box_jitter: Each side of a box moves by up to this share of the box, 0.05 by default; 0
            gives exact boxes.
        seed: Seed of the jitter.
        zero_shot: Measure the model before fine-tuning too.
        report: Write `index.html`, overlays and the learning curve.
        progress: Show a bar; by default if standard error is a terminal.
        groups: JSON file with the patient of each case, over whom intervals are resampled; None:
            the groups of the data set, else each case is a patient.
        found_cases: The cases of `images` and `labels`, if they were listed already.
        counts: The frames that were encoded and found are added to it.
        **settings: The bundle's other settings.

    Returns:
        Content of `metrics.json`.

    Raises:
        InputError: An argument cannot be used.
    """
    run, *members = open_runs(run)
    (images, labels), out = data_paths(images, labels), output_folder(out)
    files = config_files(run.domain, TRAIN, EVALUATE)
    trained = kept_settings(run.settings["settings"], files)
    own = {"prompts": prompts, "zero_shot": zero_shot, "report": report}
    if box_jitter is not None:
        own["box_jitter"] = box_jitter
    asked = {**trained, **flat(settings), **flat({"evaluation": own}), "seed": seed}
    config = read_config(files)
    if groups is not None:
        found_cases = _grouped(run, config, asked, (images, labels), groups, found_cases)
    listed = None if "found_cases" not in config else found_cases
    overrides = {
        **check_settings(asked, config),
        "network_def": run.pretrained.fork().eval(),
        "device": run.pretrained.device,
        "decoder": run.folder.decoder,
        "members": [member.folder.decoder for member in members] or None,
        "images": images,
        "labels": labels,
        "evaluation.cases": cases,
        "evaluation_dir": out,
        "store": run.folder.store(),
        "progress": shows_progress(progress, lines=True),
        **({} if listed is None else {"found_cases": list(listed)}),
    }
    with no_empty_folders(out), nothing_left_of_a_mistake(out):
        inferer = run_bundle(files, overrides, part="validate::inferer")
    if counts is not None:
        counts.add(inferer.store)
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def _grouped(
    run: Run,
    config: Mapping[str, Any],
    asked: Mapping[str, Any],
    data: tuple[Path, Path | None],
    groups: Path | str,
    found: Sequence[Case] | None,
) -> list[Case]:
    """Return the cases of a data set with the patients of a groups file."""
    from samonai.training.data.folds import read_groups

    chosen = check_settings(dict(asked), config)
    cases = found or domain_of(run.domain, config, chosen).find_cases(*data)
    patients = read_groups(groups)
    return [replace(case, group=patients.get(case.case_id, case.group)) for case in cases]


def predict(
    run: "Runs | SamNetwork",
    source: Path | str,
    boxes: Boxes | None,
    out: Path | str,
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
    progress: bool | None = None,
    **settings: Any,
) -> list[Path]:
    """Predict label maps, prompted or not, and write them on their sources' own grids.

    Args:
        run: The fine-tuned run, or its folder; or several, whose logits are averaged; or a network
            or a model's name, before fine-tuning.
        source: One source, or a folder of them; or the address of a PACS with a query,
            `dicomweb://host/path?StudyInstanceUID=…` or `dimse://AET@host:port?…`.
        boxes: See `Run.predict`; for several sources a CSV file with a case column, or a folder
            with a file per case. None uses the run's semantic head.
        out: Folder for the label maps, named after their cases.
        prompt: Name of the class of the semantic head; None: all classes.
        domain: The kind of data, if `run` is not a run.
        series: DICOM SeriesInstanceUID, if `source` holds several series.
        ending: ".nii.gz", ".nrrd" or ".mha"; empty: the input's own format.
        formats: Formats by name instead, such as "nifti", "nrrd", "mha", "dicom-seg", "rtstruct".
        measure: Write measurements of each prediction as JSON and CSV, and as DICOM SR.
        store: Embedding store for later calls; None keeps none.
        checkpoint: The model's weights, if `run` is a model's name.
        sha256: Their expected hash.
        device: Device of computation, if `run` is a model's name.
        uncertainty: Write beside each label map a map of its uncertainty, and a JSON file with
            figures per structure; by default for several runs, if the domain can.
        send: Address of a PACS that the DICOM objects are sent to; by default they are DICOM-SEG.
        progress: Show a bar; by default if standard error is a terminal.
        **settings: The bundle's other settings.

    Returns:
        The files written.

    Raises:
        InputError: An argument cannot be used.
    """
    out = output_folder(out)
    with _writing(out, store) as written, one_line_errors(), quiet_third_parties():
        job = PredictionJob(
            run,
            source,
            boxes,
            out,
            prompt=prompt,
            domain=domain,
            series=series,
            ending=ending,
            formats=formats,
            measure=measure,
            store=store,
            checkpoint=checkpoint,
            sha256=sha256,
            device=device,
            uncertainty=uncertainty,
            send=send,
            **settings,
        )
        with closing(job):
            cases = job.cases()
            job.start(several=len(cases) > 1)
            console, hidden = Console(stderr=True), not shows_progress(progress)
            lines = ProgressLines("predicting", len(cases))
            for done, case in enumerate(
                track(cases, "predicting", console=console, disable=hidden), 1
            ):
                try:
                    job.write(job.decode(case, job.read(case)))
                finally:
                    job.release(case)
                if hidden and told_by_lines.get():
                    lines.update(done, f"{done} of {len(cases)} cases")
    return written


@contextmanager
def _writing(out: Path | None, store: Path | str | None) -> Iterator[list[Path]]:
    """Yield a list of the files written into a folder; a refused call leaves none."""
    if out is None:
        yield []
        return
    with (
        written_meanwhile(out) as written,
        no_empty_folders(out, None if store is None else store_location(store)),
        nothing_left_of_a_mistake(out, results=True),
    ):
        yield written
