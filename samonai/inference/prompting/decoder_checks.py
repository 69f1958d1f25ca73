"""Heads and classes that decoders were trained with, checked by their files' headers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from samonai.core.errors import InputError
from samonai.sam.decoder_metadata import read_decoder_metadata


def decoder_classes(decoders: Sequence[Path | str]) -> dict[str, str]:
    """Return the classes of the first decoder: label value as text, to name."""
    return read_decoder_metadata(decoders[0]).classes if decoders else {}


def class_by_name(name: str, classes: Mapping[int, str]) -> int:
    """Return the label value of a class.

    Args:
        name: The class's name; case matters only if it distinguishes two classes.
        classes: Label value to name.

    Raises:
        InputError: The class is unknown.
    """
    exact = [value for value, known in classes.items() if known == name]
    same = [value for value, known in classes.items() if known.casefold() == name.casefold()]
    found = exact or same
    if len(found) != 1:
        raise InputError(
            f"there is no class {name!r}; this run has {', '.join(classes.values()) or 'none'}"
        )
    return found[0]


def check_automatic(decoders: Sequence[Path | str], prompt: str | None = None) -> None:
    """Check that decoders segment without prompts.

    Args:
        decoders: The decoders' files.
        prompt: The requested class or query, for the message.

    Raises:
        InputError: There is no decoder, or one has no semantic head.
    """
    if not decoders and prompt is not None:
        raise InputError(
            f"prompt {prompt!r:.60}: a stock model knows no classes and no words; give a run that "
            f"was trained with --heads semantic or --heads both (--run), or boxes (--boxes)"
        )
    if not decoders:
        raise InputError(
            "no prompts given, and a stock model needs some: give --boxes, a --run trained with "
            "--heads semantic or --heads both, or --set automatic=grid, which uses a grid of points"
        )
    for path in decoders:
        if "semantic" not in read_decoder_metadata(path).heads:
            raise InputError(
                f"{path} has no semantic head, which is needed without prompts; give boxes, "
                f"train with --heads semantic or --heads both, or use --set automatic=grid"
            )


def check_prompted(decoders: Sequence[Path | str]) -> None:
    """Check that decoders use prompts.

    Raises:
        InputError: A decoder was trained for the semantic head alone.
    """
    for path in decoders:
        if "promptable" not in read_decoder_metadata(path).heads:
            raise InputError(
                f"{path} was trained with --heads semantic and cannot use prompts; "
                f"predict without prompts, or train with --heads both"
            )
