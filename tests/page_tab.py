"""A tab of a headless Chromium on the annotation page, and a server for it."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from local_server import running

from samonai.serve.guard import Guard, limits_of
from samonai.serve.routes import annotation_app
from samonai.serve.workspace import Workspace

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("needs Chromium", allow_module_level=True)

SECONDS = 60.0
# WebGL 2 is drawn by the processor.
_WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PICTURES = os.environ.get("SAMONAI_PAGE_PICTURES")
"""A folder that pictures of the page are kept in; unset: they are not made."""


_MOVES = """(points) => {
    const canvas = document.getElementById("view"), place = canvas.getBoundingClientRect();
    for (const [x, y] of points) {
        const [left, top] = samonai.view.toScreen(x, y);
        const at = { clientX: place.left + left, clientY: place.top + top };
        canvas.dispatchEvent(new PointerEvent("pointermove", { ...at, bubbles: true, buttons: 1 }));
    }
}"""


@contextmanager
def chromium(*, webgl: bool = True) -> Iterator[Any]:
    """Start a browser; one at a time."""
    with sync_api.sync_playwright() as playwright:
        drawing = _WEBGL if webgl else ["--disable-gpu"]
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *drawing]
        )
        yield browser
        browser.close()


@contextmanager
def served(workspace: Workspace) -> Iterator[str]:
    """Serve a workspace, and return the page's address."""
    with running(Guard(annotation_app(workspace), limits_of("127.0.0.1"))) as port:
        yield f"http://127.0.0.1:{port}/"


class Tab:
    """One tab; waits by looking, since the page's policy forbids evaluating text inside it."""

    def __init__(
        self, browser: Any, address: str, width: int = 1280, height: int = 800, before: str = ""
    ) -> None:
        self.faults: list[str] = []
        self.page = page = browser.new_page(viewport={"width": width, "height": height})
        page.add_init_script(before)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        page.goto(address)
        self.until("globalThis.samonai?.view?.picture != null")

    def until(self, script: str, seconds: float = SECONDS) -> None:
        """Wait until a script is true."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(script):
            assert time.monotonic() < end, (script, self.page.inner_text("#message"), self.faults)
            time.sleep(0.02)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the frame is in the window."""
        script = """([x, y]) => {
            const place = document.getElementById("view").getBoundingClientRect();
            const [left, top] = samonai.view.toScreen(x, y);
            return [place.left + left, place.top + top];
        }"""
        left, top = self.page.evaluate(script, [x, y])
        return left, top

    def stroke(self, points: Any) -> None:
        """Drag the mouse over points of the frame."""
        first, *between, last = points
        self.page.mouse.move(*self.place(*first))
        self.page.mouse.down()
        # The browser takes one movement of the mouse per picture; these come at once.
        self.page.evaluate(_MOVES, between)
        self.page.mouse.move(*self.place(*last))
        self.page.mouse.up()

    def drag(self, box: tuple[float, float, float, float]) -> None:
        """Draw a box, xyxy in frame space."""
        x0, y0, x1, y1 = box
        self.stroke([(x0, y0), ((x0 + x1) / 2, (y0 + y1) / 2), (x1, y1)])

    def click(self, x: float, y: float, button: str = "left") -> None:
        """Click on a point of the frame."""
        self.page.mouse.click(*self.place(x, y), button=button)

    def settled(self) -> None:
        """Wait until no change is under way, and the page is laid out again."""
        self.page.evaluate(
            """() => samonai.state.busy.then(() => new Promise((done) =>
                requestAnimationFrame(() => requestAnimationFrame(() => done(true)))))"""
        )

    def revision(self) -> int:
        """Return the number of changes so far."""
        found: int = self.page.evaluate("samonai.state.current.revision")
        return found

    def changes(self, action: Any) -> None:
        """Do something, and wait until the annotation has changed."""
        before = self.revision()
        action()
        self.until(f"samonai.state.current.revision > {before}")
        self.settled()

    def objects(self) -> list[dict[str, Any]]:
        """Return the objects of the case."""
        found: list[dict[str, Any]] = self.page.evaluate("samonai.state.current.objects")
        return found

    def message(self) -> str:
        """Return the line below the frame."""
        return str(self.page.inner_text("#message"))

    def picture(self, name: str) -> None:
        """Keep a picture of the page, if pictures are wanted."""
        if PICTURES:
            self.page.screenshot(path=str(Path(PICTURES) / f"{name}.png"))
