"""The HTTP client of 3D Slicer's MONAI Label module, unmodified, against a server over HTTP.

`MONAILabelLib/client.py` comes out of the wheel `monailabel` 0.8.5, which
`SAMONAI_MONAILABEL_WHEEL` names, or which is downloaded into the temporary folder; skipped where
neither works. The module's own code runs in 3D Slicer only; the tests do what it does around each
call.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import urllib.request
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from local_server import running

from samonai.serve.guard import Guard, Limits
from samonai.serve.monailabel import monailabel_routes
from samonai.serve.routes import annotation_app
from samonai.serve.workspace import Workspace
from samonai.workflows.session import Session

VERSION = "0.8.5"
CLIENT = "plugins/slicer/MONAILabel/MONAILabelLib/client.py"
SHA256 = "5e9bc0d4d36455a1a606eeeae4289e038a5e29ccf6658bf934bae72891c282af"
FOLDER = Path(tempfile.gettempdir()) / f"samonai-tests-monailabel-{VERSION}"
TOKEN = "secret-of-the-tests"
SHAPE = (40, 32, 6)
# Columns along posterior, rows along right, slices downward.
AFFINE = np.array([[0, 2.0, 0, 7], [-1.5, 0, 0, -3], [0, 0, -5.0, 11], [0, 0, 0, 1]])
CENTRE = (12, 18, 4)
RAS = (AFFINE @ (*CENTRE, 1))[:3]
CLASSES = {1: "ball", 2: "wall"}

pytestmark = [
    pytest.mark.skipif(sys.version_info >= (3, 13), reason="the client needs the module cgi"),
    pytest.mark.filterwarnings("ignore"),  # it leaves files and sockets open
]


def wheel() -> Path:
    given = os.environ.get("SAMONAI_MONAILABEL_WHEEL")
    found = [Path(given)] if given else sorted(FOLDER.glob("*.whl"))
    if found:
        return found[0]
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "0"]
    options = ["--timeout", "15", "--dest", str(FOLDER), f"monailabel=={VERSION}"]
    try:
        subprocess.run([*download, *options], check=True, timeout=60, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        pytest.skip(f"needs the wheel of monailabel {VERSION}, which could not be downloaded")
    return next(FOLDER.glob("*.whl"))


@pytest.fixture(scope="module")
def library() -> Any:
    pytest.importorskip("requests", reason="the client needs requests")
    with zipfile.ZipFile(wheel()) as archive:
        name = next(name for name in archive.namelist() if name.endswith(CLIENT))
        content = archive.read(name)
    assert hashlib.sha256(content).hexdigest() == SHA256
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "client.py"
        path.write_bytes(content)
        spec = importlib.util.spec_from_file_location("monailabel_client", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "images").mkdir()
    i, j, _ = np.indices(SHAPE)
    for number, name in enumerate(("first", "second")):
        data = np.where((i - 12) ** 2 + (j - 18) ** 2 < 64, 200 + number, 20).astype(np.int16)
        nib.save(nib.Nifti1Image(data, AFFINE), folder / "images" / f"{name}.nii.gz")
    session = Session("micro", device="cpu")
    cases = session.cases(folder / "images")
    found = Workspace(session, cases, folder / "out", classes=CLASSES)
    found.look_at = lambda *_: None  # type: ignore[method-assign]  # nothing is encoded ahead
    yield found
    found.close()


@pytest.fixture(scope="module")
def address(workspace: Workspace) -> Iterator[str]:
    app = annotation_app(workspace, clients=monailabel_routes(workspace))
    with running(Guard(app, Limits(frozenset({"127.0.0.1"}), TOKEN))) as port:
        yield f"http://127.0.0.1:{port}/t/{TOKEN}/"


@pytest.fixture
def client(library: Any, address: str, tmp_path: Path) -> Any:
    return library.MONAILabelClient(address, str(tmp_path), "user-xyz")


def downloaded(client: Any, sample: dict[str, Any], folder: Path) -> sitk.Image:
    """Load a sample as the module does: without the Authorization header, checked and by name."""
    url = f"{client.get_server_url()}/datastore/image?image={sample['id']}"
    data = urllib.request.urlopen(url).read()
    assert sample["checksum"] == "SHA256:" + hashlib.sha256(data).hexdigest()
    path = folder / sample["name"]
    path.write_bytes(data)
    return sitk.ReadImage(str(path))


def ijk(image: sitk.Image, ras: np.ndarray) -> list[int]:
    """Return a control point's voxel as the module does: rounded RAS to IJK."""
    lps = [-float(ras[0]), -float(ras[1]), float(ras[2])]
    return list(image.TransformPhysicalPointToIndex(lps))


def asked(library: Any, params: dict[str, Any]) -> dict[str, Any]:
    return {**params, "result_extension": ".nrrd", "result_dtype": "uint8"}


def test_the_module_connects_takes_the_next_sample_and_clicks(
    library: Any, client: Any, tmp_path: Path
) -> None:
    assert client.auth_enabled() is False
    info = client.info()
    assert info["labels"] == ["ball", "wall"]
    assert client.train_status(check_if_running=True) is False
    sample = client.next_sample("next", {})
    image = downloaded(client, sample, tmp_path)
    assert image.GetSize() == SHAPE
    assert ijk(image, RAS) == list(CENTRE)
    params = {"label": "wall", "foreground": [ijk(image, RAS)], "background": []}
    file, told = client.infer("clicks", sample["id"], asked(library, params))
    mask = sitk.ReadImage(file)
    assert told["label_names"] == {"wall": 1}
    assert mask.GetSize() == image.GetSize()
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin())
    np.testing.assert_allclose(mask.GetDirection(), image.GetDirection())
    drawn = np.argwhere(sitk.GetArrayFromImage(mask).T == 1)
    millimetres = nib.affines.apply_affine(AFFINE, drawn)
    assert len(drawn) > 50
    assert (np.unique(drawn[:, 2]) == [CENTRE[2]]).all()
    # The ball measures 24 mm along its longer side; what was drawn lies around the click.
    assert np.abs(millimetres - RAS).max() < 20


def test_a_box_reaches_the_slices_that_it_names(library: Any, client: Any) -> None:
    params = {"label": "ball", "foreground": [], "background": [], "roi": [21, 4, 9, 27, 4, 3]}
    file, _ = client.infer("clicks", "first", asked(library, params))
    mask = sitk.GetArrayFromImage(sitk.ReadImage(file)).T
    assert mask.any((0, 1)).tolist() == [False, False, False, True, True, False]
    assert mask[12, 18, 3:5].all()


def label_like(image: sitk.Image, path: Path, **voxels: int) -> None:
    array = np.zeros(SHAPE, np.uint8)
    for value in voxels.values():
        array[value, 2, 1] = value
    label = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    label.CopyInformation(image)
    sitk.WriteImage(label, str(path))


def test_the_modules_own_volume_goes_through_a_session_and_an_upload(
    library: Any, client: Any, workspace: Workspace, tmp_path: Path
) -> None:
    volume = tmp_path / "scan of somebody.nii.gz"
    data = np.asarray(nib.load(workspace.cases["second"].image).dataobj)
    nib.save(nib.Nifti1Image(data, AFFINE), volume)
    session_id = client.create_session(str(volume))["session_id"]
    assert client.get_session(session_id)
    params = asked(library, {"foreground": [list(CENTRE)]})
    file, _ = client.infer("clicks", "Volume 1", params, session_id=session_id)
    mask = sitk.GetArrayFromImage(sitk.ReadImage(file)).T
    assert mask[CENTRE] == 1
    assert client.upload_image(str(volume), "Volume 1") == {"image": "Volume 1"}
    label = tmp_path / "label.nii.gz"
    label_like(sitk.ReadImage(str(volume)), label, wall=1, ball=2)
    info = [{"name": "wall", "idx": 1}, {"name": "ball", "idx": 2}]
    client.save_label("Volume 1", str(label), params={"label_info": info})
    (case_id,) = set(workspace.cases) - {"first", "second"}
    saved = nib.load(workspace.out / "labels" / f"{case_id}.nii.gz")
    np.testing.assert_allclose(saved.affine, AFFINE)
    assert [np.asarray(saved.dataobj)[n, 2, 1] for n in (1, 2)] == [2, 1]
    assert client.info()["datastore"] == {"total": 3, "completed": 1}
    client.remove_session(session_id)
    with pytest.raises(library.MONAILabelClientException) as gone:
        client.get_session(session_id)
    assert gone.value.status_code == 404


def test_labels_keep_their_names_from_the_server_and_back(
    client: Any, workspace: Workspace, tmp_path: Path
) -> None:
    sample = {"id": "first"}
    label = tmp_path / "label.nii.gz"
    image = sitk.ReadImage(str(workspace.cases["first"].image))
    label_like(image, label, wall=1, ball=2, new=3)
    info = [{"name": n, "idx": i} for i, n in enumerate(("wall", "ball", "vein"), 1)]
    client.save_label(sample["id"], str(label), params={"label_info": info})
    told = client.datastore()["objects"]["first"]["labels"]["original"]["info"]
    names = list(told["params"]["label_names"].keys())
    assert names == ["ball", "wall", "vein"]
    sent = sitk.GetArrayFromImage(sitk.ReadImage(client.download_label("first", "original"))).T
    # The module gives label value i the i-th name.
    assert [names[sent[n, 2, 1] - 1] for n in (1, 2, 3)] == ["wall", "ball", "vein"]


def test_scribbles_come_back_as_the_selected_segment(
    library: Any, client: Any, workspace: Workspace, tmp_path: Path
) -> None:
    image = sitk.ReadImage(str(workspace.cases["first"].image))
    array = np.zeros(SHAPE, np.uint8)
    array[9:16, 18, 4], array[0:4, 0, 4] = 3, 4
    label = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    label.CopyInformation(image)
    path = tmp_path / "scribbles.nii.gz"
    sitk.WriteImage(label, str(path))
    names = ("ball", "wall", "foreground_scribbles", "background_scribbles")
    params = {
        "roi": [], "selected_label_name": "wall",
        "label_info": [{"name": n, "id": i} for i, n in enumerate(names, 1)],
    }  # fmt: skip
    file, _ = client.infer("scribbles", "first", asked(library, params), str(path))
    mask = sitk.GetArrayFromImage(sitk.ReadImage(file)).T
    assert mask[9:16, 18, 4].all()
    assert not mask[0:4, 0, 4].any()


def test_refusals_reach_the_user_as_words(library: Any, client: Any, workspace: Workspace) -> None:
    with pytest.raises(library.MONAILabelClientException) as refused:
        client.infer("clicks", "first", {"foreground": [[99, 0, 0]]})
    assert "lies outside the image of 40x32x6 voxels" in refused.value.msg
    with pytest.raises(library.MONAILabelClientException) as missing:
        client.infer("clicks", "nobody", {"foreground": [[9, 0, 0]]})
    assert "there is no such image" in missing.value.msg
    assert str(workspace.out) not in refused.value.msg + missing.value.msg
