"""MONAI Label's protocol: what 3D Slicer's and OHIF's clients send, and what they read."""

import email
import gzip
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dicom_factory
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from starlette.testclient import TestClient

from samonai.core.errors import InputError
from samonai.domains.base import Case
from samonai.domains.medical.domain import MedicalDomain
from samonai.domains.medical.formats.nrrd import nrrd_bytes
from samonai.serve.guard import Guard, Limits
from samonai.serve.monailabel import labels, masks, monailabel_routes, wire
from samonai.serve.monailabel.images import image_file
from samonai.serve.monailabel.sent_labels import names_of, read_sent_label
from samonai.serve.routes import annotation_app
from samonai.serve.workspace import Workspace
from samonai.workflows.session import Session

SHAPE = (40, 32, 6)
CLASSES = {1: "ball", 4: "wall"}
# Columns along posterior, rows along right, slices downward: no axis is where a default has it.
AFFINE = np.array([[0, 2.0, 0, 7], [-1.5, 0, 0, -3], [0, 0, -5.0, 11], [0, 0, 0, 1]])
BALL = np.indices(SHAPE)[0] - 12, np.indices(SHAPE)[1] - 18


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session("micro", store=tmp_path_factory.mktemp("store"), device="cpu")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate(("first", "second")):
        data = np.where(BALL[0] ** 2 + BALL[1] ** 2 < 64, 200 + number, 20).astype(np.int16)
        nib.save(nib.Nifti1Image(data, AFFINE), folder / f"{name}.nii.gz")
    return folder


@pytest.fixture
def workspace(session: Session, images: Path, tmp_path: Path) -> Iterator[Workspace]:
    found = Workspace(session, session.cases(images), tmp_path / "out", classes=CLASSES)
    found.look_at = lambda *_: None  # type: ignore[method-assign]  # nothing is encoded ahead
    yield found
    found.close()


def client_of(workspace: Workspace, learner: Any = None) -> TestClient:
    routes = monailabel_routes(workspace, learner)
    app = Guard(annotation_app(workspace, clients=routes), Limits(frozenset({"localhost"})))
    return TestClient(app, base_url="http://localhost")


@pytest.fixture
def client(workspace: Workspace) -> TestClient:
    return client_of(workspace)


def infer(client: TestClient, params: Any, model: str = "clicks", **more: Any) -> Any:
    query = more.pop("query", "image=first")
    files = {"params": (None, json.dumps(params)), **more.pop("files", {})}
    return client.post(f"/infer/{model}?{query}", files=files)


def parts_of(answer: Any) -> tuple[dict[str, Any], sitk.Image]:
    """Take a multipart answer apart as the client does: by file names, not by part names."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    params, image = email.message_from_bytes(head + answer.content).get_payload()
    assert params.get_filename() is None
    assert params.get_param("name", header="content-disposition") == "params"
    assert re.fullmatch(r"mask-[0-9a-f]+\.nrrd", image.get_filename())
    return json.loads(params.get_payload()), read_nrrd(image.get_payload(decode=True))


def read_nrrd(data: bytes) -> sitk.Image:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".nrrd") as file:
        file.write(data)
        file.flush()
        return sitk.ReadImage(file.name)


def voxels(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).T  # i, j, k


def affines() -> list[np.ndarray]:
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.diag([0.0, 0, 0, 1])
            for column, (row, sign) in enumerate(zip(order, signs, strict=True)):
                affine[row, column] = sign * (1 + column)
            affine[:3, 3] = 5, -7, 11
            found.append(affine)
    return found


def with_segments(image: sitk.Image, names: dict[int, str], layers: str = "") -> sitk.Image:
    """Return an image with the header fields of 3D Slicer's segmentations."""
    for number, (value, name) in enumerate(names.items()):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(value))
        image.SetMetaData(f"Segment{number}_Layer", layers[number] if layers else "0")
    return image


@pytest.mark.parametrize("compress", [False, True])
def test_nrrd_files_keep_order_and_place_of_voxels_in_all_orientations(compress: bool) -> None:
    array = np.arange(4 * 3 * 2, dtype=np.int16).reshape(4, 3, 2)
    for affine in affines():
        image = read_nrrd(nrrd_bytes(array, affine, compress=compress))
        np.testing.assert_array_equal(voxels(image), array)
        for index in ((0, 0, 0), (3, 2, 1), (1, 0, 1)):
            expected = (affine @ (*index, 1))[:3] * (-1, -1, 1)  # RAS to LPS
            np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), expected)


def test_a_label_drawn_on_the_sent_image_comes_back_voxel_by_voxel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path, drawn = tmp_path / "image.nii.gz", tmp_path / "label.nii.gz"
    for affine in affines():
        nib.save(nib.Nifti1Image(rng.integers(0, 99, (4, 3, 2)).astype(np.int16), affine), path)
        source = MedicalDomain().read(Case("one", path))
        image = read_nrrd(image_file(source))
        expected = rng.integers(0, 3, (4, 3, 2)).astype(np.uint8)
        label = sitk.GetImageFromArray(np.ascontiguousarray(expected.T))
        label.CopyInformation(image)
        sitk.WriteImage(label, str(drawn))
        info = [{"name": "a", "idx": 1}, {"name": "b", "idx": 2}]
        np.testing.assert_array_equal(read_sent_label(drawn, source, info).label, expected)
        # 3D Slicer's own segmentation files are cropped to their segments, and named inside.
        segmentation = tmp_path / "label.seg.nrrd"
        part = sitk.RegionOfInterest(label, (2, 3, 1), (1, 0, 1))
        sitk.WriteImage(with_segments(part, {1: "a", 2: "b"}), str(segmentation))
        only = np.zeros_like(expected)
        only[1:3, :, 1] = expected[1:3, :, 1]
        found = read_sent_label(segmentation, source, None)
        np.testing.assert_array_equal(found.label, only)
        assert found.names == {1: "a", 2: "b"}


def test_info_has_what_clients_index_without_default(client: TestClient) -> None:
    info = client.get("/info/").json()
    assert info["labels"] == ["ball", "wall"]
    assert "config" not in info
    assert {m["type"] for m in info["models"].values()} == {"deepgrow", "scribbles"}
    for model in info["models"].values():
        assert model["labels"] == {"ball": 1, "wall": 2}, "1..N without gaps"
        assert model["dimension"] == 3
        assert model["description"]
    assert info["models"]["clicks"]["config"]["propagate"] is False
    assert info["datastore"] == {"total": 2, "completed": 0}
    assert info["strategies"]
    assert info["trainers"] == {}
    assert client.get("/auth/").status_code == 404


def test_points_are_voxel_indices_and_the_mask_lies_on_the_images_grid(
    client: TestClient, session: Session, images: Path
) -> None:
    answer = infer(
        client, {"label": "wall", "foreground": [[12, 18, 4]], "background": [[30, 3, 4]]}
    )
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert "transfer-encoding" not in answer.headers
    told, image = parts_of(answer)
    assert told["label_names"] == {"wall": 1}
    source = session.cases(images / "first.nii.gz")[0]
    clicks = [(12.5, 18.5, 1), (30.5, 3.5, 0)]
    mask = voxels(image)
    np.testing.assert_array_equal(mask[:, :, 4].T, session.refine(source, clicks, frame=4).mask)
    assert not mask[:, :, [0, 1, 2, 3, 5]].any()
    assert mask[12, 18, 4] == 1
    point = image.TransformIndexToPhysicalPoint((12, 18, 4))
    np.testing.assert_allclose(np.array(point) * (-1, -1, 1), (AFFINE @ (12, 18, 4, 1))[:3])


def test_a_bare_answer_is_raw_uint8_for_ohif(client: TestClient) -> None:
    answer = infer(client, {"foreground": [[12, 18, 4]]}, query="image=first&output=image")
    header, _, data = answer.content.partition(b"\n\n")
    assert b"encoding: raw" in header
    assert b"type: uint8" in header
    assert len(data) == np.prod(SHAPE)
    assert set(data) == {0, 1}
    names = infer(client, {"foreground": [[12, 18, 4]]}, query="image=first&output=json").json()
    assert names == {"label_names": {"object": 1}}


def test_slices_with_outside_points_alone_stay_empty(client: TestClient) -> None:
    _, image = parts_of(infer(client, {"background": [[12, 18, 4]]}))
    assert not voxels(image).any()
    assert image.GetSize() == SHAPE


def test_a_box_has_its_ends_in_either_order_and_is_clipped(
    client: TestClient, session: Session, images: Path
) -> None:
    roi = [21, 4, 9, 27, 4, 9]  # i from 4 to 21, k from 4 to beyond the last slice
    _, image = parts_of(infer(client, {"roi": roi}))
    source = session.cases(images / "first.nii.gz")[0]
    expected = session.predict(source, [[4, 9, 4, 22, 28, 6]]).label > 0
    np.testing.assert_array_equal(voxels(image) > 0, expected)
    assert (voxels(image) > 0).any((0, 1)).tolist() == [False] * 4 + [True] * 2
    both = infer(client, {"roi": roi, "foreground": [[12, 18, 5]], "background": [[30, 3, 0]]})
    mask = voxels(parts_of(both)[1]) > 0
    clicked = session.refine(source, [(12.5, 18.5, 1)], frame=5, box=[4, 9, 22, 28])
    np.testing.assert_array_equal(mask[:, :, 5].T, clicked.mask)
    np.testing.assert_array_equal(mask[:, :, 4], expected[:, :, 4])


def test_a_mask_is_carried_to_the_slices_beside_it_if_asked(client: TestClient) -> None:
    config = {"propagate": "true", "propagate_slices": "1"}
    _, image = parts_of(infer(client, {"foreground": [[12, 18, 3]], **config}))
    assert (voxels(image) > 0).any((0, 1)).tolist() == [False, False, True, True, True, False]


@pytest.mark.parametrize(
    ("params", "status", "words"),
    [
        ({}, 400, "neither a point nor a box"),
        ({"foreground": [[40, 0, 0]]}, 400, "lies outside the image of 40x32x6 voxels"),
        ({"foreground": [[1, 2]]}, 400, "expected [i, j, k]"),
        ({"roi": [50, 60, 0, 9, 0, 3]}, 400, "roi: it lies outside"),
        ({"foreground": [[1, 2, 3]], "propagate": True, "propagate_slices": "x"}, 400, "propagate"),
        ([1], 400, "expected a JSON object"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused_with_a_detail(
    client: TestClient, params: Any, status: int, words: str
) -> None:
    answer = infer(client, params)
    assert answer.status_code == status
    assert words in answer.json()["detail"]


def test_what_is_not_there_is_not_found(client: TestClient) -> None:
    assert infer(client, {}, model="nope").status_code == 404
    assert infer(client, {"foreground": [[1, 2, 3]]}, query="image=nope").status_code == 404
    assert client.get("/session/nope").json() == {"detail": "Session (nope) Not Found"}
    assert client.get("/datastore/image?image=..%2Fimages%2Ffirst").status_code == 404
    assert client.get("/datastore/label?label=first&tag=final").status_code == 404
    assert client.post("/activelearning/nope", json={}).status_code == 404


def label_file(array: np.ndarray, affine: np.ndarray = AFFINE) -> tuple[str, bytes]:
    nifti = nib.Nifti1Image(array.astype(np.uint8), affine).to_bytes()
    return "/home/reader/secret name/label.nii.gz", gzip.compress(nifti)


def save(client: TestClient, array: np.ndarray, info: Any, query: str = "image=first") -> Any:
    params = {"label_info": info, "client_id": "user-xyz"}
    files = {"params": (None, json.dumps(params)), "label": label_file(array)}
    return client.put(f"/datastore/label?{query}", files=files)


def saved_label(workspace: Workspace, case: str = "first") -> np.ndarray:
    return np.asarray(nib.load(workspace.out / "labels" / f"{case}.nii.gz").dataobj)


def test_saved_labels_get_the_workspaces_values_by_name(
    client: TestClient, workspace: Workspace
) -> None:
    array = np.zeros(SHAPE)
    array[3, 2, 1], array[4, 2, 1], array[5, 2, 1] = 1, 2, 3
    info = [{"name": n, "idx": i} for i, n in enumerate(("wall", "vein", "ball"), 1)]
    assert save(client, array, info).json() == {"image": "first", "label": "first", "version": 1}
    label = saved_label(workspace)
    assert [label[n, 2, 1] for n in (3, 4, 5)] == [4, 2, 1]
    assert np.count_nonzero(label) == 3
    assert workspace.states()["first"] == "done"
    assert client.get("/datastore/").json()["completed"] == 1
    object_ = client.get("/datastore/?output=all").json()["objects"]["first"]
    names = object_["labels"]["original"]["info"]["params"]["label_names"]
    assert names == {"ball": 1, "vein": 2, "wall": 3}
    sent = client.get("/datastore/label?label=first&tag=original")
    assert 'filename="label.nrrd"' in sent.headers["content-disposition"]
    assert [voxels(read_nrrd(sent.content))[n, 2, 1] for n in (3, 4, 5)] == [3, 2, 1]


def test_what_the_page_has_not_saved_becomes_a_version_of_its_own(
    client: TestClient, workspace: Workspace
) -> None:
    given = {"value": 1, "clicks": [[12.5, 18.5, 1]]}
    workspace.prompt("first", "one", 4, given, 0)
    array = np.zeros(SHAPE)
    array[3, 2, 1] = 1
    assert save(client, array, [{"name": "wall", "idx": 1}]).json()["version"] == 2
    kept = nib.load(workspace.out / "history/first/0001/first.nii.gz")
    assert np.asarray(kept.dataobj)[12, 18, 4] == 1
    assert saved_label(workspace)[3, 2, 1] == 4


def test_a_label_on_another_grid_or_of_unclear_names_is_refused(
    client: TestClient, workspace: Workspace, tmp_path: Path
) -> None:
    array = np.zeros(SHAPE)
    array[3, 2, 1] = 2
    unclear = save(client, array, [{"name": "ball", "idx": 2}, {"name": "wall", "idx": 3}])
    assert "not clear which segment" in unclear.json()["detail"]
    flipped = json.dumps({"label_info": [{"name": "ball", "idx": 2}]})
    files = {"params": (None, flipped), "label": label_file(array, AFFINE @ np.diag([-1, 1, 1, 1]))}
    answer = client.put("/datastore/label?image=first", files=files)
    assert answer.status_code == 400
    assert "another grid" in answer.json()["detail"]
    assert str(tmp_path) not in answer.text
    assert "incoming" not in answer.text
    assert workspace.states()["first"] == "unlabelled"


def test_a_segmentation_of_3d_slicer_is_saved_by_the_names_in_its_header(
    client: TestClient, workspace: Workspace, tmp_path: Path
) -> None:
    def sent(image: sitk.Image) -> Any:
        path = tmp_path / "sent.seg.nrrd"
        sitk.WriteImage(image, str(path))
        files = {
            "params": (None, json.dumps({"label_info": [{"name": "wall", "idx": 9}]})),
            "label": ("x.seg.nrrd", path.read_bytes()),
        }
        return client.put("/datastore/label?image=first", files=files)

    array = np.zeros(SHAPE, np.uint8)
    array[3, 2, 1], array[4, 2, 1] = 7, 2
    whole = read_nrrd(nrrd_bytes(array, AFFINE))
    part = sitk.RegionOfInterest(whole, (6, 4, 2), (2, 1, 1))
    names = {7: "wall", 2: masks.FOREGROUND}
    overlapping = sent(with_segments(sitk.Image(part), names, "01")).json()
    assert "segments overlap" in overlapping["detail"]
    unnamed = sent(with_segments(sitk.Image(part), {7: "wall"})).json()
    assert "[2] have no segment" in unnamed["detail"]
    moved = sitk.Image(part)
    moved.SetOrigin([place + 0.5 for place in part.GetOrigin()])
    assert "another grid" in sent(with_segments(moved, names)).json()["detail"]
    assert sent(with_segments(part, names)).status_code == 200
    (place,) = np.argwhere(saved_label(workspace, "first"))
    assert place.tolist() == [3, 2, 1]
    assert saved_label(workspace, "first")[3, 2, 1] == 4, "the workspace's value of wall"


def test_values_are_named_by_number_or_by_place() -> None:
    one = np.array([[[0, 1, 1]]])
    background_first = [{"name": "liver", "idx": 2}]
    assert names_of(one, background_first) == {1: "liver"}
    assert names_of(one * 2, background_first) == {2: "liver"}
    for info in (None, [{"name": "a", "idx": 1}] * 2, [{"name": "", "idx": 1}], [{"name": "a"}]):
        with pytest.raises(InputError, match="label_info"):
            names_of(one, info)
    with pytest.raises(InputError, match="has no name"):
        labels.ranked(np.array([[[0, 3]]]), {1: "liver"})


def test_scribbles_are_kept_and_other_slices_stay(
    client: TestClient, session: Session, images: Path
) -> None:
    array = np.zeros(SHAPE)
    array[5:9, 20:22, 1] = 2  # the segment on a slice without scribbles
    array[9:16, 18, 4] = 3
    array[0:4, 0, 4] = 4
    names = ("ball", "wall", masks.FOREGROUND, masks.BACKGROUND)
    params = {
        "label_info": [{"name": n, "id": i} for i, n in enumerate(names, 1)],
        "selected_label_name": "wall", "roi": [],
    }  # fmt: skip
    told, image = parts_of(
        infer(client, params, model="scribbles", files={"label": label_file(array)})
    )
    assert told["label_names"] == {"wall": 1}
    mask = voxels(image)
    assert mask[9:16, 18, 4].all()
    assert not mask[0:4, 0, 4].any()
    np.testing.assert_array_equal(mask[:, :, 1], array[:, :, 1] == 2)
    assert mask.any((0, 1)).tolist() == [False, True, False, False, True, False]
    missing = infer(client, params, model="scribbles")
    assert "label: expected one file" in missing.json()["detail"]
    params["roi"] = [0, 39, 0, 31, 0, 2]
    outside = infer(client, params, model="scribbles", files={"label": label_file(array)})
    np.testing.assert_array_equal(voxels(parts_of(outside)[1]), array == 2)


def image_bytes(images: Path) -> bytes:
    return (images / "first.nii.gz").read_bytes()


def test_a_session_is_there_after_a_restart(
    client: TestClient, workspace: Workspace, images: Path
) -> None:
    made = client.put(
        "/session/",
        files={"files": ("Volume 1.nii.gz", image_bytes(images))},
        data={"client_id": "x"},
    )
    session_id = made.json()["session_id"]
    again = client_of(workspace)
    found = again.get(f"/session/{session_id}")
    assert found.status_code == 200
    assert str(workspace.out) not in made.text + found.text
    params = {"foreground": [[12, 18, 4]]}
    own = infer(again, params, query=f"image=Volume+1&session_id={session_id}")
    same = infer(again, params)
    np.testing.assert_array_equal(voxels(parts_of(own)[1]), voxels(parts_of(same)[1]))
    assert list(workspace.cases) == ["first", "second"]
    assert client.delete(f"/session/{session_id}").status_code == 200
    assert again.get(f"/session/{session_id}").status_code == 404


def upload(client: TestClient, name: str, data: bytes, path: str = "/datastore/") -> Any:
    files = {"params": (None, "{}"), "file": ("/home/reader/scan.nii.gz", data)}
    return client.put(path, params={"image": name}, files=files)


def test_an_uploaded_volume_is_a_case_under_the_clients_name(
    client: TestClient, workspace: Workspace, session: Session, images: Path
) -> None:
    data = image_bytes(images)
    assert upload(client, "../Volume 1", data).json() == {"image": "../Volume 1"}
    assert upload(client, "../Volume 1", data, "/datastore/image").status_code == 200
    (case_id,) = set(workspace.cases) - {"first", "second"}
    assert re.fullmatch(r"upload-[0-9a-f]{12}", case_id)
    assert {p.name for p in workspace.out.iterdir()} <= {"uploads", "incoming", "annotations"}
    array = np.zeros(SHAPE)
    array[3, 2, 1] = 1
    info = [{"name": "ball", "idx": 1}]
    assert save(client, array, info, "image=..%2FVolume+1").status_code == 200
    assert saved_label(workspace, case_id)[3, 2, 1] == 1
    later = Workspace(session, session.cases(images), workspace.out, classes=CLASSES)
    assert client_of(later).get("/datastore/").json() == {
        "total": 3, "completed": 1, "label_tags": {"final": 1},
    }  # fmt: skip
    later.close()


def test_an_upload_never_replaces_another_image(client: TestClient, images: Path) -> None:
    second = (images / "second.nii.gz").read_bytes()
    assert upload(client, "second", second).json() == {"image": "second"}
    refused = upload(client, "second", image_bytes(images))
    assert refused.status_code == 400
    assert "another image of this name" in refused.json()["detail"]
    broken = upload(client, "third", second[:200])
    assert broken.status_code == 400
    assert "uploads" not in broken.json()["detail"]
    files = {"file": ("scan.mhd", b"NDims = 3")}
    assert "expected one of" in client.put("/datastore/?image=x", files=files).json()["detail"]
    assert client.get("/datastore/").json()["total"] == 2


def test_the_next_sample_is_named_by_content_and_comes_with_a_checksum(
    client: TestClient, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(*arguments: Any) -> bytes:
        made.append(1)
        return nrrd_bytes(*arguments)

    monkeypatch.setattr("samonai.serve.monailabel.images.nrrd_bytes", counted)
    first = client.post("/activelearning/next", json={"client_id": "a"}).json()
    assert first["id"] == "first"
    assert "path" not in first
    image = client.get(f"/datastore/image?image={first['id']}").content
    assert first["checksum"] == "SHA256:" + hashlib.sha256(image).hexdigest()
    assert len(made) == 1, "a large volume takes seconds"
    assert re.fullmatch(r"first-[0-9a-f]{12}\.nrrd", first["name"])
    np.testing.assert_array_equal(voxels(read_nrrd(image))[12, 18, 4], 200)
    assert client.post("/activelearning/next", json={"client_id": "a"}).json()["id"] == "second"
    assert client.post("/activelearning/next", json={"client_id": "b"}).json()["id"] == "first"
    for case in ("first", "second"):
        workspace.save(case, 0)
    assert client.post("/activelearning/next", json={}).json() == {}


def test_a_model_without_name_answers_with_what_is_annotated(
    client: TestClient, workspace: Workspace
) -> None:
    told, image = parts_of(client.post("/infer/?image=first", files={"params": (None, "{}")}))
    assert told["label_names"] == {"ball": 1, "wall": 2}
    assert not voxels(image).any()
    array = np.zeros(SHAPE)
    array[3, 2, 1] = 1
    save(client, array, [{"name": "wall", "idx": 1}])
    _, image = parts_of(client.post("/infer/?image=first", files={"params": (None, "{}")}))
    assert voxels(image)[3, 2, 1] == 2


def test_automatic_labels_are_places_of_names(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = np.zeros(SHAPE, np.int32)
    label[1, 2, 3], label[2, 2, 3] = 4, 1

    class Predicted:
        def __init__(self) -> None:
            self.label = label

    monkeypatch.setattr(Workspace, "proposes", property(lambda _: True))
    monkeypatch.setattr(workspace.session, "predict", lambda *_: Predicted())
    monkeypatch.setattr(workspace.session, "classes", CLASSES)
    client = client_of(workspace)
    assert next(iter(client.get("/info/").json()["models"])) == "auto"
    told, image = parts_of(infer(client, {}, model="auto"))
    assert told["label_names"] == {"ball": 1, "wall": 2}
    assert (voxels(image)[1, 2, 3], voxels(image)[2, 2, 3]) == (2, 1)


class Trains:
    """A learner as clients see it."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {
            "state": "idle", "reason": "", "curve": [], "epochs": 20, "rounds": []
        }  # fmt: skip

    def start(self, epochs: int | None) -> None:
        self.found |= {"state": "training", "epochs": epochs or 20}

    def stop(self) -> None:
        self.found |= {"state": "idle", "reason": "training was stopped"}

    def status(self) -> dict[str, Any]:
        return self.found


def test_training_is_404_when_idle_and_has_details_when_it_ends(workspace: Workspace) -> None:
    learner = Trains()
    client = client_of(workspace, learner)
    assert client.get("/train/").status_code == 404
    assert client.delete("/train/").status_code == 404
    assert client.get("/info/").json()["trainers"]["decoder"]["config"] == {"epochs": 20}
    assert client.post("/train/nope", json={}).status_code == 404
    assert client.post("/train/decoder", json={"epochs": "zero"}).status_code == 400
    task = client.post("/train/decoder", json={"epochs": 3, "client_id": "x"}).json()
    assert task["status"] == "RUNNING"
    assert client.post("/train/decoder", json={}).status_code == 429
    learner.found["curve"] = [{"val_dice": 0.5}, {"val_dice": 0.75}]
    assert client.get("/train/?check_if_running=true").json()["status"] == "RUNNING"
    stats = client.get("/info/").json()["train_stats"]["decoder"]
    assert stats == {"epoch": 2, "total_epochs": 3, "best_metric": 0.75}
    stopped = client.delete("/train/").json()
    assert stopped["status"] == "STOPPED"
    assert stopped["details"][-1] == "training was stopped"
    assert client.get("/train/?check_if_running=true").status_code == 404
    assert client.get("/train/").json()["status"] == "STOPPED"
    assert "total_time" in client.get("/info/").json()["train_stats"]["decoder"]
    assert client.post("/train/", json={}).json()["decoder"]["result"]["status"] == "RUNNING"
    learner.found |= {"state": "failed", "reason": "no space left"}
    assert client.get("/train/").json()["status"] == "ERROR"
    round_ = {"before": 0.5, "after": 0.75, "held_out": 1, "in_use": True}
    learner.found |= {"state": "idle", "reason": "", "rounds": [round_]}
    assert "0.750 after" in client.get("/train/").json()["result"]


def test_logs_hold_no_names(client: TestClient, workspace: Workspace) -> None:
    save(client, np.zeros(SHAPE), [{"name": "wall", "idx": 1}])
    logs = client.get("/logs/?lines=100")
    assert logs.headers["content-type"].startswith("text/plain")
    assert "label saved, version 1" in logs.text
    assert "first" not in logs.text


def test_messages_name_no_folders() -> None:
    out, image = Path("/home/a reader/out"), Path("/data/scans/case.nii.gz")
    known = [out, image, image.parent]
    told = (
        "/home/a reader/out/incoming/x1/label.nii.gz: cut short; /data/scans/case.nii.gz: /tmp/b/c"
    )
    assert wire.without_paths(told, known) == "label.nii.gz: cut short; the image: c"
    assert wire.without_paths("12 mm/s at http://localhost:8000/info/", known).endswith("/info/")


def test_a_series_is_found_by_its_uid_and_slices_count_by_position(
    session: Session, tmp_path: Path
) -> None:
    stored = np.zeros((5, 32, 40), np.int16)
    stored[1, 10:20, 4:14] = 2000
    series = dicom_factory.write_series(
        tmp_path / "scans" / "patient", stored, order=[3, 0, 4, 2, 1]
    )
    workspace = Workspace(
        session, session.cases(tmp_path / "scans"), tmp_path / "out", classes={1: "a"}
    )
    try:
        client = client_of(workspace)
        query = f"image={series.uid}&output=image"
        answer = infer(client, {"foreground": [[8, 14, 1]]}, query=query)
        mask = read_nrrd(answer.content)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series.folder), series.uid))
        image = reader.Execute()
        np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin())
        np.testing.assert_allclose(mask.GetDirection(), image.GetDirection())
        assert voxels(image)[8, 14, 1] > 0
        assert voxels(mask).any((0, 1)).tolist() == [False, True, False, False, False]
        sample = client.post("/activelearning/next", json={}).json()
        assert sample["SeriesInstanceUID"] == series.uid
        assert "patient" not in json.dumps(sample)
    finally:
        workspace.close()


def test_only_volumes_have_the_protocol(tmp_path: Path) -> None:
    class Satellite:
        class session:  # noqa: N801
            class domain:  # noqa: N801
                name = "satellite"

    assert monailabel_routes(Satellite()) == []  # type: ignore[arg-type]
