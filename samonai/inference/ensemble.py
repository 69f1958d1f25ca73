"""Ensembles: checks that decoders can be averaged, loading, names and temperatures."""

from collections.abc import Sequence
from pathlib import Path

from samonai.core.errors import InputError
from samonai.domains import domain_class
from samonai.sam.decoder_file import load_decoder
from samonai.sam.decoder_metadata import DecoderMetadata, read_decoder_metadata
from samonai.sam.network import SamNetwork


def ensemble_decoders(
    decoder: Path | str | None, members: Sequence[Path | str] | None = None
) -> list[Path]:
    """Return the files of all decoders, the first one first; empty without one."""
    return [] if decoder is None else [Path(path) for path in (decoder, *(members or ()))]


def check_members(decoders: Sequence[Path | str]) -> list[DecoderMetadata]:
    """Check that decoders share embeddings and classes.

    Args:
        decoders: The decoders' files.

    Returns:
        The metadata of each.

    Raises:
        InputError: A decoder differs from the first in its encoder, its pixels or its classes.
    """
    found = [read_decoder_metadata(path) for path in decoders]
    # These describe the storage of a data set, not the pixels that the decoder sees.
    free = domain_class(found[0].domain).non_pixel_settings
    for path, metadata in zip(decoders[1:], found[1:], strict=True):
        first = found[0]
        differing = [
            name
            for name in ("model", "encoder_sha256", "normalisation", "domain", "classes")
            if getattr(metadata, name) != getattr(first, name)
        ]
        if metadata.tunes_encoder or first.tunes_encoder:
            differing.append("encoder, which one of them trained")
        keys = sorted(first.domain_settings.keys() | metadata.domain_settings.keys())
        differing += [
            key
            for key in keys
            if key not in free
            and first.domain_settings.get(key) != metadata.domain_settings.get(key)
        ]
        if differing:
            raise InputError(
                f"{path} cannot be averaged with {decoders[0]}: they differ in "
                f"{', '.join(differing)}; an ensemble needs runs on one encoder, with the same "
                f"classes and settings of the images"
            )
    return found


def load_members(
    network: SamNetwork, decoder: Path | str | None, members: Sequence[Path | str] | None
) -> list[SamNetwork]:
    """Load the further decoders of an ensemble, each into a fork of the network.

    Args:
        network: Has the encoder of all.
        decoder: The first decoder's file, which the caller loads into `network` itself.
        members: The others' files; None: no others.

    Raises:
        InputError: The decoders cannot be averaged.
    """
    if not members:
        return []
    check_members(ensemble_decoders(decoder, members))
    forks = []
    for path in members:
        forks.append(network.fork().eval())
        load_decoder(forks[-1], path)
    return forks


def member_names(decoders: Sequence[Path | str]) -> list[str]:
    """Return the members' names, those of their runs' folders; repeated names get a number."""
    names = [Path(path).absolute().parent.name for path in decoders]
    return [
        name if names.count(name) == 1 else f"{name}_{number}"
        for number, name in enumerate(names, start=1)
    ]


def temperatures(decoders: Sequence[Path | str]) -> list[float]:
    """Return the calibrated temperature of each decoder; 1 without calibration."""
    found = (read_decoder_metadata(path).calibration for path in decoders)
    return [float(calibration.get("temperature", 1.0)) for calibration in found]
