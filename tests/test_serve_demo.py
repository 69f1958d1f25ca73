"""A newcomer's first minutes: `samonai serve --demo` in a headless Chromium, click to training.

The mouse and the keys are all that is used. With SAMONAI_PAGE_PICTURES the pictures of the docs are
kept in that folder.
"""

import queue
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import uvicorn
from page_tab import Tab, chromium
from scipy import ndimage

from samonai.cli import main
from samonai.core.frame import mask_box
from samonai.serve.annotation import AnnotationFolder
from samonai.serve.learning import Learner

LIVER = 1
SLICES = (4, 8)


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Run the command as typed, and yield the address that it opens, and the workspace."""
    opened: queue.Queue[str] = queue.Queue()
    servers: list[uvicorn.Server] = []
    run = uvicorn.Server.run

    def running(self: uvicorn.Server, *args: Any, **kwargs: Any) -> None:
        servers.append(self)
        run(self, *args, **kwargs)

    def in_this_process(self: Learner, arguments: list[str], log: Path) -> int:
        log.touch()
        return main(arguments)

    monkeypatch.setattr("webbrowser.open", opened.put)
    monkeypatch.setattr(uvicorn.Server, "run", running)
    # Another process would import everything once more, three times.
    monkeypatch.setattr(Learner, "_in_own_process", in_this_process)
    out = tmp_path / "annotation"
    arguments = ["serve", "--demo", "--port", "0", "--epochs", "12", "--out", str(out)]
    thread = threading.Thread(target=main, args=[[*arguments, "--user", "newcomer"]], daemon=True)
    thread.start()
    yield opened.get(timeout=120), out
    servers[0].should_exit = True
    thread.join(60)


def test_a_newcomer_clicks_corrects_saves_trains_and_the_next_case_starts_better(
    demo: tuple[str, Path],
) -> None:
    address, out = demo
    with chromium(webgl=False) as browser:
        tab = Tab(browser, address)
        tab.page.click("#cases li:nth-child(3)")
        tab.until("samonai.state.current.case === 'phantom_003'")
        before = first_boxes(tab, truth(out, 3))
        for index in SLICES:  # only looked at: nothing is left of it
            go_to(tab, index)
            tab.changes(lambda: tab.page.keyboard.press("Delete"))
        for number in (1, 2):
            tab.page.click(f"#cases li:nth-child({number})")
            tab.until(f"samonai.state.current.case === 'phantom_00{number}'")
            for index in SLICES:
                correct(tab, out, number, index)
            tab.page.keyboard.press("s")
            tab.until("samonai.state.current.state === 'done'")
            tab.settled()
        tab.picture("annotate-saved")

        tab.page.keyboard.press("t")
        tab.until("document.getElementById('curve').hidden === false", 300)
        tab.picture("annotate-training")
        said = "document.getElementById('message').textContent"
        tab.until(f"{said}.startsWith('The new decoder is in use: Dice')", 300)
        number, cases, old, new, used = tab.page.inner_text("#rounds tbody").split(maxsplit=4)
        assert (number, cases, used) == ("1", "2", "in use")
        assert float(new) > float(old)
        assert "fine-tuned" in tab.page.inner_text("#model")

        tab.page.keyboard.press("n")
        tab.until("samonai.state.current.case === 'phantom_003'")
        after = first_boxes(tab, truth(out, 3))
        tab.picture("annotate-next")
        assert np.mean(after) > np.mean(before)
        assert tab.faults == []
        tab.page.keyboard.press("r")
        tab.until("document.getElementById('model').textContent.includes('not fine-tuned')")
        tab.page.close()


def truth(out: Path, number: int) -> np.ndarray:
    """Return where the liver is, bool (I, J, K)."""
    path = out / "demo-images" / "labelsTr" / f"phantom_00{number}.nii.gz"
    return np.asarray(nib.load(path).dataobj) == LIVER


def go_to(tab: Tab, index: int) -> None:
    """Choose a frame with the slider."""
    tab.page.evaluate(
        """(index) => {
            const slider = document.getElementById("slice");
            slider.value = index;
            slider.dispatchEvent(new Event("input"));
        }""",
        index,
    )
    tab.until(f"samonai.view.picture.src.includes('/frames/{index}.png')")
    tab.settled()


def shown_dice(tab: Tab) -> float:
    """Return the Dice of the liver on the frame, as the page shows it."""
    row = "document.querySelector('#structures li').textContent"
    tab.until(f"{row}.includes(' here')")
    found = re.search(r"Dice ([\d.]+) here", tab.page.evaluate(row))
    assert found
    return float(found[1])


def first_boxes(tab: Tab, liver: np.ndarray) -> list[float]:
    """Draw a rough box on each slice, and return what the page says of the masks."""
    found = []
    for index in SLICES:
        go_to(tab, index)
        x0, y0, x1, y1 = mask_box(liver[:, :, index].T)
        tab.changes(lambda box=(x0 - 1, y0 - 2, x1 + 2, y1 + 1): tab.drag(box))
        found.append(shown_dice(tab))
    return found


def correct(tab: Tab, out: Path, number: int, index: int) -> None:
    """Click on the liver, then mend the mask with a second click, the eraser and the brush."""
    liver = truth(out, number)[:, :, index].T
    go_to(tab, index)
    liver = max(pieces(liver), key=np.sum)
    rows, columns = np.nonzero(liver)
    middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    x, y = columns[middle] + 0.5, rows[middle] + 0.5
    tab.changes(lambda: tab.click(x, y))
    if (number, index) == (1, SLICES[0]):
        tab.picture("annotate-click")
        tab.changes(lambda: tab.click(90, 4, button="right"))
        assert tab.objects()[0]["clicks"][1][2] == 0
    case = f"phantom_00{number}"
    folder = AnnotationFolder(out / "annotations" / case, case)

    def drawn() -> np.ndarray:
        (one,) = [o for o in tab.objects() if o["frame"] == index]
        return folder.masks.read(one["mask"])

    tab.page.evaluate("document.getElementById('size').value = 1")
    tab.page.keyboard.press("e")
    for region in pieces(drawn() & ~liver):
        tab.changes(lambda region=region: tab.stroke(inside(region)))
    tab.page.keyboard.press("b")
    tab.changes(lambda: tab.stroke(inside(liver)))
    tab.page.keyboard.press("p")
    mask = drawn()
    assert 2 * (mask & liver).sum() / (mask.sum() + liver.sum()) > 0.93


def pieces(mask: np.ndarray) -> list[np.ndarray]:
    """Return the connected parts of a mask, without specks."""
    numbers, count = ndimage.label(mask)
    found = [numbers == number for number in range(1, count + 1)]
    return [one for one in found if one.sum() > 3]


def inside(region: np.ndarray) -> list[tuple[float, float]]:
    """Return one stroke over every pixel of a connected region that never leaves the region."""
    runs = [
        (y, int(part[0]), int(part[-1]))
        for y in np.flatnonzero(region.any(1)).tolist()
        for part in _runs(np.flatnonzero(region[y]))
    ]
    points: list[tuple[float, float]] = []
    seen: set[tuple[int, int, int]] = set()

    def visit(run: tuple[int, int, int]) -> None:
        seen.add(run)
        y, first, last = run
        points.extend([(first + 0.5, y + 0.5), (last + 0.5, y + 0.5)])
        for other in runs:
            shared = max(first, other[1]), min(last, other[2])
            if other in seen or abs(other[0] - y) != 1 or shared[0] > shared[1]:
                continue
            points.extend([(shared[0] + 0.5, y + 0.5), (shared[0] + 0.5, other[0] + 0.5)])
            visit(other)
            points.extend([(shared[0] + 0.5, other[0] + 0.5), (shared[0] + 0.5, y + 0.5)])

    visit(runs[0])
    return points


def _runs(columns: np.ndarray) -> list[np.ndarray]:
    return np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
