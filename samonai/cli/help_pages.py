"""Help of the verbs: everyday options in panels on one screen, and all of them by `--help-all`."""

from collections.abc import Iterator
from typing import Any

import typer

_PANELS: dict[str, tuple[str, ...]] = {
    "Inputs": ("images", "labels", "source", "items", "split", "val_fraction", "cases", "groups"),
    "Prompts": ("boxes", "prompt", "prompts", "propagate", "planes", "box_jitter"),
    "Outputs": (
        *("out", "format_", "ending", "measure", "uncertainty", "report", "overwrite", "store"),
        "evaluation",
    ),
    "Model": ("run", "model", "checkpoint", "sha256", "heads", "epochs", "parts", "from_", "folds"),
    "DICOM": ("series", "allow_gaps", "case_map", "send", "dicomweb"),
    "Archives": ("archive", "readers", "limit", "dry_run", "retry_failed", "part"),
}
_OTHERS = "Advanced"
_EVERYDAY = frozenset(
    {
        *("images", "labels", "source", "split", "boxes", "prompt", "prompts"),
        *("out", "format_", "run", "model", "heads", "epochs", "port"),
    }
)
_LEAST = 12
"""Least characters of a first sentence."""

_MANY = 5
"""More options than this are divided into everyday ones and the rest."""


def arranged(command: Any) -> Any:
    """Return a command whose verbs with many options show the everyday ones first.

    Args:
        command: The command line, as typer makes it.
    """
    for verb in getattr(command, "commands", {}).values():
        options = [one for one in verb.params if _is_option(one)]
        for option in options:
            option.rich_help_panel = _panel(str(option.name))
        if len(options) > _MANY:
            _shorten(verb, options)
    return command


def _shorten(verb: Any, options: list[Any]) -> None:
    """Hide the rarely used options of a verb, and give it `--help-all`."""
    full = verb.help, verb.epilog, {one.name: (one.hidden, one.help) for one in options}
    for one in options:
        one.hidden = one.name not in _EVERYDAY
        one.help = _first_sentence(one.help or "")
    verb.epilog = (verb.epilog or "").partition(", where ")[0]
    paragraphs = (verb.help or "").split("\n\n")
    rest = sum(one.hidden for one in options)
    verb.help = f"{paragraphs[0]}\n\n`samonai {verb.name} --help-all` has {rest} more options."

    def show_all(context: Any, option: Any, wanted: bool) -> None:
        if not wanted or context.resilient_parsing:
            return
        verb.help, verb.epilog = full[:2]
        for one in options:
            one.hidden, one.help = full[2][one.name]
        typer.echo(context.get_help())
        context.exit()

    verb.params.append(
        type(options[0])(
            param_decls=["--help-all"],
            type=bool,
            is_flag=True,
            is_eager=True,
            expose_value=False,
            hidden=True,
            callback=show_all,
            help="Show all options.",
        )
    )


def _is_option(parameter: Any) -> bool:
    # Some versions of typer bundle a click of their own.
    return getattr(parameter, "param_type_name", "") == "option"


def _panel(name: str) -> str:
    return next((panel for panel, names in _PANELS.items() if name in names), _OTHERS)


def _first_sentence(text: str) -> str:
    """Return a text up to the end of its first sentence or clause."""
    for end in _ends(text):
        return text[:end].rstrip(" ,;:.") + "."
    return text


def _ends(text: str) -> Iterator[int]:
    found = [place for mark in (". ", "; ", " (") if (place := text.find(mark)) > _LEAST]
    yield from sorted(found)[:1]
