"""The annotation page in a headless Chromium: drawn with the mouse, saved, and on the right voxels.

Skipped where Chromium or playwright is missing.
"""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import uvicorn

from samonai.serve.guard import Guard, limits_of
from samonai.serve.routes import annotation_app
from samonai.serve.workspace import Workspace
from samonai.workflows.session import Session

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("needs Chromium", allow_module_level=True)

SHAPE = (40, 28, 5)
# Columns run to the patient's head, rows to the right: nothing is as it is on the screen.
AFFINE = np.array([[0, 2.0, 0, 0], [0, 0, -4.0, 0], [1.5, 0, 0, 0], [0, 0, 0, 1]])
SECONDS = 60.0


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "images").mkdir()
    data = np.full(SHAPE, 20, np.int16)
    data[8:20, 6:16] = 220
    for name in ("first", "second"):
        nib.save(nib.Nifti1Image(data, AFFINE), folder / "images" / f"{name}.nii.gz")
    session = Session("micro", device="cpu")
    cases = session.cases(folder / "images")
    return Workspace(session, cases, folder / "out", classes={1: "bar", 2: "wall"})


@pytest.fixture(scope="module")
def address(workspace: Workspace) -> Iterator[str]:
    app = Guard(annotation_app(workspace), limits_of("127.0.0.1"))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    bound = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)


class Tab:
    """One tab; waits by looking, since the page's policy forbids evaluating text inside it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)

    def until(self, script: str) -> None:
        end = time.monotonic() + SECONDS
        while not self.page.evaluate(script):
            assert time.monotonic() < end, (script, self.page.inner_text("#message"), self.faults)
            time.sleep(0.05)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the frame is in the window."""
        script = """([x, y]) => {
            const place = document.getElementById("view").getBoundingClientRect();
            const [left, top] = samonai.view.toScreen(x, y);
            return [place.left + left, place.top + top];
        }"""
        left, top = self.page.evaluate(script, [x, y])
        return left, top

    def drag(self, box: tuple[float, float, float, float]) -> None:
        self.page.mouse.move(*self.place(*box[:2]))
        self.page.mouse.down()
        self.page.mouse.move(*self.place((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
        self.page.mouse.move(*self.place(*box[2:]))
        self.page.mouse.up()

    def objects(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.page.evaluate("samonai.state.current.objects")
        return found


@pytest.fixture
def tab(address: str) -> Iterator[Tab]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        found = Tab(browser.new_page(viewport={"width": 1100, "height": 700}))
        found.page.goto(address)
        found.until("globalThis.samonai?.view?.picture != null")
        yield found
        browser.close()
        assert found.faults == []


def test_a_box_a_click_undo_and_saving(tab: Tab, workspace: Workspace) -> None:
    # Frames lie across k, which is the patient's anterior-posterior axis: coronal.
    assert tab.page.inner_text("#where").startswith("coronal 3 / 5")
    marks = [tab.page.inner_text(f"#mark-{side}") for side in ("left", "right", "top", "bottom")]
    assert marks == ["R", "L", "S", "I"]
    # On the screen, a voxel with a greater i lies higher, one with a greater j lies farther left.
    origin, along_i, along_j = tab.place(0, 0), tab.place(10, 0), tab.place(0, 10)
    assert along_i[1] < origin[1]
    assert along_i[0] == pytest.approx(origin[0])
    assert along_j[0] < origin[0]
    assert along_j[1] == pytest.approx(origin[1])

    tab.drag((7.5, 5.5, 20.5, 16.5))
    tab.until("samonai.state.current.objects.length === 1")
    (one,) = tab.objects()
    np.testing.assert_allclose(one["box"], (7.5, 5.5, 20.5, 16.5), atol=0.2)
    tab.page.mouse.click(*tab.place(12, 10))
    tab.until("samonai.state.current.objects[0].clicks.length === 1")
    np.testing.assert_allclose(tab.objects()[0]["clicks"][0], (12, 10, 1), atol=0.2)
    tab.page.keyboard.press("Control+z")
    tab.until("samonai.state.current.objects[0].clicks.length === 0")
    assert tab.objects()[0]["mask"] == one["mask"]

    tab.page.keyboard.press("s")
    tab.until("samonai.state.current.state === 'done'")
    mask = workspace.folder("first").masks.read(one["mask"])
    saved = nib.load(workspace.out / "labels" / "first.nii.gz")
    np.testing.assert_allclose(saved.affine, AFFINE)
    voxels = np.asarray(saved.dataobj)
    np.testing.assert_array_equal(voxels[:, :, 2], mask.T)
    assert voxels[8:20, 6:16, 2].mean() > 0.8, "the box was drawn around the bright bar"

    tab.page.keyboard.press("n")
    tab.until("samonai.state.current.case === 'second'")
