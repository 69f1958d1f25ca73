"""Images by the ids that clients use, and as the files that they load."""

import hashlib
import threading
from typing import Any

import numpy as np

from samonai.core.errors import InputError
from samonai.domains.medical.dataset import is_dicom
from samonai.domains.medical.formats.nrrd import nrrd_bytes
from samonai.domains.medical.volume import Volume
from samonai.serve.monailabel.labels import FINAL, ORIGINAL, ranks_of
from samonai.serve.monailabel.uploads import Uploads
from samonai.serve.open_cases import NotThereError
from samonai.serve.workspace import Workspace

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID")
_SHOWN = (*_UIDS, "Modality")


class CaseIndex:
    """Cases of a workspace by the ids of clients.

    3D Slicer uses the ids of `/activelearning` or the names of uploaded volumes, OHIF a series'
    SeriesInstanceUID.

    Args:
        workspace: The cases.
        uploads: The names of uploaded volumes.
    """

    def __init__(self, workspace: Workspace, uploads: Uploads) -> None:
        """Keep both; DICOM headers are read when they are asked for."""
        self.workspace, self.uploads = workspace, uploads
        self._facts: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def case_of(self, name: str) -> str:
        """Return the case of an id.

        Raises:
            NotThereError: There is none.
        """
        if name in self.workspace.cases:
            return name
        uploaded = self.uploads.case_of(name)
        if uploaded is not None:
            return uploaded
        if name.replace(".", "").isdigit():
            for case_id in self.workspace.cases:
                if self.dicom_facts(case_id).get("SeriesInstanceUID") == name:
                    return case_id
        raise NotThereError(f"image {name[:80]!r}: there is no such image")

    def dicom_facts(self, case_id: str) -> dict[str, str]:
        """Return UIDs and modality of a case that is a DICOM series; else nothing."""
        pacs = self.workspace.pacs
        told = None if pacs is None else pacs.dicom_facts(case_id)
        if told is not None:
            return told
        case = self.workspace.cases[case_id]
        if not is_dicom(case.image):
            return {}
        with self._lock:
            if case_id not in self._facts:
                self._facts[case_id] = _facts_of(case.image, case.series)
            return self._facts[case_id]

    def datastore(self, output: str | None) -> dict[str, Any]:
        """Return the number of cases, or with "all" each case and its labels."""
        cases = self.workspace.cases
        if output != "all":
            done = len(self.workspace.done())
            return {"total": len(cases), "completed": done, "label_tags": {FINAL: done}}
        return {
            "name": "samonai",
            "description": "",
            "objects": {case_id: self._object(case_id) for case_id in cases},
        }

    def _object(self, case_id: str) -> dict[str, Any]:
        try:
            found = self.workspace.folder(case_id).read(self.workspace.classes)
        except InputError:  # a damaged annotation shows when it is opened
            return {"image": {"ext": ".nrrd", "info": {}}, "labels": {}}
        info = {"params": {"label_names": ranks_of(found.structures)}}
        tags = [ORIGINAL] if found.objects or case_id in self.workspace.labels else []
        tags += [FINAL] if found.saved else []
        return {
            "image": {"ext": ".nrrd", "info": {"name": f"{case_id}.nrrd"}},
            "labels": {tag: {"ext": ".nrrd", "info": dict(info)} for tag in tags},
        }


class ImageFiles:
    """Images as files, made once for a client that gets the checksum first and the file next.

    Args:
        workspace: The cases.
    """

    def __init__(self, workspace: Workspace) -> None:
        """Keep the workspace; one file at most is in memory."""
        self._workspace = workspace
        self._next: tuple[str, bytes] | None = None

    def prepare(self, case_id: str) -> str:
        """Make a case's file, keep it until it is taken, and return its sha256."""
        data = image_file(self._workspace.opened(case_id).source)
        self._next = case_id, data
        return hashlib.sha256(data).hexdigest()

    def take(self, case_id: str) -> bytes:
        """Return a case's file: the prepared one, which is forgotten, or a new one."""
        kept = self._next
        if kept is not None and kept[0] == case_id:
            self._next = None
            return kept[1]
        return image_file(self._workspace.opened(case_id).source)


def image_file(source: Volume) -> bytes:
    """Return an image as the NRRD file that clients load.

    Voxels and geometry are those that the model sees: a label drawn on the file lies on the
    image's grid, whatever format the image has, and nothing else of the image's header is sent.
    """
    data = source.data
    info = np.iinfo(np.int16)
    if info.min <= data.min() and data.max() <= info.max and np.array_equal(data, np.rint(data)):
        return nrrd_bytes(data.astype(np.int16), source.affine)
    return nrrd_bytes(data.astype(np.float32, copy=False), source.affine)


def _facts_of(image: Any, series: str | None) -> dict[str, str]:
    from samonai.domains.medical.dicom.headers import (
        find_headers,
        quiet,
    )  # pydicom is slow to import

    with quiet():
        try:
            headers = find_headers(image)
        except InputError:  # shows when the case is opened
            return {}
        wanted = None if series is None else series.split("#")[0]
        for header in headers:
            if wanted is None or header.text("SeriesInstanceUID") == wanted:
                return {key: header.text(key) for key in _SHOWN if header.text(key)}
    return {}
