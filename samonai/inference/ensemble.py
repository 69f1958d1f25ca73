"""Several decoders on one encoder: which may be averaged, and how they are loaded."""

from collections.abc import Sequence
from pathlib import Path

from samonai.core.errors import InputError
from samonai.domains import domain_class
from samonai.sam.decoder_file import DecoderMetadata, load_decoder, read_decoder_metadata
from samonai.sam.network import SamNetwork


def ensemble_decoders(
    decoder: Path | str | None, members: Sequence[Path | str] | None = None
) -> list[Path]:
    """Return the files of all decoders that take part, the first one first; none without one."""
    return [] if decoder is None else [Path(path) for path in (decoder, *(members or ()))]


def check_members(decoders: Sequence[Path | str]) -> list[DecoderMetadata]:
    """Make sure that decoders see the same embeddings and mean the same classes.

    Args:
        decoders: The decoders' files.

    Returns:
        What each says of itself.

    Raises:
        InputError: One differs from the first in its encoder, its pixels or its classes.
    """
    found = [read_decoder_metadata(path) for path in decoders]
    # These say how a data set is stored, not what its pixels look like to the decoder.
    free = domain_class(found[0].domain).free_settings
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
        decoder: The first decoder's file, which is loaded into `network` itself, elsewhere.
        members: The others' files; None: there are none.

    Raises:
        InputError: They do not go together.
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
    """Name the members after their runs' folders; a name that is there twice gets a number."""
    names = [Path(path).absolute().parent.name for path in decoders]
    return [
        name if names.count(name) == 1 else f"{name}_{number}"
        for number, name in enumerate(names, start=1)
    ]


def temperatures(decoders: Sequence[Path | str]) -> list[float]:
    """Return the temperature that each decoder was calibrated to; 1 for those that were not."""
    found = (read_decoder_metadata(path).calibration for path in decoders)
    return [float(calibration.get("temperature", 1.0)) for calibration in found]
