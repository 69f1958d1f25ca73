"""The command line: one module per verb; each parses, calls one function, and prints.

Exit codes: 0 success, 2 a user's mistake (one line on standard error), 130 interrupted, 143
terminated; any other error prints its traceback and exits with 1.
"""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise
from types import FrameType
from typing import Annotated, Any

import typer

from samonai.cli import (
    bundle,
    calibrate,
    checkpoints,
    compare,
    curve,
    demo,
    doctor,
    embed,
    evaluate,
    export,
    federate,
    listen,
    predict,
    rank,
    report,
    serve,
    settings,
    status,
    sweep,
    train,
)
from samonai.cli.help_pages import arranged
from samonai.cli.options import is_first_process
from samonai.core.errors import InputError
from samonai.core.progress_lines import told_by_lines
from samonai.version import __version__

app = typer.Typer(
    name="samonai",
    help="Fine-tune Segment Anything: encode once, decode forever.",
    epilog="`samonai VERB --help` shows each verb's everyday options with an example, `--help-all` "
    "all. `samonai demo` needs no data and no network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for verb in (
    *(
        train,
        evaluate,
        compare,
        report,
        calibrate,
        predict,
        rank,
        serve,
        listen,
        sweep,
        curve,
        embed,
    ),
    *(status, settings, export, demo, doctor),
):
    name = verb.__name__.rpartition(".")[2]
    app.command(name, epilog=verb.EXAMPLE)(getattr(verb, name))
app.add_typer(bundle.app, name="bundle")
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(federate.app, name="federate")

_INTERRUPTED = 128 + signal.SIGINT

# Depending on its version, typer bundles a copy of click or imports it.
_CommandLineError: Any = typer.BadParameter.__mro__[2]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"samonai {__version__}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log progress, and messages of other packages.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options before the verb."""
    logger = logging.getLogger("samonai")
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    if not verbose:
        warnings.simplefilter("ignore")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: The arguments; by default those of the process.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("samonai")
    level = logger.level
    logger.addHandler(handler)
    before = _on_terminate(_terminated)
    token = told_by_lines.set(True)
    if not is_first_process():
        handler.setLevel(logging.ERROR)  # the first process says the same
    try:
        with warnings.catch_warnings(), _one_voice():
            return _run(argv)
    finally:
        told_by_lines.reset(token)
        logger.removeHandler(handler)
        logger.setLevel(level)
        _on_terminate(before)


@contextmanager
def _one_voice() -> Iterator[None]:
    """Print results in the first of torchrun's processes only."""
    if is_first_process():
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


def _run(argv: Sequence[str] | None) -> int:
    command = arranged(typer.main.get_command(app))
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        _refuse_empty(given)
        code = command.main(args=given, prog_name="samonai", standalone_mode=False)
    except InputError as error:
        _tell(str(error))
        return 2
    except _CommandLineError as error:
        context = getattr(error, "ctx", None)
        where = f" (see {context.command_path} --help)" if context is not None else ""
        _tell(f"{error.format_message()}{where}")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe; nothing more may be written when Python closes its files.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if code == _INTERRUPTED:
        # Some versions of typer convert the interrupt into this code.
        _tell("interrupted; finished work is kept")
    return code if isinstance(code, int) else 0


def _refuse_empty(given: Sequence[str]) -> None:
    """Refuse options without a value, as from an unset variable: the empty path is this folder.

    Raises:
        InputError: An option has an empty value.
    """
    for option, value in pairwise(given):
        if not value and option.startswith("--") and option != "--ending":
            raise InputError(f"{option} is empty; give it a value, or leave it out")


def _tell(message: str) -> None:
    print(f"samonai: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201


def _on_terminate(handler: Any) -> Any:
    """Install a SIGTERM handler, which only the main thread of a process can do."""
    try:
        return signal.signal(signal.SIGTERM, handler)
    except ValueError:
        return None


def _terminated(number: int, frame: FrameType | None) -> None:
    _tell("terminated; finished work is kept")
    raise SystemExit(128 + number)
