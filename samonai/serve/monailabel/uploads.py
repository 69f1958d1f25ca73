"""Volumes that clients send: images that become cases, and images of sessions.

Each lies in a folder of its own with a record that is written last, so that an upload is there
whole after a restart, or not at all. Names that clients give are never paths.
"""

import hashlib
import json
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.json_files import read_json
from samonai.domains.base import Case
from samonai.domains.medical.volume import Volume, same_grid
from samonai.serve.open_cases import NotThereError
from samonai.serve.workspace import Workspace

_RECORD = "record.json"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SESSION_ID = re.compile(r"[0-9a-f]{32}")
_LONGEST_NAME = 256
_SOURCES_IN_MEMORY = 1
SESSION_DAYS = 30


class Uploads:
    """Images and sessions below the workspace's folder.

    Args:
        workspace: Gets the images as cases; those uploaded earlier at once.
    """

    def __init__(self, workspace: Workspace) -> None:
        """Add earlier uploads as cases, and remove sessions that nobody used for a month."""
        self.workspace = workspace
        self.images, self.sessions = workspace.out / "uploads", workspace.out / "sessions"
        self._incoming = workspace.out / "incoming"
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()
        self._sources: OrderedDict[str, Volume] = OrderedDict()
        shutil.rmtree(self._incoming, ignore_errors=True)
        for path in sorted(self.images.glob(f"*/{_RECORD}")):
            self._register(path.parent, read_json(path))
        self._remove_old_sessions()

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """Return a folder for files that are being received; it is removed afterwards."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._incoming) as folder:
            yield Path(folder)

    def case_of(self, name: str) -> str | None:
        """Return the case that an uploaded image became; None: no such image."""
        return self._names.get(name)

    def add_image(self, name: str, path: Path, ending: str) -> str:
        """Make a case of an uploaded volume, unless the image is there already.

        Args:
            name: What the client calls it.
            path: The received file; it is moved.
            ending: The file's ending.

        Returns:
            The name.

        Raises:
            InputError: The volume cannot be read, or another image has the name.
        """
        if not name or len(name) > _LONGEST_NAME:
            raise InputError(f"image: expected a name of 1 to {_LONGEST_NAME} characters")
        volume = self._readable(path)
        with self._lock:
            known = name if name in self.workspace.cases else self._names.get(name)
            if known is not None:
                if not _is_same(self.workspace.opened(known).source, volume):
                    raise InputError(
                        f"image {name[:80]!r}: the server has another image of this name; rename "
                        "the volume and send it again"
                    )
                return name
            case_id = name if _PLAIN_NAME.fullmatch(name) else _id_of(name)
            folder = self.images / case_id
            self._keep(folder, path, case_id + ending, {"name": name, "case": case_id})
            self._register(folder, {"name": name, "case": case_id, "file": case_id + ending})
            return name

    def add_session(self, path: Path, ending: str) -> str:
        """Keep a volume for the requests of a session, and return the session's id.

        Raises:
            InputError: The volume cannot be read.
        """
        volume = self._readable(path)
        session_id = secrets.token_hex(16)
        folder = self.sessions / session_id
        self._keep(folder, path, "image" + ending, {"created": int(time.time())})
        self._remember(session_id, volume)
        return session_id

    def session(self, session_id: str) -> dict[str, Any]:
        """Return what clients read of a session, and note that it is used.

        Raises:
            NotThereError: There is no such session.
        """
        record = self._session_folder(session_id) / _RECORD
        found = read_json(record)
        record.touch()
        return {
            "name": session_id,
            "image": str(found["file"]),
            "meta": {},
            "create_ts": int(found["created"]),
            "last_access_ts": int(time.time()),
            "expiry": SESSION_DAYS * 86400,
        }

    def remove_session(self, session_id: str) -> dict[str, Any]:
        """Delete a session and its volume, and return what it was.

        Raises:
            NotThereError: There is no such session.
        """
        found = self.session(session_id)
        self._sources.pop(session_id, None)
        shutil.rmtree(self._session_folder(session_id))
        return found

    def session_source(self, session_id: str) -> Volume:
        """Return the volume of a session; the latest is kept in memory.

        Raises:
            NotThereError: There is no such session.
        """
        found = self.session(session_id)
        with self._lock:
            if session_id in self._sources:
                self._sources.move_to_end(session_id)
                return self._sources[session_id]
        path = self._session_folder(session_id) / found["image"]
        return self._remember(session_id, self._read("session", path))

    def _remember(self, session_id: str, volume: Volume) -> Volume:
        with self._lock:
            self._sources[session_id] = volume
            while len(self._sources) > _SOURCES_IN_MEMORY:
                self._sources.popitem(last=False)
        return volume

    def _session_folder(self, session_id: str) -> Path:
        folder = self.sessions / session_id
        if not _SESSION_ID.fullmatch(session_id) or not (folder / _RECORD).is_file():
            raise NotThereError(f"Session ({session_id[:40]}) Not Found")
        return folder

    def _readable(self, path: Path) -> Volume:
        return self._read("the uploaded image", path)

    def _read(self, name: str, path: Path) -> Volume:
        volume: Volume = self.workspace.session.domain.read(Case(name, path))
        return volume

    def _keep(self, folder: Path, path: Path, name: str, record: dict[str, Any]) -> None:
        """Move a received file into its folder, and write the record last."""
        folder.mkdir(parents=True, exist_ok=True)
        path.replace(folder / name)
        with write_atomically(folder / _RECORD) as temporary:
            temporary.write_text(json.dumps({**record, "file": name}), encoding="utf-8")

    def _register(self, folder: Path, record: dict[str, Any]) -> None:
        name, case_id, image = str(record["name"]), str(record["case"]), folder / record["file"]
        if case_id in self.workspace.cases:  # the folder of images has got one of this name
            return
        self._names[name] = case_id
        self.workspace.add_case(Case(case_id, image))

    def _remove_old_sessions(self) -> None:
        oldest = time.time() - SESSION_DAYS * 86400
        for folder in self.sessions.glob("*"):
            record = folder / _RECORD
            if not record.is_file() or record.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def _id_of(name: str) -> str:
    return f"upload-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _is_same(first: Volume, second: Volume) -> bool:
    """Return whether two volumes have the same voxels at the same places."""
    return (
        first.shape == second.shape
        and same_grid(first.affine, second.affine, first.shape)
        and np.array_equal(first.data, second.data)
    )
