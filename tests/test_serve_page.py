"""The annotation page in a headless Chromium: drawn with the mouse, saved, and on the right voxels.

Skipped where Chromium or playwright is missing.
"""

import hashlib
import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from page_tab import Tab, chromium, served
from PIL import Image

from samonai.sam import load_sam
from samonai.serve.annotation import mask_png
from samonai.serve.guard import SECURITY_HEADERS
from samonai.serve.saving import saved_label
from samonai.serve.workspace import Workspace
from samonai.workflows.session import Session

SHAPE = (40, 28, 5)
# Columns run to the patient's head, rows to the right: nothing is as it is on the screen.
AFFINE = np.array([[0, 2.0, 0, 0], [0, 0, -4.0, 0], [1.5, 0, 0, 0], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(load_sam("micro", device="cpu"), device="cpu")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def workspace(session: Session, tmp_path: Path) -> Iterator[Workspace]:
    (tmp_path / "images").mkdir()
    data = np.full(SHAPE, 20, np.int16)
    data[8:20, 6:16] = 220
    for name in ("first", "second"):
        nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "images" / f"{name}.nii.gz")
    cases = session.cases(tmp_path / "images")
    classes = {1: "bar", 2: "wall"}
    found = Workspace(session, cases, tmp_path / "out", classes=classes, user="reader-1")
    found.look_at = lambda *_: None  # type: ignore[method-assign]  # nothing is encoded ahead
    yield found
    found.close()


@pytest.fixture
def address(workspace: Workspace) -> Iterator[str]:
    with served(workspace) as found:
        yield found


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Tab]:
    found = Tab(browser, address)
    yield found
    found.page.close()
    assert found.faults == []


def test_a_box_a_click_undo_and_saving(tab: Tab, workspace: Workspace) -> None:
    # Frames lie across k, which is the patient's anterior-posterior axis: coronal.
    assert tab.page.inner_text("#where").startswith("coronal 3 / 5")
    marks = [tab.page.inner_text(f"#mark-{side}") for side in ("left", "right", "top", "bottom")]
    assert marks == ["R", "L", "S", "I"]
    tab.changes(lambda: tab.drag((7.5, 5.5, 20.5, 16.5)))
    (one,) = tab.objects()
    np.testing.assert_allclose(one["box"], (7.5, 5.5, 20.5, 16.5), atol=0.2)
    tab.changes(lambda: tab.click(12, 10))
    np.testing.assert_allclose(tab.objects()[0]["clicks"][0], (12, 10, 1), atol=0.2)
    tab.changes(lambda: tab.page.keyboard.press("Control+z"))
    assert tab.objects()[0]["clicks"] == []
    assert tab.objects()[0]["mask"] == one["mask"]
    tab.changes(lambda: tab.page.keyboard.press("Control+y"))
    assert len(tab.objects()[0]["clicks"]) == 1
    tab.changes(lambda: tab.page.keyboard.press("Control+z"))

    tab.page.keyboard.press("s")
    tab.until("samonai.state.current.state === 'done'")
    mask = workspace.folder("first").masks.read(one["mask"])
    saved = nib.load(workspace.out / "labels" / "first.nii.gz")
    np.testing.assert_allclose(saved.affine, AFFINE)
    voxels = np.asarray(saved.dataobj)
    np.testing.assert_array_equal(voxels[:, :, 2], mask.T)
    assert voxels[8:20, 6:16, 2].mean() > 0.8, "the box was drawn around the bright bar"

    tab.changes(lambda: tab.page.keyboard.press("Delete"))
    tab.until("!document.getElementById('versions').hidden")
    tab.page.keyboard.press("h")
    assert "reader-1, 1 masks" in tab.page.inner_text("#version-list li")
    tab.page.click("#version-list button")
    tab.until("samonai.state.current.objects.length === 1")
    tab.settled()
    assert tab.objects()[0]["mask"] == one["mask"]

    tab.page.keyboard.press("n")
    tab.until("samonai.state.current.case === 'second'")


def test_an_outline_a_brush_and_a_second_tab(browser: Any, tab: Tab, workspace: Workspace) -> None:
    tab.page.keyboard.press("l")
    around = [(8, 6), (20, 6), (20, 16), (8, 16), (8, 6)]
    tab.changes(lambda: tab.stroke(around))
    (one,) = tab.objects()
    drawn = workspace.folder("first").masks.read(one["outline"])
    expected = np.zeros_like(drawn)
    expected[6:16, 8:20] = True
    assert (drawn != expected).mean() < 0.03, "an outline's border may be off by a pixel"
    other = Tab(browser, tab.page.url)
    tab.page.keyboard.press("b")
    tab.page.evaluate("document.getElementById('size').value = 1")
    tab.changes(lambda: tab.stroke([(2.5, 20.5), (30.5, 20.5)]))
    painted = workspace.folder("first").masks.read(tab.objects()[0]["mask"])
    assert painted[20, 3:30].all()
    assert not painted[19, 25:30].any()
    assert tab.objects()[0]["outline"] == one["outline"]
    # The other tab's change comes too late: it is refused there, and the case is loaded again.
    other.click(3, 3)
    other.until("document.getElementById('message').className === 'error'")
    other.settled()
    assert "changed elsewhere" in other.message()
    assert other.objects() == tab.objects()
    assert [text for text in other.faults if "409" not in text] == []
    other.page.close()


def test_proposals_and_uncertainty(
    tab: Tab, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = np.zeros(SHAPE, np.int32)
    label[9:19, 7:15, 1:4], label[30:36, 2:9, 2] = 1, 2
    monkeypatch.setattr(workspace.session, "predict", lambda _: SimpleNamespace(label=label))
    tab.page.evaluate("samonai.state.info.proposes = true")
    tab.page.evaluate("document.getElementById('propose').hidden = false")
    tab.changes(lambda: tab.page.keyboard.press("g"))
    assert len(tab.objects()) == 4
    assert "4 masks are proposed" in tab.page.inner_text("#pending")
    tab.page.keyboard.press("s")
    tab.until("document.getElementById('message').textContent.includes('neither accepted')")
    tab.page.keyboard.press("1")
    tab.settled()
    tab.changes(lambda: tab.page.keyboard.press("a"))
    assert [one["origin"] for one in tab.objects()].count("accepted") == 3
    tab.changes(lambda: tab.page.keyboard.press("Shift+X"))
    assert {one["origin"] for one in tab.objects()} == {"accepted"}
    tab.page.evaluate("samonai.state.info.proposes = false")
    tab.page.keyboard.press("2")
    tab.page.keyboard.press("u")
    tab.settled()
    assert tab.page.inner_text("#heat-note") == "No uncertainty known"
    tab.changes(lambda: tab.click(33, 5))
    tab.until("samonai.view.heat != null")
    shown = tab.page.evaluate(
        """() => [...samonai.view.heat.getContext("2d").getImageData(0, 0, 40, 28).data]
            .filter((_, n) => n % 4 === 3)"""
    )
    assert max(shown) > 200, "a border has one bit somewhere"
    tab.faults = [text for text in tab.faults if "400" not in text]  # the refused save


def orders() -> Iterator[tuple[str, np.ndarray]]:
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.diag([0.0, 0, 0, 1])
            for column, (row, sign) in enumerate(zip(order, signs, strict=True)):
                affine[row, column] = sign * (1 + 0.5 * column)
            affine[:3, 3] = 5, -7, 11
            yield "".join(nib.aff2axcodes(affine)), affine


# Where the patient's right, front and head are on a screen in radiological convention: (x, y).
AXIAL = {0: (-1, 0), 1: (0, -1)}
CORONAL = {0: (-1, 0), 2: (0, -1)}
SAGITTAL = {1: (-1, 0), 2: (0, -1)}

LINKED = """([i, j, k]) => {
    const { volume, view } = samonai, { viewer } = volume;
    const seen = (n) => {
        const [x, y, z] = viewer.frac2vox(viewer.scene.crosshairPos, 0); // one grid
        return viewer.volumes[n].getValue(x, y, z);
    };
    volume.goToPoint(i + 0.5, j + 0.5);
    const there = [seen(0), seen(1), ...view.cross];
    // NiiVue's own way: the first voxel of its RAS grid in two planes, the same slice.
    const place = viewer.frac2vox(viewer.scene.crosshairPos, 0);
    const axis = viewer.volumes[0].permRAS.findIndex((n) => Math.abs(n) === 3);
    const corner = [0, 1, 2].map((n) => (n === axis ? place[n] : 0));
    viewer.scene.crosshairPos = viewer.vox2frac(corner, 0);
    viewer.createOnLocationChange();
    const size = view.toScreen(0, 0);
    return {
        there, corner: seen(0), place: volume.place,
        x: view.toScreen(1, 0).map((n, side) => n - size[side]),
        y: view.toScreen(0, 1).map((n, side) => n - size[side]),
    };
}"""


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.long)])
def test_the_screen_and_the_three_planes_in_all_48_axis_orders(
    browser: Any, session: Session, tmp_path: Path, every: int
) -> None:
    """All orders with `make faults`; in CI every seventh, which mixes axes and signs."""
    shape = (4, 5, 6)
    values = (np.arange(120).reshape(shape, order="F") + 10).astype(np.int16)
    (tmp_path / "images").mkdir()
    affines = dict(orders())
    assert len(affines) == 48
    affines = dict(sorted(affines.items())[::every])
    for name, affine in affines.items():
        nib.save(nib.Nifti1Image(values, affine), tmp_path / "images" / f"{name}.nii")
    workspace = Workspace(
        session, session.cases(tmp_path / "images"), tmp_path / "out", classes={1: "one"}
    )
    workspace.look_at = lambda *_: None  # type: ignore[method-assign]
    mask = np.zeros((5, 4), bool)
    mask[1, 3] = True
    for name in affines:
        workspace.paint(name, "o", 3, 1, mask_png(mask), 0)
    with served(workspace) as address:
        tab = Tab(browser, address, 900, 560)
        tab.page.keyboard.press("v")
        tab.until("samonai.volume.viewer?.volumes.length === 2")
        tab.page.evaluate("samonai.volume.viewer.opts.multiplanarShowRender = 0")  # 3D is slow here
        for number, name in enumerate(sorted(affines)):
            tab.page.evaluate(f"document.querySelectorAll('#cases li')[{number}].click()")
            tab.until(
                f"samonai.state.current.case === '{name}' && "
                "document.getElementById('volume-note').textContent === '' && "
                "samonai.volume.viewer?.volumes.length === 2"
            )
            tab.settled()
            found = tab.page.evaluate(LINKED, [3, 1, 3])
            assert found["there"] == [values[3, 1, 3], 1, 3.5, 1.5], name
            assert values[tuple(found["place"])] == found["corner"], name
            assert found["place"][2] == 3, name
            affine = affines[name]
            across = int(np.abs(affine[:3, 2]).argmax())
            directions = (SAGITTAL, CORONAL, AXIAL)[across]
            for index, moved in ((0, found["x"]), (1, found["y"])):
                world = int(np.abs(affine[:3, index]).argmax())
                towards = np.array(directions[world]) * np.sign(affine[world, index])
                np.testing.assert_array_equal(np.sign(np.round(moved, 6)), towards, name)
        assert tab.faults == []
        tab.page.close()


def test_masks_follow_in_the_volume_and_the_frame_follows_the_crosshair(
    tab: Tab, workspace: Workspace
) -> None:
    tab.page.keyboard.press("v")
    tab.until("samonai.volume.viewer?.volumes.length === 2")
    tab.settled()
    sent: list[str] = []
    tab.page.on("request", lambda request: sent.append(request.url))
    tab.changes(lambda: tab.drag((7.5, 5.5, 20.5, 16.5)))
    mask = workspace.folder("first").masks.read(tab.objects()[0]["mask"])
    (y, x), (far_y, far_x) = np.argwhere(mask)[[0, -1]].tolist()
    tab.until(f"samonai.volume.labelAt([{x}, {y}, 2]) === 1")
    assert tab.page.evaluate(f"samonai.volume.labelAt([{far_x}, {far_y}, 2])") == 1
    assert tab.page.evaluate(f"samonai.volume.labelAt([{x}, {y}, 1])") == 0
    assert not [url for url in sent if "label.nii" in url or "volume.nii" in url]
    tab.page.evaluate(
        """() => {
            const { viewer } = samonai.volume;
            viewer.scene.crosshairPos = viewer.mm2frac([2 * 5, -4 * 4, 1.5 * 9]);
            viewer.createOnLocationChange();
        }"""
    )
    tab.until("samonai.state.frame === 4")
    assert tab.page.evaluate("samonai.volume.place") == [9, 5, 4]
    assert tab.page.evaluate("samonai.view.cross") == [9.5, 5.5]
    tab.page.keyboard.press("w")
    tab.settled()
    low, high = workspace.opened("first").source.quantiles(0.5, 99.5)
    shown = tab.page.evaluate("samonai.volume.viewer.volumes[0]").get("cal_max")
    assert shown == pytest.approx(high)
    assert f"low={low:g}".split(".")[0] in tab.page.evaluate("samonai.view.picture.src")


NO_WEBGL = """
    const get = HTMLCanvasElement.prototype.getContext;
    HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
        return kind.startsWith("webgl") ? null : get.call(this, kind, ...more);
    };
"""


def test_without_webgl_the_page_says_so_and_works(browser: Any, address: str) -> None:
    tab = Tab(browser, address, before=NO_WEBGL)
    tab.page.keyboard.press("v")
    tab.until("document.getElementById('volume-note').textContent.includes('no WebGL 2')")
    tab.settled()
    tab.changes(lambda: tab.click(12, 10))
    assert len(tab.objects()) == 1
    assert tab.faults == []
    tab.page.close()


@pytest.mark.parametrize("domain", ["satellite", "documents"])
def test_rasters_and_pages_are_drawn_on_as_they_are(
    domain: str, browser: Any, session: Session, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    pixels = np.full((48, 70, 3), 230, np.uint8)
    pixels[10:30, 40:62] = 40
    if domain == "satellite":
        rasterio = pytest.importorskip("rasterio")
        with rasterio.open(
            tmp_path / "images" / "scene.tif", "w", driver="GTiff", width=70, height=48, count=3,
            dtype="uint8", crs="EPSG:32632", transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6),
        ) as raster:  # fmt: skip
            raster.write(pixels.transpose(2, 0, 1))
    else:
        Image.fromarray(pixels).save(tmp_path / "images" / "scene.png")
    own = Session(session.networks[0], domain=domain, device="cpu")
    workspace = Workspace(
        own, own.cases(tmp_path / "images"), tmp_path / "out", classes={1: "table"}
    )
    workspace.look_at = lambda *_: None  # type: ignore[method-assign]
    with served(workspace) as address:
        tab = Tab(browser, address)
        origin, right, down = tab.place(0, 0), tab.place(10, 0), tab.place(0, 10)
        assert right[0] - origin[0] == pytest.approx(down[1] - origin[1])
        assert right[0] > origin[0]
        assert tab.page.is_hidden("#toggle-volume")
        assert tab.page.is_hidden("#window-box")
        tab.changes(lambda: tab.drag((38, 8, 64, 32)))
        tab.page.keyboard.press("s")
        tab.until("samonai.state.current.state === 'done'")
        (case_id,) = workspace.cases
        drawn = workspace.folder(case_id).masks.read(tab.objects()[0]["mask"])
        saved = np.asarray(Image.open(saved_label(workspace.out, case_id)))
        assert saved.shape == drawn.shape == (48, 70)
        np.testing.assert_array_equal(saved > 0, drawn)
        assert drawn[12:28, 42:60].mean() > 0.8
        assert tab.faults == []
        tab.page.close()


def test_every_key_of_the_list_is_there(tab: Tab) -> None:
    listed = tab.page.inner_text("#keys").lower()
    for words in (
        "outline", "eraser", "undo, redo", "carry both ways", "next window", "uncertainty",
        "three planes", "save as done", "next case", "find a case", "train",
    ):  # fmt: skip
        assert words in listed
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("sec")
    assert tab.page.inner_text("#cases").split() == ["second", "unlabelled"]
    tab.page.keyboard.press("Enter")
    tab.until("samonai.state.current.case === 'second'")
    tab.settled()
    tab.page.click("#ready", position={"x": 3, "y": 3})
    tab.until("samonai.state.frame === 0")


def test_niivue_is_the_pinned_file_with_its_licences_beside_it() -> None:
    path = Path(__file__).parents[1] / "tools" / "niivue.py"
    spec = importlib.util.spec_from_file_location("niivue_tool", path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert hashlib.sha256(tool.FILE.read_bytes()).hexdigest() == tool.FILE_SHA256
    assert "BSD 2-Clause License" in (tool.FILE.parent / "LICENSES.txt").read_text()


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = Path(__file__).parents[1] / "samonai" / "serve" / "page"
    for path in (*page.glob("*.js"), *page.glob("*.html"), *page.glob("*.css")):
        text = path.read_text(encoding="utf-8")
        assert "//www." not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
        assert len(text.splitlines()) <= 400
    assert SECURITY_HEADERS["content-security-policy"].startswith("default-src 'self';")
