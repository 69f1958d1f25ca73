"""Training and embedding in Python; the command line calls the same functions.

Each runs a bundle's configuration with overrides, so that there is one implementation.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samonai.core.files import as_path, no_empty_folders, sha256_file, write_atomically
from samonai.domains import DEFAULT_DOMAIN
from samonai.domains.base import Case, Domain
from samonai.embeddings.counting import FrameCounts
from samonai.settings import block
from samonai.version import __version__
from samonai.workflows.bundle_engine import one_line_errors, quiet_third_parties, run_bundle
from samonai.workflows.bundle_files import TRAIN, config_files, read_config
from samonai.workflows.inputs import (
    data_paths,
    load_network,
    model_name,
    network_overrides,
    shows_progress,
    store_location,
)
from samonai.workflows.run import Run
from samonai.workflows.run_data import check_data, write_data
from samonai.workflows.run_folder import (
    CURVE_FILE,
    DECODER_FILE,
    HISTORY_FILE,
    SPLIT_FILE,
    STORE_FOLDER,
    RunFolder,
    file_fingerprint,
    path_fingerprint,
)
from samonai.workflows.run_record import write_run_record
from samonai.workflows.settings import (
    check_settings,
    domain_of,
    plain_settings,
    recorded_settings,
)

if TYPE_CHECKING:
    from samonai.embeddings import EncodeReport
    from samonai.sam.network import SamNetwork

logger = logging.getLogger(__name__)


def finetune(
    sam: "SamNetwork | str",
    images: Path | str,
    labels: Path | str | None = None,
    *,
    domain: str = DEFAULT_DOMAIN,
    out: Path | str,
    heads: str | None = None,
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
    found_cases: Sequence[Case] | None = None,
    **settings: Any,
) -> "Run":
    """Train the mask decoder on a folder of images and labels.

    The same call on the same `out` resumes, and ends with the weights of
    an uninterrupted run.

    Args:
        sam: A network from `load_sam`, whose own weights do not change; or a model's name.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that has them.
        domain: The kind of data, which is the bundle's name.
        out: The run's folder.
        heads: "promptable" (boxes and clicks, the default), "semantic" (labels all pixels
            without a prompt) or "both".
        epochs: Largest number of epochs; early stopping may end training before.
        split: `{"train": [case, …], "val": [case, …]}`, or the JSON file that holds it; or a file
            of folds (nnU-Net's splits_final.json, a MONAI data list), `FILE#N` for fold N. None:
            the validation section or first fold of a data list is held out, else a share.
        val_fraction: Share of the cases to hold out, without a split or such a list.
        seed: Seed of all random choices.
        checkpoint: The model's weights, if `sam` is a name and they are not the published ones.
        sha256: Their expected hash.
        store: Embedding store; by default in the run's folder.
        device: Device of computation; by default a GPU if there is one.
        overwrite: Start over if `out` holds a run already.
        progress: Show a bar; by default if standard error is a terminal.
        found_cases: The cases of `images` and `labels`, if they were listed already.
        **settings: The bundle's other settings; `samonai bundle show` lists them.

    Returns:
        The finished run.

    Raises:
        InputError: An argument cannot be used; the message gives the argument and the reason.
    """
    files = config_files(domain, TRAIN)
    config = read_config(files)
    images, labels = data_paths(images, labels)
    plain = {
        **settings,
        "epochs": epochs,
        "val_fraction": val_fraction,
        "seed": seed,
        "model": model_name(sam),
        **({} if heads is None else {"heads": heads}),
    }
    chosen = check_settings(plain, config)
    initial = _initial_decoder(chosen.get("initial_decoder"), domain, plain["model"])
    # Before a model is loaded, or even downloaded.
    found = found_cases or domain_of(domain, config, chosen).find_cases(images, labels)
    split, rule = _checked_split(split, found)
    folder = RunFolder(out)
    record = {
        **_record(domain, {**plain_settings(config), **chosen}, sam, checkpoint, initial),
        "images": path_fingerprint(images),
        "labels": path_fingerprint(labels),
        "split": dict(split) if isinstance(split, Mapping) else file_fingerprint(split),
        "store": None if store is None else store_location(store),
    }
    with (
        one_line_errors(),
        no_empty_folders(folder.path, record["store"]),
        folder.locked(record, overwrite=overwrite) as unfinished,
    ):
        overrides = {
            **chosen,
            **network_overrides(sam, checkpoint, sha256, device),
            **({} if initial is None else {"initial_decoder": initial}),
            "images": images,
            "labels": labels,
            # A bundle of the user's own may list them itself.
            **({"found_cases": list(found)} if "found_cases" in config else {}),
            "split": _split_file(split, rule, folder.path),
            "output_dir": folder.path,
            "store": folder.path / STORE_FOLDER if store is None else store_location(store),
            "progress": shows_progress(progress, lines=True),
        }
        counts = FrameCounts()
        if unfinished:
            write_data(folder.path, found)
            counts.add(run_bundle(files, overrides, part="data").encoded)
        else:
            check_data(folder.path, found)
            logger.info("%s is complete; nothing is left to train", folder.path)
        if unfinished or not (folder.path / CURVE_FILE).exists():
            _draw_history(folder.path)
    run = Run(folder.path, sam=None if isinstance(sam, str) else sam, device=device)
    run.frames = counts
    if unfinished and folder.is_complete:
        write_run_record(
            folder.path,
            record,
            plain_settings(config),
            run.metadata.training,
            overrides.get("device", "cpu"),
        )
    return run


def embed(
    sam: "SamNetwork | str",
    images: Path | str,
    labels: Path | str | None = None,
    *,
    store: Path | str,
    domain: str = DEFAULT_DOMAIN,
    checkpoint: Path | str | None = None,
    sha256: str | None = None,
    device: Any = None,
    dtype: str | None = None,
    **settings: Any,
) -> "EncodeReport":
    """Encode a data set into a store, as training and evaluation do with missing frames.

    Args:
        sam: A network, or a model's name.
        images: Folder of images, or a data list file.
        labels: Folder of labels, for frames with objects only; None: all frames.
        store: A folder, or a URL that fsspec supports.
        domain: The kind of data.
        checkpoint: The model's weights, if `sam` is a name and they are not the published ones.
        sha256: Their expected hash.
        device: Device of computation.
        dtype: Number format of a new store: "float16", or "int8" in half the bytes.
        **settings: The bundle's other settings.

    Returns:
        The report of encoded, reused and skipped frames.

    Raises:
        InputError: An argument cannot be used.
    """
    with no_empty_folders(store_location(store)):
        reader, encode = embedder(sam, store, domain, checkpoint, sha256, device, dtype, **settings)
        cases = reader.find_cases(*data_paths(images, labels))
        reader.fit(cases)
        return encode(reader, cases, True)


def embedder(
    sam: "SamNetwork | str",
    store: Path | str,
    domain: str = DEFAULT_DOMAIN,
    checkpoint: Path | str | None = None,
    sha256: str | None = None,
    device: Any = None,
    dtype: str | None = None,
    **settings: Any,
) -> "tuple[Domain[Any], Callable[[Domain[Any], Sequence[Case], bool], EncodeReport]]":
    """Return the domain and the function that encodes its cases: domain, cases, show a bar.

    Args:
        sam: As for `embed`, like the rest.
        store: Likewise.
        domain: Likewise.
        checkpoint: Likewise.
        sha256: Likewise.
        device: Likewise.
        dtype: Likewise.
        **settings: Likewise.
    """
    config = read_config(config_files(domain, TRAIN))
    chosen = {**plain_settings(config), **check_settings(settings, config)}
    with one_line_errors(), quiet_third_parties():
        network = load_network(sam, checkpoint, sha256, device)
    from samonai.embeddings import EmbeddingStore, encode_views, summed

    with one_line_errors(), quiet_third_parties():
        options = _encode_options(chosen)
        opened = EmbeddingStore(store_location(store), dtype=dtype)

    def encode(reader: Domain[Any], cases: Sequence[Case], progress: bool) -> "EncodeReport":
        frames = "all" if any(case.label is None for case in cases) else "labelled"
        with one_line_errors(), quiet_third_parties():
            return summed(
                encode_views(
                    network, reader, cases, opened, frames=frames, progress=progress, **options
                )
            )

    return domain_of(domain, config, chosen), encode


def reader_of(domain: str = DEFAULT_DOMAIN, **settings: Any) -> "Domain[Any]":
    """Build the domain that reads a data set with a bundle's settings; no file is written."""
    config = read_config(config_files(domain, TRAIN))
    return domain_of(domain, config, {**plain_settings(config), **check_settings(settings, config)})


def _encode_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `encode_views` that training with these settings would use."""
    from samonai.embeddings import Augmentation
    from samonai.settings.choices import PROMPTABLE
    from samonai.training.data.propagated import frames_beside

    heads = settings.get("heads", PROMPTABLE)
    return {
        "augmentation": Augmentation(**block(settings, "augmentation")),
        "views": settings.get("views", 1),
        "precision": settings["precision"],
        "empty_frames": 0.0 if heads == PROMPTABLE else float(settings["empty_frames"]),
        "beside": frames_beside(settings.get("sampler.carried_probability", 0.0), heads),
        "min_area": settings["min_area"],
        "components": settings["components"],
    }


def _checked_split(
    split: Path | str | Mapping[str, Sequence[str]] | None, cases: Sequence[Case]
) -> tuple[Path | dict[str, list[str]] | None, str]:
    """Return a split's file, if it holds one split; else the split, and its rule.

    A run's folder may keep the split, whose case ids are not patients' names.

    Raises:
        InputError: The argument is neither a file nor a split, or not of these cases.
    """
    from samonai.training.data.split_files import is_one_split, named_split, read_split

    if split is None:
        return None, ""
    if isinstance(split, Mapping):
        return named_split(split, [case.case_id for case in cases], "the split"), ""
    path = as_path(split, "split")
    return (path, "") if is_one_split(path, cases) else read_split(path, cases)


def _split_file(
    split: Path | Mapping[str, Sequence[str]] | None, rule: str, folder: Path
) -> Path | None:
    """Return the split's file; a split without one is written into the run's folder."""
    if not isinstance(split, Mapping):
        return split
    from samonai.training.data.split_files import RULE

    path = folder / SPLIT_FILE
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps({**split, RULE: rule or "as the split says"}))
    return path


def _record(
    domain: str,
    settings: Mapping[str, Any],
    sam: "SamNetwork | str",
    checkpoint: Path | str | None,
    initial: Path | None,
) -> dict[str, Any]:
    """Return the record of a run's settings, model and initial decoder for its folder."""
    return {
        "samonai": __version__,
        "domain": domain,
        "settings": recorded_settings(settings),
        "checkpoint": None
        if checkpoint is None
        else str(as_path(checkpoint, "checkpoint").absolute()),
        "encoder_sha256": None if isinstance(sam, str) else sam.encoder_sha256,
        **({} if initial is None else {"initial_decoder_sha256": sha256_file(initial)}),
    }


def _initial_decoder(path: Path | str | None, domain: str, model: str) -> Path | None:
    """Return the decoder's file of the run that training begins with, checked; None: none."""
    if path is None:
        return None
    from samonai.workflows.arguments import check_initial_run

    run = as_path(path, "initial_decoder")
    return check_initial_run(run.parent if run.name == DECODER_FILE else run, domain, model)


def _draw_history(folder: Path) -> None:
    from samonai.report.plots import learning_curve

    learning_curve(folder / HISTORY_FILE, folder / CURVE_FILE)
