"""Demo on phantom patients: training, evaluation and prediction, with an HTML page of results."""

import itertools
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from samonai.core.errors import InputError
from samonai.core.files import output_folder, write_atomically
from samonai.core.pseudonyms import pseudonym
from samonai.core.settings import check_given
from samonai.domains import get_domain
from samonai.domains.base import Case
from samonai.domains.medical.phantom.cases import Phantoms, write_phantoms
from samonai.report.evaluation import draw_case
from samonai.report.html import write_report
from samonai.settings.training import OptimisationSettings
from samonai.workflows.run import Run, evaluate
from samonai.workflows.run_folder import CURVE_FILE, SETTINGS_FILE
from samonai.workflows.train import finetune

logger = logging.getLogger(__name__)

PATIENTS = 6
SHAPE = (96, 96, 12)
EPOCHS = 5
LEARNING_RATE = 1e-3

_TRAINED, _CHOOSING = 3, 1
_SLICES_PER_BOX = 2
_SMALLEST_BOX_VOXELS = 12
_NEIGHBOURS = np.ones((3, 3, 3))
_MARK = "demo.json"


_NEXT = (
    "samonai checkpoints download vit_b fetches a model for real work; micro is for demonstrations."
    "\n\nsamonai train medical --model vit_b --images imagesTr --labels labelsTr --out runs/first "
    "trains on a folder of scans (NIfTI, NRRD, MetaImage, folders of DICOM, or pictures) and their "
    "label maps of the same names."
    "\n\nsamonai evaluate medical --run runs/first --images imagesTs --labels labelsTs --out test "
    "measures it, and samonai predict medical --run runs/first --input scan.nii.gz --boxes "
    "boxes.json --out masks segments a scan: boxes in voxels or mm, markups of 3D Slicer, SR, "
    "or an export of an annotation tool."
)


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo.

    Attributes:
        page: The HTML page.
        metrics: Content of `metrics.json`.
        masks: The predicted label maps.
    """

    page: Path
    metrics: dict[str, Any]
    masks: tuple[Path, ...]


def run_demo(
    out: Path | str,
    *,
    seed: int = 0,
    patients: int = PATIENTS,
    shape: tuple[int, int, int] = SHAPE,
    epochs: int = EPOCHS,
    say: Callable[[str], None] = logger.info,
) -> DemoResult:
    """Train, evaluate and predict on phantom patients with the embedded model; works offline.

    Three patients are for training, one chooses the best epoch, the others and a DICOM series are
    only measured and predicted. An interrupted demo resumes.

    Args:
        out: The folder for `data/`, `run/`, `evaluation/`, `boxes/`, `masks/`, `overlays/`,
            `metrics.json`, `metrics.csv`, `learning_curve.png` and `index.html`.
        seed: Seed of the patients and of the run.
        patients: Number of patients beside the DICOM series; at least 5.
        shape: Voxels of each scan along (i, j, k).
        epochs: Number of epochs.
        say: Function called with each step's description.

    Raises:
        InputError: `out` cannot be written to, or holds other files than a demo; the seed is
            below 0, or there are too few patients.
    """
    started = time.monotonic()
    check_given(OptimisationSettings, {"seed": seed})
    out = output_folder(out).absolute()
    if patients <= _TRAINED + _CHOOSING:
        raise InputError(f"the demo needs at least {_TRAINED + _CHOOSING + 1} patients")
    _claim(out, seed)
    say(f"1/4 generating {patients} patients and a DICOM series in {out / 'data'}")
    phantoms = write_phantoms(out / "data", patients=patients, seed=seed, shape=shape)
    names = [f"phantom_{number:03d}" for number in range(1, patients + 1)]
    seen, unseen = names[: _TRAINED + _CHOOSING], names[_TRAINED + _CHOOSING :]
    split = {"train": seen[:_TRAINED], "val": seen[_TRAINED:]}
    say(f"2/4 training on {_TRAINED} patients, {epochs} epochs; each slice is encoded once")
    run = finetune(
        "micro",
        phantoms.images,
        phantoms.labels,
        out=out / "run",
        split=split,
        epochs=epochs,
        seed=seed,
        overwrite=_was_another(out / "run", seed, epochs),
        window="soft_tissue",
        learning_rate=LEARNING_RATE,
    )
    say(f"3/4 evaluating on {len(unseen)} held-out patients")
    metrics = evaluate(
        run, phantoms.images, phantoms.labels, out / "evaluation", cases=unseen, seed=seed
    )
    say("4/4 predicting one of them, and the DICOM series, from a box every other slice")
    masks, pictures = _predict(run, phantoms, unseen[0], out)
    page = _write_page(out, metrics, pictures, split, unseen, time.monotonic() - started)
    return DemoResult(page, metrics, tuple(masks))


def structure_boxes(
    label: npt.NDArray[np.integer],
    names: Mapping[int, str],
    thickness: int = _SLICES_PER_BOX,
    smallest: int = _SMALLEST_BOX_VOXELS,
) -> dict[str, Any]:
    """Return boxes around each part of each structure, as a user would draw them.

    Args:
        label: Integer (I, J, K), class per voxel.
        names: Label value to name.
        thickness: A box is drawn anew after so many slices.
        smallest: Parts of fewer voxels get no box.

    Returns:
        Content of a JSON file of boxes: `boxes` in voxel indices, upper ends exclusive, `classes`.
    """
    boxes, classes = [], []
    for value, start in itertools.product(names, range(0, label.shape[2], thickness)):
        parts, _ = ndimage.label(label[:, :, start : start + thickness] == value, _NEIGHBOURS)
        sizes = np.bincount(parts.ravel())
        for number, (i, j, k) in enumerate(ndimage.find_objects(parts), start=1):
            if sizes[number] >= smallest:
                boxes.append([i.start, j.start, start + k.start, i.stop, j.stop, start + k.stop])
                classes.append(value)
    return {"boxes": boxes, "classes": classes}


def _predict(
    run: Run, phantoms: Phantoms, unseen: str, out: Path
) -> tuple[list[Path], list[tuple[str, Path]]]:
    """Predict a NIfTI volume and the DICOM series; return the label maps and their pictures."""
    assert phantoms.series is not None
    assert phantoms.series_label is not None
    domain = get_domain(run.metadata.domain, **run.metadata.domain_settings)
    volume, label = (folder / f"{unseen}.nii.gz" for folder in (phantoms.images, phantoms.labels))
    masks, pictures = [], []
    for case, kind in (
        (Case(unseen, volume, label), "NIfTI"),
        (Case(pseudonym(phantoms.series.name), phantoms.series, phantoms.series_label), "DICOM"),
    ):
        source = domain.read(case)
        boxes = out / "boxes" / f"{case.case_id}.json"
        with write_atomically(boxes) as temporary:
            temporary.write_text(json.dumps(structure_boxes(source.label, phantoms.classes)) + "\n")
        predicted = run.predict(case.image, boxes, out=out / "masks")
        masks += sorted((out / "masks").glob(f"{case.case_id}.*"))
        picture = draw_case(
            domain,
            source,
            {"predicted": predicted},
            out / "overlays" / f"{case.case_id}.png",
            phantoms.classes,
        )
        pictures.append(
            (f"{case.case_id} ({kind}), predicted from a box every other slice", picture)
        )
    return masks, pictures


def _write_page(
    out: Path,
    metrics: dict[str, Any],
    pictures: list[tuple[str, Path]],
    split: Mapping[str, list[str]],
    unseen: list[str],
    seconds: float,
) -> Path:
    """Write the HTML page and its pictures.

    Args:
        out: The demo's folder, with the run and its evaluation.
        metrics: Content of the evaluation's `metrics.json`.
        pictures: Captions and files of the predictions.
        split: The patients for training and for choosing the best epoch.
        unseen: The measured patients.
        seconds: Run time of the demo.
    """
    for name in ("metrics.json", "metrics.csv"):
        _copy(out / "evaluation" / name, out / name)
    curve = _copy(out / "run" / CURVE_FILE, out / CURVE_FILE)
    return write_report(
        out,
        title="samonai demo: phantom abdomens",
        metrics=metrics,
        pictures=[
            ("Learning curve: loss on the patients trained on, Dice on the one held out", curve),
            *_evaluated(out, unseen),
            *pictures,
        ],
        facts={
            "model": "micro, embedded in the package",
            "trained on": ", ".join(split["train"]),
            "best epoch chosen on": ", ".join(split["val"]),
            "measured on": ", ".join(unseen),
            "prompts of the table": "a box per slice and organ, each side moved by up to 5 %",
            "run time": f"{seconds:.0f} s",
        },
        texts=[("With your own data", _NEXT)],
    )


def _evaluated(out: Path, cases: list[str]) -> list[tuple[str, Path]]:
    """Return the evaluation's pictures with captions."""
    drawn = [(case, out / "evaluation" / "pictures" / f"{case}.png") for case in cases]
    return [
        (f"{case}, boxes per slice; the white line is the truth", path)
        for case, path in drawn
        if path.is_file()
    ]


def _claim(out: Path, seed: int) -> None:
    """Mark a folder as a demo's, so that the next demo resumes in it and in no other.

    Raises:
        InputError: The folder holds other files.
    """
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    others = [name for name in found if not name.startswith(".")]
    if others and _MARK not in others:
        raise InputError(
            f"{out} holds other things than a demo (such as {others[0]}); choose an empty or a new "
            f"folder"
        )
    with write_atomically(out / _MARK) as temporary:
        temporary.write_text(json.dumps({"seed": seed}) + "\n")


def _was_another(folder: Path, seed: int, epochs: int) -> bool:
    """Return whether an earlier demo with other settings left a run here."""
    try:
        settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["settings"]
        return bool((settings["seed"], settings["epochs"]) != (seed, epochs))
    except (OSError, ValueError, KeyError):
        return False


def _copy(source: Path, target: Path) -> Path:
    with write_atomically(target) as temporary:
        temporary.write_bytes(source.read_bytes())
    return target
