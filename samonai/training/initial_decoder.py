"""Training that begins with the decoder of an earlier run (warm start)."""

import logging
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import sha256_file
from samonai.sam.decoder_file import load_decoder
from samonai.sam.decoder_metadata import read_decoder_metadata, trained_cases
from samonai.sam.network import SamNetwork
from samonai.sam.normalisation import Normalisation
from samonai.training.data.prepare import TrainingData

logger = logging.getLogger(__name__)


def with_initial_decoder(network: SamNetwork, initial_decoder: Path | str | None) -> SamNetwork:
    """Load the decoder of an earlier run into a network that is about to be trained.

    Args:
        network: The network, as its checkpoint has it.
        initial_decoder: The decoder's file; None: the network stays as it is.

    Returns:
        The same network.

    Raises:
        InputError: The decoder was trained on another encoder, changed the encoder, or expects
            another normalisation of pixels.
    """
    if initial_decoder is None:
        return network
    metadata = read_decoder_metadata(initial_decoder)
    if metadata.encoder_sha256 != network.stock_sha256:
        raise InputError(
            f"{initial_decoder} was trained on another encoder ({metadata.model}, sha256 "
            f"{metadata.encoder_sha256[:16]}…) than this {network.name}; train with its model and "
            f"checkpoint"
        )
    if metadata.tunes_encoder:
        raise InputError(
            f"{initial_decoder} changed the encoder too, so stored embeddings do not fit; training "
            f"begins with runs whose encoder stayed frozen"
        )
    if Normalisation.from_metadata(metadata.normalisation) != network.normalisation:
        raise InputError(f"{initial_decoder} was trained with another normalisation of pixels")
    load_decoder(network, initial_decoder)
    return network


def initial_facts(initial_decoder: Path | str | None, data: TrainingData) -> dict[str, Any]:
    """Return the record of an initial decoder: its hash, and the cases that it was trained on.

    The cases count as trained on in every later evaluation. Held-out cases among them are logged,
    since early stopping and the validation Dice then rest on cases that were seen.

    Args:
        initial_decoder: The decoder's file; None gives no record.
        data: The data of the training that begins.
    """
    if initial_decoder is None:
        return {}
    cases = sorted(trained_cases(read_decoder_metadata(initial_decoder).training))
    held_out = [case.case_id for case in data.split.val]
    if seen := sorted(set(cases).intersection(held_out)):
        logger.warning(
            "%d of the %d held-out cases were trained on by %s, such as %s; hold out others to "
            "measure on unseen ones",
            len(seen), len(held_out), initial_decoder, seen[0],
        )  # fmt: skip
    return {"initial_decoder_sha256": sha256_file(Path(initial_decoder)), "earlier_cases": cases}
