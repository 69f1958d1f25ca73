"""A fine-tuned decoder on disk: load it, measure it, predict with it."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from samonai.core.errors import InputError
from samonai.core.files import (
    no_empty_folders,
    nothing_left_of_a_mistake,
    output_folder,
    written_meanwhile,
)
from samonai.domains import DEFAULT_DOMAIN, get_domain
from samonai.domains.capabilities import capabilities
from samonai.workflows.bundle_engine import run_bundle
from samonai.workflows.bundle_files import EVALUATE, INFERENCE, TRAIN, config_files, read_config
from samonai.workflows.inputs import (
    Boxes,
    boxes_file,
    data_paths,
    existing,
    existing_or_elsewhere,
    listed,
    network_overrides,
    shows_progress,
    store_location,
)
from samonai.workflows.run_folder import RunFolder, member_folders
from samonai.workflows.settings import check_settings, kept_settings

if TYPE_CHECKING:
    from samonai.sam.decoder_file import DecoderMetadata
    from samonai.sam.network import SamNetwork


RunBundle = Callable[[Sequence[Path], Mapping[str, Any]], None]
"""Runs a bundle, given its configuration files and what replaces their entries."""


class Run:
    """A fine-tuned decoder on disk.

    Args:
        path: The run's folder.
        sam: The network that it was fine-tuned from, when it is at hand; else it is loaded.
        checkpoint: Where its weights are, when they have moved since.
        device: Where to compute; by default a GPU when there is one.

    Raises:
        InputError: The folder holds no run.
    """

    def __init__(
        self,
        path: Path | str,
        sam: "SamNetwork | None" = None,
        *,
        checkpoint: Path | str | None = None,
        device: Any = None,
    ) -> None:
        """Look into the folder."""
        self.folder = RunFolder(path)
        self.settings = self.folder.settings()
        if not self.folder.is_complete:
            raise InputError(
                f"{self.folder.path} has not finished training; give its training command again, "
                f"which goes on where it stopped"
            )
        self.checkpoint = checkpoint or self.settings.get("checkpoint")
        self.device = device
        self._sam = sam

    def __repr__(self) -> str:
        """Return how to make it again."""
        return f"Run({str(self.folder.path)!r})"

    @property
    def path(self) -> Path:
        """Return the run's folder."""
        return self.folder.path

    @property
    def domain(self) -> str:
        """Return the kind of data that it is for."""
        return str(self.settings["domain"])

    @cached_property
    def metadata(self) -> "DecoderMetadata":
        """Return what travels with the decoder: classes, cases, prompts, provenance, metrics."""
        from samonai.sam.decoder_file import read_decoder_metadata

        return read_decoder_metadata(self.folder.decoder)

    @property
    def pretrained(self) -> "SamNetwork":
        """Return the network as it was before fine-tuning."""
        if self._sam is None:
            from samonai.inference import trained_network

            self._sam = trained_network(
                self.folder.decoder, checkpoint=self.checkpoint, device=self.device
            )
        return self._sam

    @cached_property
    def network(self) -> "SamNetwork":
        """Return the fine-tuned network, in eval mode."""
        from samonai.sam.decoder_file import load_decoder

        network = self.pretrained.fork().eval()
        load_decoder(network, self.folder.decoder)
        return network

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
                [i0, j0, k0, i1, j1, k1], upper ends exclusive; or what the JSON file holds; or
                that file, a CSV file, or a coarse label map's.
            prompt: Name of the class that is wanted of the semantic head; of pages also words, a
                regular expression or a question; or boxes. None: all classes.
            out: Folder to write the label map into as well.
            **options: See `predict`.

        Returns:
            The label map on the source's grid, in its index order; of a page its `Answer`.
        """
        if prompt is not None and not isinstance(prompt, str):
            boxes, prompt = prompt, None
        domain = get_domain(self.domain)
        results = capabilities(domain).results
        with tempfile.TemporaryDirectory(prefix="samonai-") as scratch:
            written = predict(
                self, source, boxes, Path(scratch) if out is None else out, prompt=prompt, **options
            )
            found = written if results is None else results.read_answers(written)
            if len(found) != 1:
                raise InputError(
                    f"{source} holds {len(found)} sources; give one, or use samonai.predict"
                )
            return domain.read_back(found[0]) if results is None else found[0]

    def evaluate(
        self, images: Path | str, labels: Path | str | None, out: Path | str, **options: Any
    ) -> dict[str, Any]:
        """Measure the decoder beside its baselines; see `evaluate`."""
        return evaluate(self, images, labels, out, **options)


Runs = Run | Path | str | Sequence[Run | Path | str]
"""A run or several: as they are, or by their folders, or by the folder of their folds."""


def open_runs(
    runs: Runs,
    *,
    checkpoint: Path | str | None = None,
    device: Any = None,
    domain: str | None = None,
) -> list[Run]:
    """Open runs; a folder of folds or of seeds stands for all of its runs.

    Args:
        runs: Themselves or their folders.
        checkpoint: See `Run`, as for the device.
        device: See `Run`.
        domain: The kind of data that they must be for; None: any.

    Raises:
        InputError: A folder holds no run, one is not finished or of another kind of data, or they
            cannot be averaged.
    """
    opened: list[Run] = []
    several = isinstance(runs, Sequence) and not isinstance(runs, str)
    for run in cast("Sequence[Run | Path | str]", runs if several else [runs]):
        if isinstance(run, Run):
            opened.append(run)
            continue
        folders = member_folders(run)
        opened += [Run(folder, checkpoint=checkpoint, device=device) for folder in folders]
    if not opened:
        raise InputError("no run was given")
    for run in opened:
        if domain not in (None, run.domain):
            raise InputError(f"{run.path} is a run on {run.domain} data, not on {domain}")
    if len(opened) > 1:
        from samonai.inference import check_members

        check_members([run.folder.decoder for run in opened])
    return opened


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
    **settings: Any,
) -> dict[str, Any]:
    """Measure a run beside the model before fine-tuning and the filled box, all on the same boxes.

    Args:
        run: The run, or its folder; or several, whose averaged logits are measured, and beside
            them each run by itself.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that names them.
        out: Folder for `metrics.json`, `metrics.csv`, and the report.
        cases: Names of cases, or "all"; None: those that the run held out, where they are there.
        prompts: "slices" for a box per slice and object, "volume" for one 3D box per class,
            "middle" for one box per class on its middle slice, propagated to the others,
            "middle_click" for one click there, "keyframes" for boxes on the first, middle and last
            slice, interpolated between,
            "clicks" for clicks on each object of each slice, as many as `eval_clicks` says,
            "none" for the semantic head, which has no baselines.
        box_jitter: Each side of a box moves by up to this share of the box, 0.05 by default; 0
            gives exact boxes.
        seed: Seed of the jitter.
        zero_shot: Measure the model before fine-tuning too.
        report: Write `index.html`, overlays and the learning curve.
        progress: Show a bar; by default where standard error is a terminal.
        **settings: The bundle's other settings.

    Returns:
        What `metrics.json` holds.

    Raises:
        InputError: Something that was given cannot be used.
    """
    run, *members = open_runs(run)
    (images, labels), out = data_paths(images, labels), output_folder(out)
    files = config_files(run.domain, TRAIN, EVALUATE)
    trained = kept_settings(run.settings["settings"], files)
    asked = {**trained, **settings, "eval_prompts": prompts, "seed": seed, "zero_shot": zero_shot}
    if box_jitter is not None:
        asked["eval_box_jitter"] = box_jitter
    overrides = {
        **check_settings({**asked, "report": report}, read_config(files)),
        "network_def": run.pretrained.fork().eval(),
        "device": run.pretrained.device,
        "decoder": run.folder.decoder,
        "members": [member.folder.decoder for member in members] or None,
        "images": images,
        "labels": labels,
        "cases": cases,
        "evaluation_dir": out,
        "store": run.folder.store(),
        "progress": shows_progress(progress),
    }
    with no_empty_folders(out), nothing_left_of_a_mistake(out):
        run_bundle(files, overrides)
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def _infer(files: Sequence[Path], overrides: Mapping[str, Any]) -> None:
    run_bundle(files, overrides, workflow_type="infer")


def predict(
    run: "Run | SamNetwork | Path | str | Sequence[Run]",
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
    progress: bool | None = None,
    run_with: RunBundle = _infer,
    **settings: Any,
) -> list[Path]:
    """Predict label maps, prompted or not, and write them on their sources' own grids.

    Args:
        run: The fine-tuned run, or its folder as a `Path`; or several, whose logits are averaged;
            or a network or a model's name, as it is before fine-tuning.
        source: One source, or a folder of them.
        boxes: See `Run.predict`; for several sources a CSV file with a case column, or a folder
            with a file per case. None asks the run's semantic head.
        out: Folder for the label maps, named after their cases.
        prompt: Name of the class that is wanted of the semantic head; None: all classes.
        domain: The kind of data, where `run` is not a run.
        series: DICOM SeriesInstanceUID, where `source` holds several series.
        ending: ".nii.gz", ".nrrd" or ".mha"; empty: the input's own format.
        formats: Formats by name instead, such as "nifti", "nrrd", "mha", "dicom-seg", "rtstruct".
        measure: Write measurements of each prediction as JSON and CSV, and as DICOM SR.
        store: Embeddings are kept here, for the next time; None keeps none.
        checkpoint: The model's weights, where `run` is a model's name.
        sha256: The hash that these must have.
        device: Where to compute, where `run` is a model's name.
        uncertainty: Write beside each label map a map of how sure it is, and a JSON file with
            figures per structure; by default for several runs, where the domain can.
        progress: Show a bar; by default where standard error is a terminal.
        run_with: Runs the bundle, given its files and overrides; by default once over all cases.
        **settings: The bundle's other settings.

    Returns:
        The files written.

    Raises:
        InputError: Something that was given cannot be used.
    """
    runs = open_runs(run) if isinstance(run, Run | Path | list | tuple) else []
    if runs and sha256 is not None:
        raise InputError(
            "sha256 is of a model's weights, which a run knows by itself; leave it out"
        )
    name = runs[0].domain if runs else domain
    files = config_files(name, INFERENCE)
    config = read_config(files)
    if series is not None and "series" not in config:
        raise InputError("series is for DICOM, which is medical data")
    if prompt is not None and not prompt.strip():
        raise InputError("the prompt is empty; leave it out to ask for all")
    if uncertainty is None:
        uncertainty = len(runs) > 1 and capabilities(get_domain(name)).value_maps is not None
    kinds = {"output_ending": ending, "measure": measure, "uncertainty": uncertainty}
    plain = check_settings({**settings, **kinds}, config)
    network = (
        _networks(runs)
        if runs
        else network_overrides(cast("SamNetwork | str", run), checkpoint, sha256, device)
    )
    find = existing_or_elsewhere if capabilities(get_domain(name)).remote_sources else existing
    source, out = find(source, "the input"), output_folder(out)
    with (
        written_meanwhile(out) as written,
        boxes_file(boxes) as given,
        no_empty_folders(out, None if store is None else store_location(store)),
        nothing_left_of_a_mistake(out, results=True),
    ):
        overrides = {
            **plain,
            "decoder": None,
            **network,
            "input": source,
            "boxes": given,
            "output_dir": out,
            "output_formats": listed(formats, "formats"),
            # Not every kind of data has these.
            **{k: v for k, v in (("prompt", prompt), ("series", series)) if v is not None},
            "store": None if store is None else store_location(store),
            "progress": shows_progress(progress),
        }
        run_with(files, overrides)
    return written


def _networks(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what tells a bundle to predict with these runs."""
    return {
        **network_overrides(runs[0].pretrained),
        "decoder": runs[0].folder.decoder,
        "members": [run.folder.decoder for run in runs[1:]] or None,
    }
