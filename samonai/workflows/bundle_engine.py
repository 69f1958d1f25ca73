"""MONAI bundle runs in this process: workflows, literal overrides, errors in one line.

A bundle is code: MONAI evaluates the `$` expressions in its configuration. Settings of a user are
data, and never reach that evaluation.
"""

import errno
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.settings import suggest
from samonai.settings import flat, renamed
from samonai.workflows.bundle_files import EVALUATED, read_config

_SYSTEM_ERRORS = {
    *(errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG, errno.ENOSPC, errno.EPERM),
    errno.EROFS,
}


def run_bundle(
    files: Sequence[Path],
    overrides: Mapping[str, Any],
    *,
    workflow_type: str = "train",
    part: str | None = None,
) -> Any:
    """Run a bundle's workflow in this process.

    Args:
        files: Configuration files, later ones override earlier ones.
        overrides: Entry to its replacement: plain values, paths, or objects such as a network.
            Texts are literal. An entry of a block is named as
            in "sampler.box_jitter".
        workflow_type: "train" (also for an evaluation laid over the training configuration) or
            "infer".
        part: Name of a component, such as "data".

    Returns:
        That component after the run; None without a name.

    Raises:
        InputError: The configuration lacks an entry, or the run meets a user's mistake.
    """
    with opened_bundle(files, overrides, workflow_type=workflow_type) as workflow:
        workflow.run()
        workflow.finalize()
        return None if part is None else workflow.parser.get_parsed_content(part)


@contextmanager
def opened_bundle(
    files: Sequence[Path], overrides: Mapping[str, Any], *, workflow_type: str = "train"
) -> Iterator[Any]:
    """Open a bundle's workflow without running it, to use its parts.

    Args:
        files: As for `run_bundle`, like the rest.
        overrides: Likewise.
        workflow_type: Likewise.

    Yields:
        MONAI's workflow, initialized; `workflow.parser.get_parsed_content(name)` builds a part.

    Raises:
        InputError: The configuration lacks an entry, or MONAI cannot build it.
    """
    config = read_config(files)
    if unknown := [key for key in overrides if not _has(config, key)]:
        key = unknown[0]
        if old := renamed(key):
            raise InputError(f"unknown setting {key!r}{old}")
        raise InputError(f"{files[-1].name} has no entry {key!r}{suggest(key, config)}")
    literal = {key.replace(".", "::"): _literal(value) for key, value in overrides.items()}
    with one_line_errors(), quiet_third_parties(), _kept_search_path():
        from monai.bundle import ConfigWorkflow

        workflow = ConfigWorkflow(
            [str(file) for file in files],
            logging_file=False,
            workflow_type=workflow_type,
            **literal,
        )
        workflow.initialize()
        yield workflow


@contextmanager
def quiet_third_parties() -> Iterator[None]:
    """Mute other packages' messages on the terminal, unless `samonai` itself logs everything."""
    if logging.getLogger("samonai").isEnabledFor(logging.DEBUG):
        yield
        return
    levels = {}
    for name in ("monai", "ignite", "nibabel", "pydicom", "highdicom"):
        logger = logging.getLogger(name)
        levels[logger] = logger.level
        logger.setLevel(logging.CRITICAL)
    # These set a level of their own, which their parent's does not override.
    for name, child in list(logging.root.manager.loggerDict.items()):
        if name.startswith(("monai.", "ignite.")) and isinstance(child, logging.Logger):
            levels[child] = child.level
            child.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Raise a user's mistake out of the errors that MONAI wraps around it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        for cause in _causes(error):
            if isinstance(cause, InputError):
                raise cause from None
            if isinstance(cause, OSError) and cause.errno in _SYSTEM_ERRORS:
                # The error of writing into an open file lacks the file's name.
                where = f"{cause.filename}: " if cause.filename else "cannot write results: "
                full = "; make room and give the same command again"
                hint = full if cause.errno in (errno.ENOSPC, errno.EDQUOT) else ""
                raise InputError(f"{where}{cause.strerror}{hint}") from error
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


@contextmanager
def _kept_search_path() -> Iterator[None]:
    # MONAI adds the bundle's folder to it, and leaves it there.
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


def _has(config: Mapping[str, Any], key: str) -> bool:
    block = key.rpartition(".")[0]
    return key in (flat({block: config.get(block, {})}) if block else config)


def _literal(value: Any) -> Any:
    """Return a text that MONAI resolves to exactly this value.

    A path or text that looks like an expression, or contains the "#" that MONAI replaces
    anywhere, becomes a Python literal in which every unusual character is escaped.
    """
    if isinstance(value, os.PathLike):
        value = os.path.abspath(os.path.expanduser(os.fspath(value)))
    if isinstance(value, str) and (value.startswith(EVALUATED) or "#" in value):
        return "$'" + "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in value) + "'"
    if isinstance(value, Mapping):
        return {str(key): _literal(inner) for key, inner in value.items()}
    return [_literal(inner) for inner in value] if isinstance(value, list | tuple) else value
