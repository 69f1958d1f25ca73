"""The MONAI bundles: find them, say what can be set in them, lay them out, run them.

A bundle is code: MONAI evaluates the `$` expressions in its configuration. What a user sets is
data, so nothing of it reaches that evaluation, and a name that the configuration does not have
is refused, which MONAI would take in silence.
"""

import difflib
import errno
import json
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import as_path, output_folder
from samonai.core.ranges import check_range

TRAIN, EVALUATE, INFERENCE = "train.json", "evaluate.json", "inference.json"

_EVALUATED = ("$", "@", "%")
"""What makes MONAI treat a text as an expression, a reference or a macro."""

_NOT_SET = {"bundle_root", "rank", "world_size"}
"""Plain entries that are no settings: the process, or its launcher, says them."""

_SYSTEM_ERRORS = {
    *(errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG, errno.ENOSPC, errno.EPERM),
    errno.EROFS,
}


def bundles_folder() -> Path:
    """Return the folder of the bundles: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "bundles"
    return installed if installed.is_dir() else package.parent / "bundles"


def list_bundles() -> list[str]:
    """Return the names of the bundles that come with samonai."""
    return sorted(path.parent.parent.name for path in bundles_folder().glob(f"*/configs/{TRAIN}"))


def find_bundle(bundle: str | Path) -> Path:
    """Return the folder of a bundle.

    Args:
        bundle: Its name, or the folder of one that was laid out.

    Raises:
        InputError: There is no such bundle.
    """
    names = list_bundles()
    if str(bundle) in names:
        return bundles_folder() / str(bundle)
    folder = as_path(bundle, "the kind of data, or bundle")
    if (folder / "configs").is_dir():
        return folder.resolve()
    raise InputError(
        f"no bundle {str(bundle)!r}{_suggest(str(bundle), names)}; known are {', '.join(names)}, "
        f"or give a folder with configs/ in it"
    )


def lay_out(name: str, folder: Path | str) -> Path:
    """Copy a bundle into a folder of the user's own, whole or not at all.

    Args:
        name: The bundle's name.
        folder: Where to; must not hold anything yet.

    Returns:
        The folder.

    Raises:
        InputError: There is no such bundle, or the folder is not empty or cannot be written to.
    """
    source, folder = find_bundle(name), output_folder(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} exists already and is not an empty folder; choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder.parent) as temporary:
        copy = Path(temporary) / "bundle"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        os.replace(copy, folder)
    return folder


def config_files(bundle: str | Path, *names: str) -> list[Path]:
    """Return configuration files of a bundle, in the order in which they overlay each other.

    Args:
        bundle: See `find_bundle`.
        *names: Names of files in its `configs/`, or paths of files elsewhere.

    Raises:
        InputError: One of them does not exist.
    """
    configs = find_bundle(bundle) / "configs"
    files = []
    for name in names:
        inside, elsewhere = configs / name, Path(name).expanduser()
        if not inside.is_file() and not elsewhere.is_file():
            known = sorted(path.name for path in configs.glob("*.json"))
            raise InputError(
                f"bundle {bundle} has no configuration {name!r}{_suggest(name, known)}; it has "
                f"{', '.join(known)}"
            )
        files.append(inside if inside.is_file() else elsewhere.resolve())
    return files


def read_config(files: Sequence[Path]) -> dict[str, Any]:
    """Return the merged content of configuration files; nothing in it is evaluated.

    Raises:
        InputError: A file is not JSON or YAML.
    """
    from monai.bundle import ConfigParser

    for file in files:
        try:
            content = ConfigParser.load_config_file(str(file))
        except Exception as error:  # JSON's and YAML's readers have errors of their own
            raise InputError(f"cannot read {file.name}: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise InputError(
                f"cannot read {file.name}: expected entries with names, as in epochs: 3"
            )
    return ConfigParser.load_config_files([str(file) for file in files])


def plain_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a user may set: the top-level entries with plain values, and their defaults."""
    return {
        key: value
        for key, value in config.items()
        if not key.startswith("_")
        and key not in _NOT_SET
        and (value is None or isinstance(value, bool | int | float | str))
        and not is_evaluated(value)
    }


def parse_settings(
    texts: Iterable[str], config: Mapping[str, Any], reserved: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Read `key=value` texts as a user typed them.

    Args:
        texts: The settings; the last of one key counts.
        config: The merged configuration.
        reserved: Keys that are given otherwise, and how.

    Returns:
        Key to value, checked as `check_settings` does.

    Raises:
        InputError: A text is not `key=value`, or a setting is refused.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text}: expected key=value")
        if key in (reserved or {}):
            raise InputError(f"--set {key}: give it as {(reserved or {})[key]}")
        settings[key] = _parse_value(value, config.get(key))
    return check_settings(settings, config)


def check_settings(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Check settings against a configuration and bring their values to the defaults' types.

    Args:
        settings: Key to plain value.
        config: The merged configuration.

    Returns:
        The settings, with their values as the configuration has them.

    Raises:
        InputError: A key is not known, a value is of another type or out of its range, or MONAI
            would evaluate it.
    """
    known = plain_settings(config)
    for key in settings:
        if key not in known:
            raise InputError(
                f"unknown setting {key!r}{_suggest(key, known)}; `samonai bundle show` lists all"
            )
    return {key: _checked(key, value, known[key]) for key, value in settings.items()}


def run_bundle(
    files: Sequence[Path], overrides: Mapping[str, Any], *, workflow_type: str = "train"
) -> None:
    """Run a bundle's workflow in this process.

    Args:
        files: Configuration files, later ones laid over earlier ones.
        overrides: Top-level entry to what replaces it: plain values, paths, or objects such as a
            network. Texts are taken literally, whatever they look like.
        workflow_type: "train" (also for an evaluation laid over the training configuration) or
            "infer".

    Raises:
        InputError: The configuration lacks an entry, or the run meets a user's mistake.
    """
    with opened_bundle(files, overrides, workflow_type=workflow_type) as workflow:
        workflow.run()
        workflow.finalize()


@contextmanager
def opened_bundle(
    files: Sequence[Path], overrides: Mapping[str, Any], *, workflow_type: str = "train"
) -> Iterator[Any]:
    """Open a bundle's workflow without running it, for those who use its parts.

    Args:
        files: As `run_bundle` takes it, like the rest.
        overrides: Likewise.
        workflow_type: Likewise.

    Yields:
        MONAI's workflow, initialized; `workflow.parser.get_parsed_content(name)` builds a part.

    Raises:
        InputError: As `run_bundle`.
    """
    config = read_config(files)
    if unknown := [key for key in overrides if key not in config]:
        raise InputError(
            f"{files[-1].name} has no entry {unknown[0]!r}{_suggest(unknown[0], config)}"
        )
    literal = {key: _literal(value) for key, value in overrides.items()}
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


def is_evaluated(value: Any) -> bool:
    """Say whether MONAI would evaluate something in this value."""
    if isinstance(value, str):
        return value.startswith(_EVALUATED)
    if isinstance(value, Mapping):
        return any(
            str(key).startswith(("_", "+", *_EVALUATED)) or is_evaluated(inner)
            for key, inner in value.items()
        )
    return isinstance(value, list | tuple) and any(is_evaluated(inner) for inner in value)


@contextmanager
def quiet_third_parties() -> Iterator[None]:
    """Keep other packages' chatter off the terminal, unless `samonai` itself logs everything."""
    if logging.getLogger("samonai").isEnabledFor(logging.DEBUG):
        yield
        return
    levels = {}
    for name in ("monai", "ignite", "nibabel", "pydicom", "highdicom"):
        logger = logging.getLogger(name)
        levels[logger] = logger.level
        logger.setLevel(logging.CRITICAL)
    # These set a level of their own, which their parent's does not overrule.
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
    """Bring a user's mistake out of the errors that MONAI wraps it in."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        for cause in _causes(error):
            if isinstance(cause, InputError):
                raise cause from None
            if isinstance(cause, OSError) and cause.errno in _SYSTEM_ERRORS:
                # Writing into an open file does not say which.
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
    # MONAI puts the bundle's folder on it, and leaves it there.
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


def _literal(value: Any) -> Any:
    """Return what MONAI resolves to exactly this value.

    A path or text that looks like an expression, or holds the "#" that MONAI rewrites wherever it
    stands, becomes a Python literal in which every unusual character is escaped.
    """
    if isinstance(value, os.PathLike):
        value = os.path.abspath(os.path.expanduser(os.fspath(value)))
    if isinstance(value, str) and (value.startswith(_EVALUATED) or "#" in value):
        return "$'" + "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in value) + "'"
    if isinstance(value, Mapping):
        return {str(key): _literal(inner) for key, inner in value.items()}
    return [_literal(inner) for inner in value] if isinstance(value, list | tuple) else value


def _parse_value(text: str, default: Any) -> Any:
    """Return a typed text as the JSON value that it is, else as text."""
    if isinstance(default, str):
        return text
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return text


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number that a setting can have")


def _checked(key: str, value: Any, default: Any) -> Any:
    if is_evaluated(value):
        raise InputError(
            f"setting {key}: a value must not begin with $, @ or %, which MONAI would evaluate"
        )
    value = _plain(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if default is not None and value is not None and type(value) is not type(default):
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        raise InputError(
            f"setting {key}: expected {wanted[type(default)]} such as "
            f"{json.dumps(default)}, got {str(value)[:80]!r}"
        )
    if value is None and default is not None:
        raise InputError(f"setting {key}: expected a value such as {json.dumps(default)}, got null")
    check_range(key, value)
    return value


def _plain(value: Any) -> Any:
    """Return a number as JSON has it; numpy has types of its own."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, [str(key) for key in known], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
