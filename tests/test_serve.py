"""Annotation server: clicks, saving, restarts and tabs, over the API that the page uses."""

import base64
import gzip
import io
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.core.geometry import FrameGeometry
from samonai.domains.base import Case
from samonai.inference.case_dataset import prompted
from samonai.inference.frame_outputs import Automatic
from samonai.inference.refining import mask_logits
from samonai.inference.uncertainty import SourceCertainty
from samonai.prompts.frame_prompts import FramePrompts
from samonai.sam.decoder_file import save_decoder
from samonai.sam.decoder_metadata import DecoderMetadata
from samonai.serve.annotation import mask_png, png_of
from samonai.serve.encoding import EncodingQueue, outward
from samonai.serve.guard import Guard, Limits
from samonai.serve.learning import Learner, latest_run
from samonai.serve.routes import annotation_app
from samonai.serve.scoring import CaseScorer
from samonai.serve.server import ServeOptions, open_workspace, ranked
from samonai.serve.workspace import Workspace
from samonai.workflows.session import Session

CASES = ("first", "second")
SHAPE = (40, 32, 6)
AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session("micro", store=tmp_path_factory.mktemp("store"), device="cpu")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    i, j, _ = np.indices(SHAPE)
    for number, name in enumerate(CASES):
        ball = (i - 14 - number) ** 2 + (j - 16) ** 2 < 64
        data = np.where(ball, 200, 20).astype(np.int16)
        nib.save(nib.Nifti1Image(data, AFFINE), folder / f"{name}.nii.gz")
    return folder


def workspace_of(session: Session, images: Path, out: Path, **more: Any) -> Workspace:
    classes = {1: "ball", 2: "wall"}
    return Workspace(session, session.cases(images), out, classes=classes, user="reader-1", **more)


@pytest.fixture
def client(session: Session, images: Path, tmp_path: Path) -> Iterator[TestClient]:
    app = annotation_app(workspace_of(session, images, tmp_path / "out"))
    guarded = Guard(app, Limits(frozenset({"localhost"})))
    with TestClient(guarded, base_url="http://localhost") as found:
        yield found


def click(client: TestClient, revision: int, clicks: list[list[float]], **more: Any) -> Any:
    given = {"value": 1, "clicks": clicks, "revision": revision, **more}
    return client.put("/api/cases/first/frames/2/objects/one", json=given)


def mask_of(answer: Any) -> np.ndarray:
    found = answer.json()
    data = base64.b64decode(found["masks"][found["objects"][0]["mask"]])
    return np.asarray(Image.open(io.BytesIO(data)).convert("L")) > 127


def test_a_click_gives_the_mask_that_the_session_gives(
    client: TestClient, session: Session, images: Path
) -> None:
    answer = click(client, 0, [[14.5, 16.5, 1]])
    assert answer.status_code == 200
    source = session.cases(images / "first.nii.gz")[0]
    expected = session.refine(source, [(14.5, 16.5, 1)], frame=2)
    np.testing.assert_array_equal(mask_of(answer), expected.mask)
    again = click(client, 1, [[14.5, 16.5, 1], [3.5, 3.5, 0]])
    second = session.refine(
        source, [(14.5, 16.5, 1), (3.5, 3.5, 0)], expected.low_res_logits, frame=2
    )
    np.testing.assert_array_equal(mask_of(again), second.mask)


def test_a_click_that_is_taken_back_gives_the_mask_before(client: TestClient) -> None:
    first = click(client, 0, [[14.5, 16.5, 1]])
    click(client, 1, [[14.5, 16.5, 1], [3.5, 3.5, 0]])
    restored = client.post(
        "/api/cases/first/restore", json={**first.json()["objects"][0], "revision": 2}
    )
    np.testing.assert_array_equal(mask_of(restored), mask_of(first))
    assert restored.json()["objects"][0]["clicks"] == [[14.5, 16.5, 1]]


def test_a_saved_label_lies_on_the_images_grid_and_earlier_versions_stay(
    client: TestClient, images: Path, tmp_path: Path
) -> None:
    mask = mask_of(click(client, 0, [], box=[5, 7, 24, 26]))
    saved = client.post("/api/cases/first/save", json={"revision": 1}).json()
    label = nib.load(tmp_path / "out" / saved["files"][0])
    np.testing.assert_allclose(label.affine, AFFINE)
    voxels = np.asarray(label.dataobj)
    np.testing.assert_array_equal(voxels[:, :, 2], mask.T)  # rows j and columns i
    assert not voxels[:, :, [0, 1, 3, 4, 5]].any()
    past = json.loads((tmp_path / "out/history/first/0001/record.json").read_text())
    assert (past["user"], past["version"]) == ("reader-1", 1)
    assert past["annotation"]["objects"][0]["box"] == [5, 7, 24, 26]
    client.request(
        "DELETE", "/api/cases/first/frames/2/objects/one", json={"revision": saved["revision"]}
    )
    second = client.post("/api/cases/first/save", json={"revision": saved["revision"] + 1}).json()
    assert second["version"] == 2
    assert not np.asarray(nib.load(tmp_path / "out" / second["files"][0]).dataobj).any()
    kept = nib.load(tmp_path / "out/history/first/0001/first.nii.gz")
    np.testing.assert_array_equal(np.asarray(kept.dataobj), voxels)
    audit = (tmp_path / "out" / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["version"] for line in audit] == [1, 2]
    assert client.get("/api/cases").json()[0] == {"case": "first", "state": "done", "score": None}
    assert client.get("/api/next").json() == {"case": "second"}


def test_prompts_and_masks_are_there_after_a_restart(
    client: TestClient, session: Session, images: Path, tmp_path: Path
) -> None:
    mask = mask_of(click(client, 0, [[14.5, 16.5, 1]]))
    again = workspace_of(session, images, tmp_path / "out")
    one = again.opened("first")
    again.close()
    assert one.annotation.objects[0].clicks == ((14.5, 16.5, 1),)
    np.testing.assert_array_equal(again.frame_labels(one)[2] > 0, mask)


def test_a_second_tab_does_not_overwrite_the_first(client: TestClient) -> None:
    click(client, 0, [[14.5, 16.5, 1]])
    late = click(client, 0, [[3.5, 3.5, 1]])
    assert late.status_code == 409
    assert "changed elsewhere" in late.json()["detail"]


def test_a_damaged_annotation_is_refused(
    client: TestClient, session: Session, images: Path, tmp_path: Path
) -> None:
    click(client, 0, [[14.5, 16.5, 1]])
    path = tmp_path / "out/annotations/first/annotation.json"
    path.write_text(path.read_text().replace("14.5", "15.5"))
    again = workspace_of(session, images, tmp_path / "out")
    with pytest.raises(InputError, match="is damaged"):
        again.opened("first")
    again.close()


def test_an_object_is_carried_to_the_slices_beside_it(client: TestClient) -> None:
    click(client, 0, [], box=[5, 7, 24, 26])
    carried = client.post(
        "/api/cases/first/frames/2/objects/one/carry", json={"reach": 1, "revision": 1}
    ).json()
    assert {one["frame"] for one in carried["objects"]} <= {1, 3}
    assert all(one["origin"] == "carried" for one in carried["objects"])
    assert carried["objects"], "every slice of this volume is the same"
    kept = client.get("/api/cases/first").json()["objects"]
    assert [one["origin"] for one in kept if one["frame"] == 2] == ["prompt"]


def test_masks_of_clicks_and_carried_ones_leave_out_what_is_not_valid(
    session: Session, tmp_path: Path
) -> None:
    data = np.where(np.indices(SHAPE)[0] < 20, 200, 20).astype(np.float32)
    data[8:11] = np.nan
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "holes.nii.gz")
    (case,) = session.cases(tmp_path / "holes.nii.gz")
    clicked = session.refine(case, [], frame=2, box=(0, 0, 20, 32))
    prompts = FramePrompts(np.array([[0, 0, 20, 32]], np.float32), np.ones(1, np.int64))
    carried = session.carry(case, 2, prompts, 1)
    assert set(carried) == {1, 2, 3}
    for mask in (clicked.mask, *(one.mask for one in carried.values())):
        assert not mask[:, 8:11].any()
        assert mask[:, 2:7].mean() > 0.5


def test_a_painted_mask_is_kept_as_it_is(client: TestClient) -> None:
    mask = np.zeros((SHAPE[1], SHAPE[0]), np.uint8)
    mask[3:7, 10:20] = 255
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    given = {"value": 2, "png": base64.b64encode(buffer.getvalue()).decode(), "revision": 0}
    answer = client.put("/api/cases/first/frames/0/objects/two/paint", json=given)
    np.testing.assert_array_equal(mask_of(answer), mask > 0)
    figures = client.get("/api/cases/first/figures").json()
    assert figures["wall"]["ml"] == pytest.approx(40 * 2 * 2 * 5 / 1000)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"value": 9}, "no structure has it"),
        ({"value": 1, "clicks": [[50, 3, 1]]}, "expected a place on 40 x 32 pixels"),
        ({"value": 1, "clicks": [[5, 3]]}, "expected [x, y, sign] each"),
        ({"value": 1, "box": [5, 5, 5, 9]}, "no area"),
        ({"value": 1}, "draw a box or an outline"),
        ({"value": 1, "clicks": [[1, 1, 1]], "revision": None}, "revision"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused_in_one_line(
    client: TestClient, given: dict[str, Any], words: str
) -> None:
    answer = client.put(
        "/api/cases/first/frames/2/objects/one", json={"clicks": [], "revision": 0, **given}
    )
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


@pytest.mark.parametrize(
    "path", ["/api/cases/third", "/api/cases/first/frames/6.png", "/api/cases/..%2Fimages"]
)
def test_what_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_frame_is_shown_as_the_model_sees_it(
    client: TestClient, session: Session, images: Path
) -> None:
    data = client.get("/api/cases/first/frames/2.png").content
    source = session.domain.read(session.cases(images / "first.nii.gz")[0])
    shown = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(shown, session.domain.frame(source, 2).image[..., 0])


def test_frames_are_encoded_from_the_visible_one_outward() -> None:
    assert list(outward(2, 6)) == [2, 3, 1, 4, 0, 5]
    assert list(outward(0, 3)) == [0, 1, 2]
    assert list(outward(5, 6, reach=1)) == [5, 4]


def in_this_process(arguments: list[str], log: Path) -> int:
    log.touch()
    return main(arguments)


def test_an_outline_prompts_the_decoder_as_a_mask(
    client: TestClient, session: Session, images: Path
) -> None:
    outline = np.zeros((SHAPE[1], SHAPE[0]), bool)
    outline[10:24, 8:22] = True
    png = base64.b64encode(mask_png(outline)).decode()
    first = click(client, 0, [], outline=png)
    source = session.cases(images / "first.nii.gz")[0]
    expected = session.refine(source, [], mask_logits(outline, 1024), frame=2, box=(8, 10, 22, 24))
    np.testing.assert_array_equal(mask_of(first), expected.mask)
    (one,) = first.json()["objects"]
    assert one["box"] is None
    # A click refines the answer to the outline, which is named from now on.
    second = click(client, 1, [[14.5, 16.5, 1]], outline=one["outline"])
    again = session.refine(
        source, [(14.5, 16.5, 1)], expected.low_res_logits, frame=2, box=(8, 10, 22, 24)
    )
    np.testing.assert_array_equal(mask_of(second), again.mask)
    empty = base64.b64encode(mask_png(np.zeros_like(outline))).decode()
    refused = click(client, 2, [], outline=empty)
    assert "draw around something" in refused.json()["detail"]


def test_a_saved_version_can_be_gone_back_to(client: TestClient) -> None:
    first = click(client, 0, [], box=[5, 7, 24, 26])
    revision = client.post("/api/cases/first/save", json={"revision": 1}).json()["revision"]
    changed = click(client, revision, [[3.5, 3.5, 1]])
    saved = client.post("/api/cases/first/save", json={"revision": changed.json()["revision"]})
    versions = client.get("/api/cases/first/history").json()
    assert [(one["version"], one["user"], one["objects"]) for one in versions] == [
        (2, "reader-1", 1), (1, "reader-1", 1),
    ]  # fmt: skip
    before = {"revision": saved.json()["revision"]}
    back = client.post("/api/cases/first/history/1", json=before).json()
    assert back["state"] == "corrected"
    (one,) = back["objects"]
    assert one["box"] == [5, 7, 24, 26]
    assert client.get(f"/api/cases/first/masks/{one['mask']}.png").status_code == 200
    assert one["mask"] == first.json()["objects"][0]["mask"]
    missing = client.post("/api/cases/first/history/9", json={"revision": back["revision"]})
    assert "no such version" in missing.json()["detail"]


def test_uncertainty_of_a_frame_is_the_entropy_of_its_masks(
    client: TestClient, session: Session, images: Path
) -> None:
    assert client.get("/api/cases/first/frames/2/uncertainty.png").status_code == 404
    click(client, 0, [[14.5, 16.5, 1]])
    found = np.asarray(
        Image.open(io.BytesIO(client.get("/api/cases/first/frames/2/uncertainty.png").content))
    )
    source = session.cases(images / "first.nii.gz")[0]
    logits = session.refine(source, [(14.5, 16.5, 1)], frame=2).low_res_logits
    height, width = SHAPE[1], SHAPE[0]
    geometry = FrameGeometry((height, width))
    on_frame = geometry.logits_to_frame(torch.from_numpy(logits)[None])[0, 0].double().numpy()
    p = 1 / (1 + np.exp(-on_frame))
    bits = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    np.testing.assert_allclose(found / 255, bits, atol=0.5 / 255 + 1e-5)


def test_windows_change_what_is_shown_and_not_what_is_encoded(
    client: TestClient, session: Session, images: Path
) -> None:
    case = client.get("/api/cases/first").json()
    assert list(case["windows"]) == ["0.5 to 99.5 %", "5 to 95 %", "0 to 100 %"]
    assert case["windows"]["0 to 100 %"] == [20, 200]
    shown = client.get("/api/cases/first/frames/2.png?low=0&high=400").content
    ball = nib.load(images / "first.nii.gz").get_fdata()[..., 2].T
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(shown))), np.floor(ball / 400 * 255 + 0.5)
    )
    assert client.get("/api/cases/first/frames/2.png?low=x&high=4").status_code == 400


def test_the_volume_and_its_masks_are_sent_in_the_files_own_order(
    client: TestClient, images: Path
) -> None:
    mask = mask_of(click(client, 0, [], box=[5, 7, 24, 26]))
    volume = nib.Nifti1Image.from_bytes(client.get("/api/cases/first/volume.nii").content)
    original = nib.load(images / "first.nii.gz")
    np.testing.assert_array_equal(np.asarray(volume.dataobj), np.asarray(original.dataobj))
    np.testing.assert_allclose(volume.affine, AFFINE)
    packed = client.get("/api/cases/first/label.nii.gz").content
    label = nib.Nifti1Image.from_bytes(gzip.decompress(packed))
    np.testing.assert_array_equal(np.asarray(label.dataobj)[:, :, 2], mask.T)


def test_no_frame_is_encoded_while_a_click_waits() -> None:
    encoded: list[int] = []
    queue = EncodingQueue(lambda _, frame: encoded.append(frame))
    with queue.click():
        queue.look_at("one", 0, 2)
        assert not encoded
    queue.wait_until_idle(lambda: False)
    assert encoded == [0, 1]
    queue.stop()


def test_a_click_in_a_large_volume_sends_a_slice(session: Session, tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((512, 512, 40))
    header.set_sform(np.eye(4), 1)
    header["vox_offset"] = 352
    (tmp_path / "images").mkdir()
    with (tmp_path / "images" / "large.nii").open("wb") as file:
        file.write(header.binaryblock[:344] + b"n+1\0" + bytes(4))
        file.seek(352 + 512 * 512 * 20)
        noise = np.random.default_rng(0).integers(0, 255, 512 * 512, np.uint8)
        file.write(noise.tobytes())
        file.truncate(352 + 512 * 512 * 40)
    app = annotation_app(workspace_of(session, tmp_path / "images", tmp_path / "out"))
    with TestClient(
        Guard(app, Limits(frozenset({"localhost"}))), base_url="http://localhost"
    ) as client:
        given = {"value": 1, "clicks": [[256, 256, 1]], "revision": 0}
        answer = client.put("/api/cases/large/frames/20/objects/one", json=given)
        noisy = np.random.default_rng(1).random((512, 512)) < 0.5
        png = base64.b64encode(mask_png(noisy)).decode()
        given = {"value": 1, "png": png, "revision": 1}
        worst = client.put("/api/cases/large/frames/20/objects/two/paint", json=given)
    assert answer.status_code == worst.status_code == 200
    assert mask_of(answer).shape == (512, 512)
    assert len(answer.content) <= 300_000
    assert len(worst.content) <= 300_000, "a mask that no compression helps"


def test_proposals_are_accepted_or_dismissed_before_they_are_saved(
    session: Session, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = np.zeros(SHAPE, np.int32)
    label[3:9, 4:8, 1:4], label[20:30, 9:20, 2:4] = 1, 2
    monkeypatch.setattr(session, "predict", lambda _: SimpleNamespace(label=label))
    workspace = workspace_of(session, images, tmp_path / "out")
    workspace.paint("first", "proposal-1", 2, 1, mask_png(np.ones(SHAPE[1::-1], bool)), 0)
    drawn = workspace.propose("first", 1)
    assert {o.origin for o in drawn} == {"proposal"}
    keys = {("proposal-1", 1), ("proposal-1", 3), ("proposal-2", 2), ("proposal-2", 3)}
    assert {o.key for o in drawn} == keys, "what was drawn stays"
    for o in drawn:
        found = workspace.folder("first").masks.read(o.mask)
        np.testing.assert_array_equal(found.T, label[:, :, o.frame] == o.value)
    with pytest.raises(InputError, match="4 proposed masks are neither accepted"):
        workspace.save("first", 2)
    accepted = workspace.accept("first", "proposal-2", 2)
    assert {o.key for o in accepted} == {("proposal-2", 2), ("proposal-2", 3)}
    workspace.dismiss("first", None, 3)
    left = workspace.opened("first").annotation
    assert [o.origin for o in left.objects] == ["paint", "accepted", "accepted"]
    assert {o.key for o in workspace.propose("first", 4)} == {("proposal-1", 1), ("proposal-1", 3)}
    with pytest.raises(InputError, match="no such proposal"):
        workspace.accept("first", "other", 5)
    workspace.close()


def test_cases_come_by_their_scores_once_a_model_can_score_them(
    session: Session, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = session.networks[0].fork().add_semantic_head([1, 2])
    proposing, images = Session(network, store=session.store, device="cpu"), tmp_path / "images"
    images.mkdir()
    for number, name in enumerate(CASES):
        data = np.indices((40, 32, 1))[number].astype(np.int16)
        nib.save(nib.Nifti1Image(data, AFFINE), images / f"{name}.nii.gz")
    workspace = workspace_of(proposing, images, tmp_path / "out")
    assert workspace.next_case() == "first"
    scorer = CaseScorer(workspace)
    end = time.monotonic() + 60
    while len(workspace.scores) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    scorer.stop()
    for name in CASES:
        source = workspace.opened(name).source
        item = prompted(proposing.domain, Case(name, images), source, lambda *_: Automatic())
        seen = SourceCertainty(proposing.domain, source, [])
        proposing.decode(item, uncertainty=False, observers=[seen])
        figures = [f["uncertainty"] for f in seen.document({}).values()]
        known = [value for value in figures if value is not None]
        assert workspace.scores[name] == pytest.approx(sum(known) / len(known))
    order = sorted(CASES, key=lambda name: -workspace.scores[name])
    assert [workspace.next_case(), workspace.next_case(order[0])] == order
    workspace.use(session)
    assert workspace.scores == {}
    workspace.close()


def test_training_reads_as_the_session_does_and_begins_with_its_decoder(
    images: Path, tmp_path: Path
) -> None:
    commands: list[list[str]] = []

    def recorded(arguments: list[str], log: Path) -> int:
        commands.append(arguments)
        log.write_text("stopped by the test")
        return 1

    session = Session("micro", store=tmp_path / "store", device="cpu", window="lung")
    workspace = workspace_of(session, images, tmp_path / "out")
    learner = Learner(workspace, lambda run: session, heads="both", execute=recorded)
    empty = png_of(np.zeros((SHAPE[1], SHAPE[0]), np.uint8))
    for name in CASES:
        workspace.paint(name, "one", 2, 1, empty, 0)
        workspace.save(name, 1)

    def given() -> dict[str, list[str]]:
        learner.start()
        learner.join()
        (command,) = commands
        commands.clear()
        found: dict[str, list[str]] = {}
        for option, value in itertools.pairwise(command):
            found.setdefault(option, []).append(value)
        return found

    first = given()
    assert {"window=lung", "interactive.click_rounds=3", "batch_size=1"} <= set(first["--set"])
    assert (first["--model"], first["--heads"]) == (["micro"], ["both"])
    assert "--from" not in first
    run = tmp_path / "run"
    run.mkdir()
    network = session.networks[0]
    settings = session.domain.settings()
    metadata = DecoderMetadata(
        network.name, network.encoder_sha256, network.normalisation.to_metadata(), "medical",
        settings, {"1": "ball"}, {}, {},
    )  # fmt: skip
    save_decoder(network, run / "decoder.safetensors", metadata)
    session.decoders = [run / "decoder.safetensors"]
    assert given()["--from"] == [str(run)]
    workspace.close()


def test_training_on_finished_cases_takes_over_where_it_is_better(
    session: Session, images: Path, tmp_path: Path
) -> None:
    workspace = workspace_of(session, images, tmp_path / "out")

    def opened(run: Path | None) -> Session:
        return session if run is None else Session(run, store=session.store, device="cpu")

    learner = Learner(
        workspace, opened, store=str(tmp_path / "store"), settings={"learning_rate": 1e-3},
        epochs=1, execute=in_this_process,
    )  # fmt: skip
    with pytest.raises(InputError, match="training needs 2 at least"):
        learner.start()
    mask = np.zeros((SHAPE[1], SHAPE[0]), np.uint8)
    mask[9:24, 7:22] = 255
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    for name in CASES:
        workspace.paint(name, "one", 2, 1, buffer.getvalue(), 0)
        workspace.save(name, 1)
    learner.start()
    learner.join()
    found = learner.status()
    assert (found["state"], found["reason"]) == ("idle", "")
    (one,) = found["rounds"]
    assert (one["held_out"], one["cases"]) == (1, 2)
    assert one["better"] == (one["after"] > one["before"])
    assert found["in_use"] == int(one["better"])
    assert (workspace.session is session) == (not one["better"])
    assert set(one["split"]["train"]).isdisjoint(one["split"]["val"])
    metrics = json.loads((Path(one["run"]).parent / "evaluation/metrics.json").read_text())
    assert list(metrics["per_class"]) == ["ball"], "structures keep their names"
    if one["better"]:
        assert latest_run(tmp_path / "out") == Path(one["run"])
        learner.go_back()
        assert workspace.session is session
        assert latest_run(tmp_path / "out") is None
    workspace.close()


def test_cases_come_in_the_order_of_a_ranking(
    session: Session, images: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ranking.csv"
    path.write_text("rank,case,score\n1,second,0.9\n")
    cases = ranked(session.cases(images), path)
    assert [case.case_id for case in cases] == ["second", "first"]
    path.write_text("rank,case\n1,nobody\n")
    with pytest.raises(InputError, match="ranks none of the cases"):
        ranked(session.cases(images), path)


def test_images_that_are_a_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a device or a pipe"):
        open_workspace(ServeOptions("medical", Path("/dev/null"), tmp_path / "out"))
