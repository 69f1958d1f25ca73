"""JSON reading with one-line errors."""

import json
import stat
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        FileNotFoundError: There is no such file, or its folder is a file.
        InputError: The path is not a regular file (reading a device never ends), or the file cannot
            be read, is not JSON, or nests too deeply.
    """
    try:
        check_regular(path)
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(*error.args) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not JSON: it is not UTF-8 text") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return parse_json(text, str(path))


def parse_json(text: str | bytes, what: str) -> Any:
    """Return the content of a JSON text.

    Args:
        text: The text.
        what: Name of the text in messages.

    Raises:
        InputError: The text is not JSON, or nests too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"{what} cannot be read: its JSON nests too deeply") from error
    except ValueError as error:
        raise InputError(f"{what} is not JSON: {error}") from error


def check_regular(path: Path) -> None:
    """Refuse a path that is not a regular file: a folder, a device, a pipe.

    Raises:
        InputError: The path is not a regular file.
        OSError: The path does not exist, or its type cannot be read.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise InputError(f"{path} is {kind}; give a file")
