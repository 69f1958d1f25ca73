"""Predictions in memory equal those that are written; what is read and encoded once stays so."""

import json
import threading
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_scans import SHAPE

import samonai
from samonai.core.errors import InputError
from samonai.embeddings.memory_store import MemoryStore, process_store
from samonai.sam.network import SamNetwork

BOX = [4, 3, 0, 20, 17, 2]


@pytest.fixture
def run(two_runs: Path) -> samonai.Run:
    return samonai.Run(two_runs / "runs" / "seed0")


@pytest.fixture
def image(two_runs: Path) -> Path:
    return two_runs / "images" / "case_c.nii.gz"


class Calls:
    """Counts what the networks are called for."""

    def __init__(self) -> None:
        self.encoded = self.decoded = 0


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    seen, encode, decode = Calls(), SamNetwork.encode, SamNetwork.decode

    def encoding(self: SamNetwork, images: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.encoded += len(images)
        return encode(self, images, *args, **kwargs)

    def decoding(self: SamNetwork, *args: Any, **kwargs: Any) -> Any:
        seen.decoded += 1
        return decode(self, *args, **kwargs)

    monkeypatch.setattr(SamNetwork, "encode", encoding)
    monkeypatch.setattr(SamNetwork, "decode", decoding)
    return seen


def written(run: Any, image: Path, boxes: Any, out: Path) -> np.ndarray:
    samonai.predict(run, image, boxes, out)
    return np.asanyarray(nib.load(out / "case_c.nii.gz").dataobj)


def test_a_prediction_is_what_predict_writes(
    run: samonai.Run, image: Path, tmp_path: Path, calls: Calls
) -> None:
    session = samonai.Session(run)
    found = session.predict(image, [BOX])
    assert calls.encoded == 2
    assert found.label.dtype == np.int32
    assert found.label.shape == SHAPE
    assert found.label.any()
    assert found.instances is None
    assert found.query_result is None
    # The second prediction of the scan encodes nothing, whatever is asked of these slices.
    again = session.predict(image, np.array([BOX]))
    assert calls.encoded == 2
    assert np.array_equal(again.label, found.label)
    # Values, the file that holds them, and what reading it gives are one thing.
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps({"boxes": [BOX], "classes": [3]}))
    for boxes in (file, str(file), {"boxes": [BOX], "classes": [3]}):
        assert np.array_equal(session.predict(image, boxes).label, 3 * found.label)
    case = session.cases(image)[0]
    for source in (str(image), case, session.domain.read(case)):
        assert np.array_equal(session.predict(source, [BOX]).label, found.label)
    assert not [path for path in tmp_path.iterdir() if path != file]
    assert np.array_equal(written(run.path, image, [BOX], tmp_path / "file"), found.label)

    # Writing is a second call, with the same files as `predict` writes.
    (path,) = session.write(found, tmp_path / "second")
    assert np.array_equal(np.asanyarray(nib.load(path).dataobj), found.label)
    assert path.read_bytes() == (tmp_path / "file" / "case_c.nii.gz").read_bytes()
    names = [one.name for one in found.write(tmp_path / "third", ["nrrd"], measure=True)]
    assert "case_c.seg.nrrd" in names
    assert "case_c.measurements.json" in names
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "case_c.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="no prediction wrote it"):
        found.write(tmp_path / "other")


def test_several_runs_are_an_ensemble_with_uncertainty(
    two_runs: Path, image: Path, tmp_path: Path
) -> None:
    session = samonai.Session(two_runs / "runs")
    assert len(session.networks) == 2
    found = session.predict(image, [BOX])
    samonai.predict(two_runs / "runs", image, [BOX], tmp_path)
    for name, values in (("case_c", found.label), ("case_c_uncertainty", found.uncertainty.values)):
        assert np.array_equal(
            np.asanyarray(nib.load(tmp_path / f"{name}.nii.gz").dataobj), values
        ), name
    confidence = json.loads((tmp_path / "case_c_confidence.json").read_text())
    assert found.uncertainty.document == confidence
    assert session.predict(image, [BOX], uncertainty=False).uncertainty is None


def test_a_model_before_fine_tuning(tiny_network: SamNetwork, image: Path, tmp_path: Path) -> None:
    session = samonai.Session(tiny_network, domain="medical")
    found = session.predict(image, [BOX])
    assert np.array_equal(found.label, written(tiny_network, image, [BOX], tmp_path))
    with pytest.raises(InputError, match="no prompts given, and a stock model"):
        session.predict(image)


def test_a_click_costs_one_call_of_the_decoder(run: samonai.Run, image: Path, calls: Calls) -> None:
    session = samonai.Session(run)
    assert session.embed(image, [1]) == 1
    assert session.embed(image, [1]) == 0
    first = session.refine(image, [(10.5, 9.5, 1)], frame=1)
    assert (calls.encoded, calls.decoded) == (1, 1)
    assert first.mask.shape == (SHAPE[1], SHAPE[0])
    assert first.low_res_logits.shape == (1, 256, 256)
    assert 0 <= first.iou <= 1
    # The same click in the volume's own coordinates, whose voxels have whole numbers in the middle.
    volume = session.predict(image, [BOX])
    calls.encoded = calls.decoded = 0
    same = session.refine(volume, {"points": [[10, 9, 1]]})
    assert (calls.encoded, calls.decoded, same.frame) == (0, 1, 1)
    assert np.array_equal(same.low_res_logits, first.low_res_logits)
    second = session.refine(volume, [(10.5, 9.5, 1), (2.5, 2.5, 0)], first.low_res_logits, frame=1)
    assert calls.decoded == 2
    # Against the network itself, with the logits as mask prompt.
    network, frame = session.networks[0], session.domain.frame(volume.source, 1)
    embedding = session.inferer.embed(volume.source, frame, network)
    # segment-anything's rule: sides are rounded, so that each axis has a scale of its own.
    longest = network.long_side / max(frame.size)
    height, width = (int(side * longest + 0.5) / side for side in frame.size)
    prompts = samonai.Prompts(
        torch.zeros(1, dtype=torch.int64),
        point_coords=torch.tensor([[[10.5, 9.5], [2.5, 2.5]]]) * torch.tensor([width, height]),
        point_labels=torch.tensor([[1, 0]]),
        mask_inputs=torch.from_numpy(first.low_res_logits).clamp(-32, 32)[None],
    )
    with torch.no_grad():
        expected = network.decode_single(embedding[None], prompts).low_res_logits[0].numpy()
    np.testing.assert_allclose(second.low_res_logits, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("clicks", "options", "said"),
    [
        ([(1, 1, 1)], {}, "say which frame"),
        ([(1, 1, 1)], {"frame": 9}, "frame 9: the source has frames 0 to"),
        ([(1, 1, 2)], {"frame": 1}, "a sign of 1"),
        ([(1, 1)], {"frame": 1}, r"expected \(x, y, sign\) each"),
        ([], {"frame": 1}, "neither a click nor a box"),
        ({"points": [[1, 1, 0], [1, 1, 1]]}, {}, "one object on one frame, got 2"),
        ([(1, 1, 1)], {"frame": 1, "previous": np.zeros((1, 4, 4))}, r"got \(1, 4, 4\)"),
    ],
)
def test_clicks_that_cannot_be_used(
    run: samonai.Run, image: Path, clicks: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        samonai.Session(run).refine(image, clicks, **options)


@pytest.mark.parametrize(
    ("source", "prompts", "said"),
    [
        ("image", [], "^boxes: no boxes for case case_c"),
        (
            None,
            [BOX],
            "the source: expected a path, a case or a source read by the domain, got NoneType",
        ),
        ("image", [[*BOX[:5], 99]], "^boxes: box 1 .* leaves the volume"),
        ("image", "boxes.json", "boxes.json: no such file of boxes"),
        ("image", " ", "the prompt is empty"),
        ("folder", [BOX], "holds 3 sources"),
    ],
)
def test_what_a_session_cannot_predict(
    run: samonai.Run, image: Path, source: Any, prompts: Any, said: str
) -> None:
    given = {"image": image, "folder": image.parent}.get(source, source)
    with pytest.raises(InputError, match=said):
        samonai.Session(run).predict(given, prompts)


def test_threads_share_a_session(run: samonai.Run, two_runs: Path) -> None:
    session = samonai.Session(run)
    images = sorted((two_runs / "images").glob("*.nii.gz")) * 2
    expected = [samonai.Session(run).predict(image, [BOX]).label for image in images[:3]] * 2
    found: list[Any] = [None] * len(images)

    def predict(number: int) -> None:
        found[number] = session.predict(images[number], [BOX]).label

    threads = [threading.Thread(target=predict, args=(n,)) for n in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_memory_is_bounded_and_the_first_frames_of_a_large_source_stay() -> None:
    one = np.ones((2, 4, 4), np.float16)
    store = MemoryStore(3 * one.nbytes)
    section = store.section({"a": 1})
    first, second = section.source("x", 9, (2, 4, 4), "x"), section.source("y", 9, (2, 4, 4), "y")
    for index in range(2):
        first.write(index, one)
    for index in range(5):
        second.write(index, one * index)
    assert first.get(0) is None
    assert [second.get(index) is not None for index in range(5)] == [True] * 3 + [False] * 2
    assert store.nbytes == store.max_bytes
    assert second.get(2)[0, 0, 0] == 2
    assert store.section({"a": 2}).find("y").get(0) is None


def test_a_second_prediction_of_a_run_encodes_nothing(
    run: samonai.Run, image: Path, calls: Calls
) -> None:
    process_store.cache_clear()
    first = run.predict(image, [BOX])
    assert calls.encoded == 2
    assert np.array_equal(run.predict(image, [BOX]), first)
    assert calls.encoded == 2
