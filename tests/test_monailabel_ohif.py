"""OHIF beside the annotation server: its files, its requests to a DICOMweb server, and a click.

The click is made in OHIF itself: the build inside the wheel `monailabel` 0.8.5, unmodified, in a
headless Chromium, with Orthanc as the DICOMweb server. That takes more than a minute, and is done
where `SAMONAI_TEST_OHIF` is set; skipped where one of the programs is missing.
"""

import base64
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dicom_factory
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
import test_monailabel_client
from local_server import running
from starlette.applications import Starlette
from starlette.testclient import TestClient

from samonai.core.errors import InputError
from samonai.serve.guard import Guard, limits_of
from samonai.serve.monailabel import monailabel_routes
from samonai.serve.monailabel.ohif import PASSWORD, USER, OhifOptions, ohif_routes
from samonai.serve.routes import annotation_app
from samonai.serve.workspace import Workspace
from samonai.workflows.session import Session

ORTHANC = shutil.which("Orthanc") or shutil.which("/usr/sbin/Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
CHROMIUM = shutil.which("chromium")
SHAPE = (96, 80, 12)
CENTRE = (60, 30, 8)


class Pacs(http.server.BaseHTTPRequestHandler):
    """A DICOMweb server that tells what it was asked."""

    def do_GET(self) -> None:
        if "/moved" in self.path:
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            return
        asked = {"path": self.path, "accept": self.headers["Accept"]}
        body = json.dumps({**asked, "login": self.headers["Authorization"]}).encode()
        self.send_response(404 if "/missing" in self.path else 200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def pacs() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pacs) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
        server.shutdown()


@pytest.fixture
def build(tmp_path: Path) -> Path:
    folder = tmp_path / "ohif"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("the viewer")
    (folder / "assets" / "icon.svg").write_text("<svg/>")
    (tmp_path / "secret.txt").write_text("not OHIF's")
    return folder


@pytest.fixture
def client(build: Path, pacs: str) -> TestClient:
    app = Starlette(routes=ohif_routes(OhifOptions(build, pacs)))
    return TestClient(Guard(app, limits_of("127.0.0.1")), base_url="http://localhost")


def test_requests_for_studies_are_passed_on_with_the_credentials(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(USER, "tester")
    monkeypatch.setenv(PASSWORD, "secret")
    asked = client.get(
        "/proxy/dicom/qido/studies?PatientID=A%2A&limit=1", headers={"accept": "application/json"}
    )
    assert asked.headers["content-type"] == "application/dicom+json"
    found = asked.json()
    assert found["path"] == "/dicom-web/studies?PatientID=A%2A&limit=1"
    assert found["accept"] == "application/json"
    assert base64.b64decode(found["login"].split()[1]) == b"tester:secret"
    frames = "/proxy/dicom/wado/studies/1.2/series/3.4/instances/5.6/frames/1,2"
    assert client.get(frames).json()["path"].endswith("/frames/1,2")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/proxy/dicom/qido/system", 404),
        ("/proxy/dicom/qido/studies/..%2F..%2Fsystem", 404),
        ("/proxy/dicom/stow/studies", 404),
        ("/proxy/dicom/qido/studies/missing", 404),
        ("/proxy/dicom/qido/studies/moved", 302),
    ],
)
def test_other_requests_are_not(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path, follow_redirects=False)
    assert answer.status_code == status
    assert "location" not in answer.headers
    assert client.post("/proxy/dicom/qido/studies").status_code == 405


def test_only_ohifs_files_are_sent(client: TestClient) -> None:
    assert client.get("/ohif/assets/icon.svg").text == "<svg/>"
    assert client.get("/ohif/monai-label").text == "the viewer"
    assert client.get("/ohif/..%2Fsecret.txt").text == "the viewer"
    policy = client.get("/ohif/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


@pytest.mark.parametrize(
    ("address", "words"),
    [("file:///etc", "expected an address"), ("http://a:b@host/x", "without name and password")],
)
def test_addresses_that_cannot_be_used_are_refused(build: Path, address: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ohif_routes(OhifOptions(build, address))
    with pytest.raises(InputError, match="give a build of OHIF"):
        ohif_routes(OhifOptions(build.parent, "http://host/dicom-web"))


@pytest.fixture
def series(tmp_path: Path) -> dicom_factory.Series:
    i, j, k = np.indices(SHAPE)
    inside = (i - 60) ** 2 / 100 + (j - 30) ** 2 / 64 + (k - 8) ** 2 / 9 < 1
    stored = np.where(inside, 1100, 300).astype(np.int16).transpose(2, 1, 0)
    order = list(range(SHAPE[2]))[::-1]  # instance numbers run against positions
    return dicom_factory.write_series(tmp_path / "scans" / "one", stored, order=order)


@pytest.fixture
def orthanc(tmp_path: Path, series: dicom_factory.Series) -> Iterator[str]:
    if ORTHANC is None or not PLUGIN.is_file():
        pytest.skip("needs Orthanc with its DICOMweb plugin")
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    http_port, dicom_port = (port.getsockname()[1] for port in ports)
    for port in ports:
        port.close()
    database = str(tmp_path / "orthanc")
    settings = {
        "StorageDirectory": database, "IndexDirectory": database, "Plugins": [str(PLUGIN)],
        "HttpPort": http_port, "DicomPort": dicom_port, "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False, "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    log = (tmp_path / "orthanc.log").open("wb")
    process = subprocess.Popen([ORTHANC, str(tmp_path / "orthanc.json")], stdout=log, stderr=log)
    base = f"http://127.0.0.1:{http_port}"
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{base}/system", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        for file in series.folder.iterdir():
            urllib.request.urlopen(f"{base}/instances", data=file.read_bytes()).close()
        yield f"{base}/dicom-web"
    finally:
        process.terminate()
        process.wait(20)
        log.close()


@pytest.fixture
def server(tmp_path: Path, orthanc: str) -> Iterator[str]:
    with zipfile.ZipFile(test_monailabel_client.wheel()) as archive:
        inside = "monailabel/endpoints/static/ohif/"
        archive.extractall(tmp_path, [n for n in archive.namelist() if n.startswith(inside)])
    session = Session("micro", device="cpu")
    cases = session.cases(tmp_path / "scans")
    workspace = Workspace(session, cases, tmp_path / "out", classes={1: "ball", 2: "wall"})
    routes = monailabel_routes(workspace) + ohif_routes(OhifOptions(tmp_path / inside, orthanc))
    app = Guard(annotation_app(workspace, clients=routes), limits_of("127.0.0.1"))
    with running(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.slow
@pytest.mark.skipif("SAMONAI_TEST_OHIF" not in os.environ, reason="needs SAMONAI_TEST_OHIF=1")
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.filterwarnings("ignore")
def test_a_click_in_ohif_gives_the_mask_of_the_object(
    server: str, series: dicom_factory.Series, tmp_path: Path
) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    study = pydicom.dcmread(next(series.folder.iterdir())).StudyInstanceUID
    answers: list[Any] = []
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*flags, "--enable-unsafe-swiftshader"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(120_000)
        page.on("response", lambda r: answers.append(r) if "/infer" in r.url else None)
        page.goto(f"{server}/ohif/monai-label?StudyInstanceUIDs={study}")
        page.fill("#monailabelServerURL", f"{server}/")
        page.click("table.settingsTable button")
        page.wait_for_selector("text=Options / Configurations")
        page.wait_for_timeout(4000)
        page.click("label.tab-label:has-text('Point Prompts')")
        page.click("tr.clickable-row:has-text('ball')")
        canvas = page.locator("canvas").first.bounding_box()
        assert canvas is not None
        middle = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
        page.mouse.move(*middle)
        for _ in range(CENTRE[2] - 5):  # it opens on slice 5, and wheels upward to the head
            page.mouse.wheel(0, -100)
            page.wait_for_timeout(1500)
        # The image fills 92 % of the canvas across; voxels are as wide as they are high.
        pixel = 0.92 * canvas["width"] / SHAPE[0]
        page.mouse.click(
            middle[0] + (CENTRE[0] - 47.5) * pixel, middle[1] + (CENTRE[1] - 39.5) * pixel
        )
        page.wait_for_timeout(1500)
        with page.expect_response(lambda r: "/infer" in r.url) as answered:
            page.locator(".tab-content:visible button:has-text('Run')").first.click()
        answer = answered.value
        params = json.loads(answer.request.post_data.split("\r\n")[3])
        (tmp_path / "mask.nrrd").write_bytes(answer.body())
        browser.close()
    assert answer.status == 200
    (clicked,) = params["foreground"]
    np.testing.assert_allclose(clicked, CENTRE, atol=2)
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "mask.nrrd"))).T > 0
    i, j, k = np.indices(SHAPE)
    truth = (i - 60) ** 2 / 100 + (j - 30) ** 2 / 64 + (k - 8) ** 2 / 9 < 1
    assert mask.any((0, 1)).nonzero()[0].tolist() == [clicked[2]]
    shown, expected = mask[:, :, clicked[2]], truth[:, :, clicked[2]]
    assert 2 * (shown & expected).sum() / (shown.sum() + expected.sum()) > 0.9
