"""Argument checks of jobs that need neither the data nor a library of computation.

The command line makes them first: a mistyped path, model, device, class or setting is answered
before torch is imported. The jobs make the same checks again, where they use the arguments.
"""

from collections.abc import Sequence
from pathlib import Path

from samonai.core.errors import InputError
from samonai.domains import get_domain
from samonai.domains.capabilities import CLASSES, capabilities
from samonai.inference.prompting.decoder_checks import (
    check_automatic,
    check_prompted,
    class_by_name,
    decoder_classes,
)
from samonai.prompts.values import prompt_content
from samonai.sam.checkpoints import check_sha256, find_checkpoint
from samonai.sam.decoder_metadata import read_decoder_metadata
from samonai.sam.device_names import check_device_name
from samonai.workflows.bundle_files import INFERENCE, config_files, read_config
from samonai.workflows.inputs import check_prompt, existing, existing_checkpoint
from samonai.workflows.trained_run import TrainedRun, opened_runs


def check_model(
    model: str,
    checkpoint: Path | None = None,
    sha256: str | None = None,
    device: str | None = None,
) -> None:
    """Check the name of a model, the path of its weights, their hash, and the device's name.

    Raises:
        InputError: One of them is unknown, missing or malformed.
    """
    find_checkpoint(model)
    _check_common(checkpoint, device)
    if sha256 is not None:
        check_sha256(sha256)


def check_runs(
    runs: Sequence[Path] | Path,
    domain: str,
    checkpoint: Path | None = None,
    device: str | None = None,
) -> list[Path]:
    """Check the folders of finished runs on one kind of data, and the headers of their decoders.

    Returns:
        The decoders' files.

    Raises:
        InputError: A folder is not a run's, a run is unfinished, damaged or of another kind of
            data; or the path of the weights or the device's name is wrong.
    """
    _check_common(checkpoint, device)
    folders = [runs] if isinstance(runs, Path) else list(runs)
    opened = [run for folder in folders for run in opened_runs(TrainedRun, folder, domain=domain)]
    decoders = [run.folder.decoder for run in opened]
    for decoder in decoders:
        read_decoder_metadata(decoder)
    return decoders


def check_initial_run(run: Path, domain: str, model: str) -> Path:
    """Return the decoder's file of a run that another training begins with.

    Args:
        run: The run's folder.
        domain: The kind of data of the training that begins.
        model: The name of its model.

    Raises:
        InputError: See `check_runs`; or the folder holds several runs, or one of another model.
    """
    decoders = check_runs(run, domain)
    if len(decoders) > 1:
        raise InputError(
            f"{run} holds {len(decoders)} runs; name one of them to begin from, such as "
            f"{decoders[0].parent}"
        )
    trained = read_decoder_metadata(decoders[0]).model
    if trained != model:
        raise InputError(
            f"{decoders[0]} was trained on {trained}, and this training is of {model}; give "
            f"--model {trained}"
        )
    return decoders[0]


def check_data(images: Path | str, labels: Path | None = None) -> None:
    """Check that the paths of images and labels exist.

    Raises:
        InputError: A path does not exist.
    """
    check_source(images, "images")
    if labels is not None:
        existing(labels, "labels")


def check_source(source: Path | str, what: str = "the input") -> None:
    """Check that a source's path exists; a URL or a GDAL path is left to the domain.

    Raises:
        InputError: The path does not exist.
    """
    if ":" not in str(source) and not str(source).startswith("/vsi"):
        existing(source, what)


def check_prompts(
    domain: str,
    boxes: Path | None,
    prompt: str | None,
    decoders: Sequence[Path],
    *,
    automatic: str | None,
    settings_name_classes: bool = False,
) -> None:
    """Check the prompts of a prediction against its decoders.

    Args:
        domain: The kind of data.
        boxes: File or folder of prompts.
        prompt: Name of a class, or a query.
        decoders: The decoders' files; none for a stock model.
        automatic: Way of finding objects without prompts; None: the bundle's, which may be the
            domain's choice.
        settings_name_classes: Whether settings give structures label values of their own.

    Raises:
        InputError: The file does not exist or is malformed, the class is unknown, or the decoders
            were not trained for such prompts.
    """
    check_prompt(prompt)
    if boxes is not None:
        boxes = existing(boxes, "boxes")
        if boxes.suffix.lower() == ".json" and boxes.is_file():
            prompt_content(boxes)
        check_prompted(decoders)
        checks = capabilities(get_domain(domain)).prompt_checks
        if checks is not None and boxes.is_file() and not settings_name_classes:
            classes = {int(value): name for value, name in decoder_classes(decoders).items()}
            checks.check_prompts(boxes, classes)
        return
    found = automatic or read_config(config_files(domain, INFERENCE))["automatic"]
    # Without a run there is no domain's own way either.
    if (found or (None if decoders else CLASSES)) == CLASSES:
        check_automatic(decoders, prompt)
        if prompt is not None:
            classes = {int(value): name for value, name in decoder_classes(decoders).items()}
            class_by_name(prompt, classes)


def _check_common(checkpoint: Path | None, device: str | None) -> None:
    existing_checkpoint(checkpoint)
    if device is not None:
        check_device_name(device)
