"""Decoder file of a finished run: the best decoder as safetensors, with its metadata."""

import json
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from samonai.core.errors import InputError
from samonai.core.sealed import check_archive
from samonai.domains.base import Domain
from samonai.engine.processes import is_main_process
from samonai.prompts.sampling import PromptSampler
from samonai.sam.decoder_file import save_decoder
from samonai.sam.decoder_metadata import WINDOWS_ENTRY, DecoderMetadata
from samonai.sam.network import SamNetwork
from samonai.training.classifier import fit_object_classifier
from samonai.training.data.prepare import TrainingData
from samonai.training.handlers import BEST_FILE, HISTORY_JSON, LAST_FILE
from samonai.training.objectives.heads import trained_heads
from samonai.training.parameters import trainable_parameters
from samonai.version import __version__

logger = logging.getLogger(__name__)

DECODER_FILE = "decoder.safetensors"


def export_best(
    folder: Path | str,
    network: nn.Module,
    domain: Domain[Any],
    data: TrainingData,
    sampler: PromptSampler,
    provenance: Mapping[str, Any],
) -> Path:
    """Write the best epoch's decoder with its metadata, from the files of `RunCheckpoint`.

    Args:
        folder: The run's folder; `decoder.safetensors` is written there.
        network: The trained network; the best epoch's weights are loaded into it.
        domain: The run's domain.
        data: The run's data.
        sampler: The run's prompts.
        provenance: The run's other settings, as JSON values.

    Returns:
        The file that was written.
    """
    folder = Path(folder)
    path = folder / DECODER_FILE
    if not is_main_process():
        return path
    plain = cast(SamNetwork, getattr(network, "module", network))
    state, history = _best_and_history(folder)
    plain.load_state_dict(state)
    plain.object_classifier = fit_object_classifier(plain, domain, data)
    training = {**provenance, **data.provenance(), "prompts": sampler.settings()}
    training |= training.pop("initial", {})
    metadata = _metadata(plain, domain, data, training, history)
    save_decoder(plain, path, metadata)
    logger.info("wrote %s", path)
    return path


def _metadata(
    network: SamNetwork,
    domain: Domain[Any],
    data: TrainingData,
    training: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
) -> DecoderMetadata:
    """Return the metadata of the decoder file.

    Args:
        network: The network with the best epoch's weights.
        domain: The run's domain.
        data: The run's data.
        training: The run's settings, as JSON values.
        history: The rows of all epochs; the metrics are those of the best one.
    """
    validated = [row for row in history if row["val_dice"] is not None]
    best: Mapping[str, Any] = max(validated, key=lambda row: row["val_dice"], default={})
    return DecoderMetadata(
        model=network.name,
        encoder_sha256=network.stock_sha256,
        normalisation=network.normalisation.to_metadata(),
        domain=domain.name,
        domain_settings=domain.settings(),
        classes={str(value): name for value, name in data.classes.items()},
        training={
            **training,
            "epochs_done": len(history),
            "trainable_parameters": trainable_parameters(network),
            "encoder_changed": bool(network.tuned_names),
            **({} if network.windows is None else {WINDOWS_ENTRY: network.windows.to_metadata()}),
            "versions": {
                "samonai": __version__,
                **{name: version(name) for name in ("monai", "torch", "segment-anything")},
            },
        },
        metrics={
            "val_dice": best.get("val_dice"),
            "epoch": best.get("epoch"),
            **{name: value for name, value in best.items() if name.startswith("val_dice_")},
            **data.validation_sample(),
        },
        heads=trained_heads(data.heads),
    )


def _best_and_history(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Read the best epoch's state, and the rows of all epochs.

    Raises:
        InputError: A file is missing or damaged, as in a half-deleted run folder.
    """
    try:
        check_archive(folder / BEST_FILE)
        state = torch.load(folder / BEST_FILE, map_location="cpu", weights_only=True)
        history = json.loads((folder / HISTORY_JSON).read_text(encoding="utf-8"))
        if (folder / LAST_FILE).exists():
            # The same rows, under a checksum.
            check_archive(folder / LAST_FILE)
            last = torch.load(folder / LAST_FILE, map_location="cpu", weights_only=True)
            history = last["history"]
        return state, history
    except Exception as error:
        raise InputError(
            f"{folder}: {BEST_FILE} or {HISTORY_JSON} is missing or damaged "
            f"({type(error).__name__}); start over with --overwrite"
        ) from error
