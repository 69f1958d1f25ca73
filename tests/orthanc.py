"""Orthanc on loopback for tests: a PACS with DICOMweb and DIMSE, and phantom studies in it."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from samonai.domains.medical.phantom.cases import make_phantom
from samonai.domains.medical.phantom.dicom import write_series

PROGRAM = shutil.which("Orthanc") or shutil.which("/usr/sbin/Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "tester", "of the tests"
SHAPE = (40, 32, 4)


@dataclass(frozen=True)
class Orthanc:
    """Where it listens."""

    http: int
    dicom: int

    @property
    def dicomweb(self) -> str:
        return f"dicomweb://127.0.0.1:{self.http}/dicom-web"

    @property
    def dimse(self) -> str:
        return f"dimse://ORTHANC@127.0.0.1:{self.dicom}"

    def url(self, protocol: str) -> str:
        return {"dicomweb": self.dicomweb, "dimse": self.dimse}[protocol]


@contextmanager
def running(folder: Path) -> Iterator[Orthanc]:
    """Start Orthanc with its database in a folder, and end it."""
    if PROGRAM is None or not PLUGIN.is_file():
        pytest.skip("needs Orthanc with its DICOMweb plugin: apt-get install orthanc-dicomweb")
    found = Orthanc(*free_ports(2))
    settings: dict[str, Any] = {
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "Plugins": [str(PLUGIN)], "HttpPort": found.http, "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD},
        "DicomAet": "ORTHANC", "DicomPort": found.dicom, "DicomCheckCalledAet": True,
        "DicomAlwaysAllowFind": True, "DicomAlwaysAllowGet": True, "DicomAlwaysAllowStore": True,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{found.http}/system")
            yield found
        finally:
            process.kill()  # it takes seconds to end by itself
            process.wait(20)


def free_ports(count: int) -> list[int]:
    bound = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in bound]
    for one in bound:
        one.close()
    return ports


def phantom_series(folder: Path, number: int, **elements: str) -> Path:
    """Write a phantom's CT series, with other elements; returns the folder."""
    volume = make_phantom(np.random.default_rng([0, number]), SHAPE)
    write_series(folder, volume.data, volume.affine, number=number, seed=0)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        for key, value in elements.items():
            setattr(dataset, key, value)
        dataset.save_as(path)
    return folder


def _wait_for(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:  # it wants the password
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("Orthanc did not start")
