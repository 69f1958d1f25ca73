"""The main job in Python: fine-tune, evaluate, predict. The command line calls the same functions.

Each runs a bundle's configuration with overrides, so there is one way to do it and two doors.
"""

import json
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from samonai import __version__
from samonai.bundles import (
    EVALUATE,
    INFERENCE,
    TRAIN,
    check_settings,
    config_files,
    plain_settings,
    read_config,
    run_bundle,
)
from samonai.domains import get_domain
from samonai.errors import InputError
from samonai.files import write_atomically
from samonai.runs import STORE_FOLDER, RunFolder, file_fingerprint, path_fingerprint

if TYPE_CHECKING:
    from samonai.sam.decoder_file import DecoderMetadata
    from samonai.sam.network import SamNetwork

logger = logging.getLogger(__name__)

Boxes = Path | str | Mapping[str, Any] | Sequence[Any] | npt.NDArray[Any]

# How and where a run computes, which does not change what comes out of it.
_NOT_THE_RESULT = {"progress", "resume", "workers", "rank", "world_size", "bundle_root"}
_HAVE_ARGUMENTS = {"model", "checkpoint", "sha256", "epochs", "split", "val_fraction", "seed"}


def finetune(
    sam: "SamNetwork | str",
    images: Path | str,
    labels: Path | str | None = None,
    *,
    domain: str = "medical",
    out: Path | str,
    epochs: int = 20,
    split: Path | str | Mapping[str, Sequence[str]] | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    checkpoint: Path | str | None = None,
    sha256: str | None = None,
    store: Path | str | None = None,
    device: Any = None,
    overwrite: bool = False,
    progress: bool | None = None,
    **settings: Any,
) -> "Run":
    """Train the mask decoder on a folder of images and labels.

    The same call on the same `out` goes on where it was stopped, and ends with the weights that
    an uninterrupted run has.

    Args:
        sam: A network from `load_sam`, whose own weights stay as they are; or a model's name.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that names them.
        domain: The kind of data, which names the bundle.
        out: The run's folder.
        epochs: How often each labelled frame is seen, unless validation stops rising before.
        split: `{"train": [case, …], "val": [case, …]}`, or the JSON file that holds it.
        val_fraction: Share of the cases that is held out, without a split.
        seed: Every random choice hangs on it.
        checkpoint: The model's weights, where `sam` is a name and they are not the published ones.
        sha256: The hash that these must have.
        store: Where embeddings are kept; by default in the run's folder.
        device: Where to compute; by default a GPU when there is one.
        overwrite: Start over where `out` holds a run already.
        progress: Show a bar; by default where standard error is a terminal.
        **settings: The bundle's other settings; `samonai bundle show` lists them.

    Returns:
        The finished run.

    Raises:
        InputError: Something that was given cannot be used; the message says what and why.
    """
    files = config_files(domain, TRAIN)
    config = read_config(files)
    split_file = None if isinstance(split, Mapping) else split
    plain = {
        **settings,
        "epochs": epochs,
        "val_fraction": val_fraction,
        "seed": seed,
        "model": sam if isinstance(sam, str) else sam.name,
    }
    chosen = check_settings(plain, config)
    _check_data(domain, chosen, images, labels)
    folder = RunFolder(out)
    record = {
        "samonai": __version__,
        "domain": domain,
        "settings": {
            **{k: v for k, v in plain_settings(config).items() if k not in _NOT_THE_RESULT},
            **{k: v for k, v in chosen.items() if k not in _NOT_THE_RESULT},
        },
        "checkpoint": None if checkpoint is None else str(Path(checkpoint).expanduser().absolute()),
        "encoder_sha256": None if isinstance(sam, str) else sam.encoder_sha256,
        "images": path_fingerprint(images),
        "labels": path_fingerprint(labels),
        "split": file_fingerprint(split_file) if split_file else dict(split or {}) or None,
        "store": None if store is None else _location(store),
    }
    for name in ("checkpoint", "sha256", "split"):
        record["settings"].pop(name, None)
    with folder.claimed(record, overwrite=overwrite) as unfinished:
        if not unfinished:
            logger.info("%s is complete; nothing is left to train", folder.path)
            return Run(folder.path, sam=_network(sam))
        if isinstance(split, Mapping):
            split_file = folder.path / "split.json"
            with write_atomically(split_file) as temporary:
                temporary.write_text(json.dumps(split))
        overrides = {
            **chosen,
            **_sam_overrides(sam, checkpoint, sha256, device),
            "images": _existing(images),
            "labels": None if labels is None else _existing(labels),
            "split": None if split_file is None else Path(split_file),
            "output_dir": folder.path,
            "store": folder.path / STORE_FOLDER if store is None else _location(store),
            "progress": _shows_progress(progress),
        }
        run_bundle(files, overrides)
    return Run(folder.path, sam=_network(sam))


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
        self, input: Path | str, boxes: Boxes, *, out: Path | str | None = None, **options: Any
    ) -> npt.NDArray[np.integer]:
        """Predict the label map of one source.

        Args:
            input: The file, or the folder of a DICOM series.
            boxes: (N, 6) voxel boxes [i0, j0, k0, i1, j1, k1], upper ends exclusive; or what the
                JSON file holds; or that file, a CSV file, or a coarse label map's.
            out: Folder to write the label map into as well.
            **options: See `predict`.

        Returns:
            The label map on the source's grid, in its index order.
        """
        with tempfile.TemporaryDirectory(prefix="samonai-") as scratch:
            written = predict(self, input, boxes, out or Path(scratch), **options)
            if len(written) != 1:
                raise InputError(
                    f"{input} holds {len(written)} sources; give one, or use samonai.api.predict"
                )
            from samonai.domains.medical import read_volume

            return read_volume(written[0]).data.astype(np.int32)

    def evaluate(
        self, images: Path | str, labels: Path | str | None, out: Path | str, **options: Any
    ) -> dict[str, Any]:
        """Measure the decoder beside its baselines; see `evaluate`."""
        return evaluate(self, images, labels, out, **options)


def evaluate(
    run: Run | Path | str,
    images: Path | str,
    labels: Path | str | None,
    out: Path | str,
    *,
    cases: str | Sequence[str] | None = None,
    prompts: str = "slices",
    box_jitter: float = 0.0,
    seed: int = 0,
    zero_shot: bool = True,
    report: bool = True,
    progress: bool | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure a run beside the model before fine-tuning and the filled box, all on the same boxes.

    Args:
        run: The run, or its folder.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that names them.
        out: Folder for `metrics.json`, `metrics.csv`, and the report.
        cases: Names of cases, or "all"; None: those that the run held out, where they are there.
        prompts: "slices" for a box per slice and object, "volume" for one 3D box per class.
        box_jitter: Each side of a box moves by up to this share of the box.
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
    run = run if isinstance(run, Run) else Run(run)
    out = _new_folder(out)
    files = config_files(run.domain, TRAIN, EVALUATE)
    plain = check_settings(
        {
            **settings,
            "eval_prompts": prompts,
            "eval_box_jitter": box_jitter,
            "seed": seed,
            "zero_shot": zero_shot,
        },
        read_config(files),
    )
    overrides = {
        **plain,
        "network_def": run.pretrained.fork().eval(),
        "decoder": run.folder.decoder,
        "images": _existing(images),
        "labels": None if labels is None else _existing(labels),
        "cases": cases if cases is None or isinstance(cases, str) else list(cases),
        "evaluation_dir": out,
        "store": run.folder.store(),
        "progress": _shows_progress(progress),
    }
    run_bundle(files, overrides)
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    if report:
        from samonai.report.evaluation import write_evaluation_report

        write_evaluation_report(run, metrics, images, labels, out)
    return metrics


def predict(
    run: "Run | SamNetwork | str",
    input: Path | str,
    boxes: Boxes,
    out: Path | str,
    *,
    domain: str = "medical",
    series: str | None = None,
    ending: str = "",
    store: Path | str | None = None,
    checkpoint: Path | str | None = None,
    device: Any = None,
    progress: bool | None = None,
    **settings: Any,
) -> list[Path]:
    """Predict label maps for prompted boxes and write them on their sources' own grids.

    Args:
        run: The fine-tuned run; or a network or a model's name, as it is before fine-tuning.
        input: One source, or a folder of them.
        boxes: See `Run.predict`; for several sources a CSV file with a case column, or a folder
            with a file per case.
        out: Folder for the label maps, named after their cases.
        domain: The kind of data, where `run` is not a run.
        series: DICOM SeriesInstanceUID, where `input` holds several series.
        ending: ".nii.gz", ".nrrd" or ".mha"; empty: the input's own format.
        store: Embeddings are kept here, for the next time; None keeps none.
        checkpoint: The model's weights, where `run` is a model's name.
        device: Where to compute.
        progress: Show a bar; by default where standard error is a terminal.
        **settings: The bundle's other settings.

    Returns:
        The files written.

    Raises:
        InputError: Something that was given cannot be used.
    """
    files = config_files(run.domain if isinstance(run, Run) else domain, INFERENCE)
    plain = check_settings(settings, read_config(files))
    if isinstance(run, Run):
        network = {"network_def": run.pretrained.fork().eval(), "decoder": run.folder.decoder}
    else:
        network = _sam_overrides(run, checkpoint, None, device)
    input, out = _existing(input), Path(out).expanduser()
    before = _times(out)
    existed = out.is_dir()
    try:
        with tempfile.TemporaryDirectory(prefix="samonai-") as scratch:
            overrides = {
                **plain,
                **network,
                "input": input,
                "boxes": _boxes_file(boxes, Path(scratch)),
                "output_dir": out,
                "output_ending": ending,
                "series": series,
                "store": None if store is None else _location(store),
                "progress": _shows_progress(progress),
            }
            run_bundle(files, overrides, workflow_type="infer")
    except InputError:
        if not existed and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        raise
    return sorted(path for path, time in _times(out).items() if before.get(path) != time)


def _check_data(
    domain: str, settings: Mapping[str, Any], images: Path | str, labels: Path | str | None
) -> None:
    """Look for the cases before a model is loaded or even fetched."""
    channel = settings.get("channel")
    found = get_domain(domain, **({} if channel is None else {"channel": channel}))
    found.find_cases(_existing(images), labels)


def _sam_overrides(
    sam: "SamNetwork | str", checkpoint: Path | str | None, sha256: str | None, device: Any
) -> dict[str, Any]:
    """Return what tells a bundle which network to use."""
    if not isinstance(sam, str):
        return {"network_def": sam.fork().eval(), "device": sam.device}
    from samonai.sam.loading import choose_device

    if checkpoint is not None:
        checkpoint = Path(checkpoint).expanduser()
        if not checkpoint.is_file():
            raise InputError(f"checkpoint {checkpoint}: there is no such file")
    return {
        "model": sam,
        "checkpoint": checkpoint,
        "sha256": sha256,
        "device": choose_device(device),
    }


def _boxes_file(boxes: Boxes, scratch: Path) -> Path:
    """Return the file of boxes, written here when they were given as values."""
    if isinstance(boxes, Path | str):
        return Path(boxes).expanduser()
    content = boxes if isinstance(boxes, Mapping) else {"boxes": np.asarray(boxes).tolist()}
    path = scratch / "boxes.json"
    path.write_text(json.dumps(content, default=lambda value: np.asarray(value).tolist()))
    return path


def _network(sam: "SamNetwork | str") -> "SamNetwork | None":
    return None if isinstance(sam, str) else sam


def _existing(path: Path | str) -> Path:
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    return path


def _new_folder(path: Path | str) -> Path:
    path = Path(path).expanduser()
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give a folder")
    return path


def _location(store: Path | str) -> str:
    """Return a store's URL, or its folder as an absolute path."""
    text = str(store)
    return text if "://" in text else str(Path(text).expanduser().absolute())


def _times(folder: Path) -> dict[Path, int]:
    if not folder.is_dir():
        return {}
    return {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}


def _shows_progress(progress: bool | None) -> bool:
    return sys.stderr.isatty() if progress is None else progress
