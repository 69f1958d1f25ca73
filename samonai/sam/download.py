"""Checkpoint download into the cache: resumable, verified before use, whole or absent."""

import errno
import http.client
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.sam.checkpoints import (
    Checkpoint,
    cached_path,
    expected_sha256,
    hash_note,
    verify_file,
)

_log = logging.getLogger(__name__)
_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 30.0
_ATTEMPTS = 4
_PAUSE_S = 0.5


def fetch(checkpoint: Checkpoint, sha256: str | None = None, *, progress: bool = True) -> Path:
    """Return the checkpoint's file in the cache, downloaded first if missing.

    Size and hash are checked each time, before the file is parsed. An interrupted download is
    resumed. Of several concurrent processes one downloads, the others wait.

    Args:
        checkpoint: The checkpoint.
        sha256: The user's own hash; required if none is published, and then stored.
        progress: Draw a progress bar on the error stream.

    Returns:
        Path of the verified file.

    Raises:
        InputError: The server cannot be reached, the disk is full, or the file is another one.
    """
    assert checkpoint.url is not None
    target = cached_path(checkpoint)
    expected = expected_sha256(checkpoint, sha256)
    if not target.is_file():
        _make_folder(target.parent)
        with FileLock(target.with_name(target.name + ".lock")):
            if not target.is_file():
                _fetch_part(checkpoint, _part(target), progress)
                verify_file(_part(target), expected, checkpoint.size)
                os.replace(_part(target), target)
                _remember(checkpoint, target, expected)
                return target
    verify_file(target, expected, checkpoint.size)
    _remember(checkpoint, target, expected)
    return target


def _remember(checkpoint: Checkpoint, target: Path, expected: str) -> None:
    """Store the hash given by a user, so that it need not be given again."""
    if checkpoint.sha256 is None and not hash_note(target).is_file():
        with write_atomically(hash_note(target)) as temporary:
            temporary.write_text(expected + "\n")


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the cache folder {folder} ({error.strerror}); set SAMONAI_CACHE to a "
            f"folder that can be written"
        ) from error


def _fetch_part(checkpoint: Checkpoint, part: Path, progress: bool) -> None:
    """Download `part` to its full length, resuming as long as it makes progress."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not progress)
    _log.info("fetching %s from %s", checkpoint.name, checkpoint.url)
    failures = 0
    with bar:
        task = bar.add_task(checkpoint.name, total=checkpoint.size)
        while True:
            before = part.stat().st_size if part.exists() else 0
            if checkpoint.size is not None and before >= checkpoint.size:
                return
            try:
                if _transfer(checkpoint, part, bar, task):
                    return
                reason = "the connection ended early"
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                reason = _reason(error, part)
            grown = part.exists() and part.stat().st_size > before
            failures = 1 if grown else failures + 1
            if failures >= _ATTEMPTS:
                have = part.stat().st_size if part.exists() else 0
                raise InputError(
                    f"cannot fetch {checkpoint.name} from {checkpoint.url}: {reason} ({have:,} "
                    f"bytes are kept); run again to go on, or give a local file as the checkpoint"
                )
            time.sleep(_PAUSE_S * failures)


def _reason(error: Exception, part: Path) -> str:
    """Return why a transfer failed; raise if a retry cannot help."""
    if isinstance(error, urllib.error.HTTPError):
        if error.code < 500 and error.code not in (408, 429):
            raise InputError(
                f"cannot fetch {error.url}: the server answers {error.code} {error.reason}"
            ) from error
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise InputError(
            f"no room for {part}: {error.strerror}; free space or set SAMONAI_CACHE"
        ) from error
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        raise InputError(
            f"cannot write {part}: {error.strerror}; set SAMONAI_CACHE to a folder that can be "
            f"written"
        ) from error
    return str(getattr(error, "reason", error)) or type(error).__name__


def _transfer(checkpoint: Checkpoint, part: Path, bar: Progress, task: TaskID) -> bool:
    """Request the missing bytes from the server once; return whether the file is complete."""
    assert checkpoint.url is not None
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "samonai", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(checkpoint.url, headers=headers), timeout=_TIMEOUT_S
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and checkpoint.size is None:
            return True  # no bytes are missing; the hash decides
        raise
    with response:
        start, total = _offered(response, have)
        if checkpoint.size is not None and total not in (None, checkpoint.size):
            raise InputError(
                f"{checkpoint.url} offers {total:,} bytes, expected {checkpoint.size:,}: the "
                f"server has another file; nothing was fetched"
            )
        total = checkpoint.size or total
        _check_room(part, total, start)
        bar.update(task, total=total, completed=start)
        with part.open("ab" if start else "wb") as file:
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                bar.advance(task, len(block))
            file.flush()
            os.fsync(file.fileno())
    return total is None or part.stat().st_size >= total


def _offered(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Return the offset at which the answer's bytes begin, and the whole file's size."""
    if response.status == 206:
        match = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
        if match and int(match[1]) == have:
            return have, None if match[2] == "*" else int(match[2])
        raise http.client.HTTPException("the server answers with another range than was asked for")
    length = response.headers.get("Content-Length", "")
    # A server without ranges sends the whole file again.
    return 0, int(length) if length.isdigit() else None


def _check_room(part: Path, total: int | None, have: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have > free:
        raise InputError(
            f"no room for {part}: {total - have:,} bytes are missing, {free:,} are free; free "
            f"space or set SAMONAI_CACHE"
        )
