"""Several decoders on one encoding: what is averaged, how sure it is, and whether that is true."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_scans import SHAPE, affine, write_scans

import samonai
from samonai.cli import main
from samonai.core.errors import InputError
from samonai.core.files import sha256_file
from samonai.domains import get_domain
from samonai.domains.base import Case
from samonai.domains.tiling.frames import label_from_scores
from samonai.evaluation.calibration_metrics import grown_region
from samonai.inference import Certainty, CertaintyWriter, SourceInferer
from samonai.inference.ensemble import member_names
from samonai.inference.inferer import Automatic, FrameOutput, FramePrompts
from samonai.inference.uncertainty import binary_entropy, scaled_mean
from samonai.metrics.calibration import LogitHistogram
from samonai.report.plots import reliability_diagram
from samonai.sam.decoder_file import rewrite_metadata
from samonai.sam.decoder_metadata import read_decoder_metadata
from samonai.selection import calibrate
from samonai.workflows.run import open_runs

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork

BOX = {"boxes": [[4, 3, 0, 20, 17, 2]], "classes": [1]}


@pytest.fixture
def folder(two_runs: Path) -> Path:
    """Scans, and the store of both runs."""
    return two_runs


@pytest.fixture
def runs(folder: Path, tmp_path: Path) -> list[samonai.Run]:
    """Copies of the runs, which a test may change."""
    shutil.copytree(folder / "runs", tmp_path / "runs")
    return open_runs(tmp_path / "runs")


def changed(network: "SamNetwork", seed: int) -> "SamNetwork":
    fork = network.fork().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in fork.mask_decoder.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise, alpha=0.02)
    return fork


def test_logits_are_averaged_and_a_frame_is_encoded_once(
    tiny_network: "SamNetwork", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = write_scans(tmp_path)
    domain = get_domain("medical")
    source = domain.read(Case("case_a", images / "case_a.nii.gz"))
    prompts = {1: FramePrompts(np.array([[4, 3, 20, 17]], np.float32), np.array([1]))}
    networks = [changed(tiny_network, seed) for seed in range(3)]
    encoded: list[int] = []
    encode = type(tiny_network).encode

    def counted(self: Any, batch: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
        encoded.append(len(batch))
        return encode(self, batch, precision)

    monkeypatch.setattr(type(tiny_network), "encode", counted)
    certainty = Certainty()
    inferer = SourceInferer(domain, members=networks[1:], observers=[certainty, None])
    label = inferer(source, networks[0], prompts)
    assert encoded == [1]

    frame = domain.frame(source, 1)
    embedding = inferer.embed(source, frame, networks[0])
    each = [inferer.logits(n, embedding, prompts[1], frame.size) for n in networks]
    mean = torch.stack(each).mean(0)
    assert np.array_equal(label[:, :, 1].T, label_from_scores(mean, np.array([1])))
    together = inferer.logits(networks, embedding, prompts[1], frame.size)
    torch.testing.assert_close(together, mean, rtol=1e-4, atol=1e-4)
    expected = binary_entropy(mean.sigmoid())[0].numpy()
    np.testing.assert_allclose(certainty.maps[1], expected, atol=1e-6)
    quick = SourceInferer(domain, members=networks[1:])(source, networks[0], prompts)
    assert np.array_equal(quick, label)
    alone = inferer(source, networks[1], prompts, alone=True)
    assert np.array_equal(alone[:, :, 1].T, label_from_scores(each[1], np.array([1])))


def test_the_automatic_heads_of_several_networks_are_averaged(
    tiny_network: "SamNetwork", tmp_path: Path
) -> None:
    images, _ = write_scans(tmp_path)
    domain = get_domain("medical")
    source = domain.read(Case("case_a", images / "case_a.nii.gz"))
    tiny_network.add_semantic_head([1, 3])
    networks = [tiny_network.fork().eval() for _ in range(2)]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for network in networks:
            assert network.semantic_head is not None
            for parameter in network.semantic_head.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.5)
    certainty = Certainty()
    inferer = SourceInferer(domain, members=networks[1:], observers=[certainty])
    label = inferer(source, networks[0], Automatic())
    frame = domain.frame(source, 1)
    each = inferer.class_logits(source, networks, frame)
    expected = np.array([0, 1, 3])[each.mean(0).argmax(0).numpy()]
    assert np.array_equal(label[:, :, 1].T, expected)
    assert not np.array_equal(each[0].argmax(0), each[1].argmax(0))
    # The probability of a class is the sigmoid of the mean of the members' log-odds.
    odds = torch.logit(each.softmax(1)[:, 1:].double()).mean(0)
    np.testing.assert_allclose(
        certainty.maps[1], binary_entropy(odds.sigmoid()).amax(0).numpy(), atol=1e-3
    )
    assert sorted(certainty.maps) == [0, 1, 2]
    assert {found["predicted_iou"] for found in certainty.document({}).values()} == {None}


def test_entropy_is_in_bits() -> None:
    values = binary_entropy(torch.tensor([0.0, 0.5, 1.0, 0.11]))
    torch.testing.assert_close(values, torch.tensor([0.0, 1.0, 0.0, 0.4999]), atol=1e-3, rtol=0)


def test_confidence_of_a_structure() -> None:
    certainty = Certainty([1.0, 2.0])
    first = torch.full((1, 2, 4), -20.0)
    second = first.clone()
    first[0, :, :2], second[0, :, :3] = 2.0, 4.0
    logits = torch.stack([first, second])
    frame = type("Frame", (), {"valid": None, "location": type("L", (), {"index": 5})})()
    prompts = FramePrompts(np.array([[0, 0, 4, 2]], np.float32), np.array([7]))
    certainty.observe(frame, prompts, FrameOutput(logits, logits, torch.tensor([[0.5], [0.9]])))
    found = certainty.document({7: "liver"})["liver"]
    # Columns 0 and 1 are inside for both; column 2 has the mean of -20 and 4.
    assert found["voxels"] == 4
    # The mean of 2/1 and 4/2 is 2.
    assert found["probability"] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)
    assert found["predicted_iou"] == pytest.approx(0.7)
    assert found["agreement"] == pytest.approx(2 * 4 / (4 + 6))
    torch.testing.assert_close(scaled_mean(logits, [1.0, 2.0])[0, 0, 0], torch.tensor(2.0))


def test_where_nothing_was_observed_no_map_says_that_all_is_certain(
    two_runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decoder = two_runs / "runs" / "seed0" / "decoder.safetensors"
    writer = CertaintyWriter(
        tmp_path, get_domain("medical"), [decoder], {1: "ball"}, uncertainty=True
    )
    item = SimpleNamespace(case=Case("case_c", tmp_path), source=None)
    writer.case_completed(SimpleNamespace(state=SimpleNamespace(batch=item)))
    assert "no uncertainty is known" in caplog.text
    assert not any(tmp_path.iterdir())
    with pytest.raises(InputError, match="no uncertainty maps of other data"):
        CertaintyWriter(tmp_path, SimpleNamespace(name="other"), [decoder], {}, uncertainty=True)


def test_predicting_with_several_runs(
    runs: list[samonai.Run], folder: Path, tmp_path: Path
) -> None:
    source = folder / "images" / "case_c.nii.gz"
    written = samonai.predict(runs, source, BOX, tmp_path / "masks", store=folder / "store")
    assert [path.name for path in written] == [
        "case_c.nii.gz",
        "case_c_confidence.json",
        "case_c_uncertainty.nii.gz",
    ]
    image = nib.load(tmp_path / "masks" / "case_c_uncertainty.nii.gz")
    values = np.asanyarray(image.dataobj)
    assert values.dtype == np.float32
    assert values.shape == SHAPE
    assert np.array_equal(image.affine, affine(2))
    assert 0 <= values.min() < values.max() <= 1
    assert not values[:, :, 2].any()  # no prompt there
    confidence = json.loads((tmp_path / "masks" / "case_c_confidence.json").read_text())
    assert confidence["members"] == ["seed0", "seed1"]
    assert confidence["temperatures"] == [1.0, 1.0]
    (structure,) = confidence["structures"].values()
    label = np.asanyarray(nib.load(tmp_path / "masks" / "case_c.nii.gz").dataobj)
    assert structure["voxels"] == (label == 1).sum()
    assert 0.5 < structure["probability"] <= 1
    assert 0 < structure["agreement"] <= 1

    # The same run three times is that run.
    samonai.predict([runs[0]] * 3, source, BOX, tmp_path / "same", uncertainty=False)
    alone = runs[0].predict(source, BOX)
    same = np.asanyarray(nib.load(tmp_path / "same" / "case_c.nii.gz").dataobj)
    assert np.array_equal(same, alone)
    assert [path.name for path in (tmp_path / "same").glob("[!.]*")] == ["case_c.nii.gz"]


@pytest.mark.parametrize(
    "more", [["--propagate"], pytest.param(["--planes", "3"], marks=pytest.mark.long)]
)
def test_uncertainty_of_propagated_prompts_and_of_planes(
    runs: list[samonai.Run], folder: Path, tmp_path: Path, more: list[str]
) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"boxes": [[2, 2, 0, 10, 9, 3]], "classes": [1]}')
    given = [part for run in runs for part in ("--run", str(run.path))]
    # Every second voxel: a third plane through each of them is encoded.
    whole = nib.load(folder / "images" / "case_c.nii.gz")
    source = str(tmp_path / "case_c.nii.gz")
    nib.save(whole.slicer[::2, ::2], source)
    out = tmp_path / "masks"
    argv = ["predict", "medical", *given, "--input", source, "--boxes", str(boxes), *more]
    assert main([*argv, "--measure", "--out", str(out)]) == 0
    uncertainty = np.asanyarray(nib.load(out / "case_c_uncertainty.nii.gz").dataobj)
    label = np.asanyarray(nib.load(out / "case_c.nii.gz").dataobj)
    assert label.any()
    assert uncertainty.shape == (SHAPE[0] // 2, SHAPE[1] // 2, SHAPE[2])
    assert uncertainty[:, :, label.any((0, 1))].any()
    document = json.loads((out / "case_c_confidence.json").read_text())
    (structure,) = document["structures"].values()
    # Half precision of the planes decides otherwise only where logits are all but zero.
    assert abs(structure["voxels"] - (label == 1).sum()) <= 2
    assert 0 < structure["agreement"] <= 1
    # What is written for others names all members.
    algorithm = json.loads((out / "case_c.measurements.json").read_text())["algorithm"]
    assert algorithm["members"] == ", ".join(run.path.name for run in runs)
    hashes = [algorithm["decoder_sha256"], algorithm["decoder_sha256_2"]]
    assert hashes == [sha256_file(run.folder.decoder)[:16] for run in runs]


def test_evaluating_several_runs_measures_each_and_all(
    runs: list[samonai.Run],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, labels = folder / "images", folder / "labels"
    data = ["--images", str(images), "--labels", str(labels)]
    out = tmp_path / "measured"
    run = str(tmp_path / "runs")
    assert main(["evaluate", "medical", "--run", run, *data, "--out", str(out)]) == 0
    assert "ensemble of 2: Dice" in capsys.readouterr().out
    measured = json.loads((out / "metrics.json").read_text())
    assert [row["case"] for row in measured["cases"]] == ["case_c"]
    singles = [
        samonai.evaluate(run, images, labels, tmp_path / run.path.name, report=False)
        for run in runs
    ]
    for run, single in zip(runs, singles, strict=True):
        member = measured["members"][run.path.name]
        assert member["summary"]["dice"] == single["summary"]["dice"]["finetuned"]
        figures = measured["calibration"]["members"][run.path.name]
        assert figures["ece"] == single["calibration"]["ece"]
    assert measured["members_mean"]["dice"] == pytest.approx(
        np.mean([single["summary"]["dice"]["finetuned"] for single in singles])
    )
    assert 0 < measured["calibration"]["ece"] < 1
    assert (out / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert "ensemble of 2" in (out / "index.html").read_text()
    assert "members" not in singles[0]


def test_a_temperature_is_kept_with_the_decoder_and_changes_no_mask(
    runs: list[samonai.Run], folder: Path, tmp_path: Path
) -> None:
    source = folder / "images" / "case_c.nii.gz"
    before = runs[0].predict(source, BOX)
    found = calibrate(runs[0], folder / "images", folder / "labels")
    assert found.cases == ("case_c",)
    assert found.nll[1] <= found.nll[0]
    again = samonai.Run(runs[0].path, sam=runs[0].pretrained)
    assert again.metadata.calibration["temperature"] == found.temperature
    assert found.temperature != 1
    assert np.array_equal(again.predict(source, BOX), before)
    samonai.predict(again, source, BOX, tmp_path / "masks", uncertainty=True)
    confidence = json.loads((tmp_path / "masks" / "case_c_confidence.json").read_text())
    assert confidence["temperatures"] == [found.temperature]
    # Fitted on raw logits, so fitting again finds the same.
    assert calibrate(again, folder / "images", folder / "labels") == found


def test_runs_that_do_not_go_together(runs: list[samonai.Run], tmp_path: Path) -> None:
    decoder = runs[1].folder.decoder
    metadata = read_decoder_metadata(decoder)
    changes = {
        "encoder_sha256": "ab" * 32,
        "classes": {"1": "liver", "2": "spleen"},
        "domain_settings": {**metadata.domain_settings, "window": "lung"},
    }
    for key, value in changes.items():
        rewrite_metadata(decoder, replace(metadata, **{key: value}))
        shown = "window" if key == "domain_settings" else key
        with pytest.raises(InputError, match=f"cannot be averaged .*they differ in {shown};"):
            open_runs([runs[0].path, runs[1].path])
    rewrite_metadata(decoder, metadata)
    assert len(open_runs(tmp_path / "runs")) == 2
    images, labels = write_scans(tmp_path / "trained", ("case_a", "case_b"))
    with pytest.raises(InputError, match=r"each of the 2 cases in .* was trained on by one"):
        samonai.evaluate(runs, images, labels, tmp_path / "out", report=False)
    (tmp_path / "seeds.json").write_text("[]")
    with pytest.raises(InputError, match=r"seeds.json is no list of runs"):
        open_runs(tmp_path)


def test_members_are_named_after_their_runs() -> None:
    assert member_names(["a/fold0/d.safetensors", "a/fold1/d.safetensors"]) == ["fold0", "fold1"]
    assert member_names(["a/run/d.safetensors", "b/run/d.safetensors"]) == ["run_1", "run_2"]


def samples(count: int, scale: float) -> LogitHistogram:
    """Return logits that are right when they are divided by `scale`."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, count)
    inside = rng.uniform(size=count) < 1 / (1 + np.exp(-logits))
    histogram = LogitHistogram()
    histogram.add((logits * scale).astype(np.float32), inside)
    return histogram


def test_the_temperature_that_made_logits_too_sure_is_found() -> None:
    histogram = samples(40_000, 3.0)
    assert histogram.voxels == 40_000
    assert histogram.fit_temperature() == pytest.approx(3.0, rel=0.05)
    assert histogram.ece(1.0) > 0.08
    assert histogram.ece(3.0) < 0.01
    assert histogram.nll(3.0) < histogram.nll(1.0)
    assert samples(40_000, 1.0).fit_temperature() == pytest.approx(1.0, rel=0.05)


def test_ece_of_a_known_case() -> None:
    histogram = LogitHistogram()
    sure = np.full(100, np.log(0.9 / 0.1), np.float32)
    histogram.add(sure, np.arange(100) < 70)
    assert histogram.ece() == pytest.approx(0.2, abs=2e-3)
    (row,) = [row for row in histogram.reliability() if row["voxels"]]
    assert row == {
        "voxels": 100,
        "probability": pytest.approx(0.9, abs=1e-3),
        "frequency": pytest.approx(0.7),
    }
    far = LogitHistogram()
    far.add(np.array([-1e6, 1e6, 39.999], np.float32), np.array([False, True, True]))
    assert far.ece() == pytest.approx(0)
    assert LogitHistogram().ece() is None
    assert LogitHistogram().fit_temperature() == 1
    assert (far + histogram).voxels == 103


def test_the_region_of_the_error() -> None:
    region = grown_region(np.array([[4, 4, 8, 12]], np.float32), (20, 10))
    assert region[2:14, 3:9].all()
    assert region.sum() == 12 * 6
    assert grown_region(np.full((1, 4), np.nan, np.float32), (3, 4)).all()


def test_the_diagram_takes_any_name(tmp_path: Path) -> None:
    histogram = samples(1000, 2.0)
    figures = {"ece": histogram.ece(), "reliability": histogram.reliability()}
    document = {"bins": 15, "per_class": {"$liver_1": figures}}
    path = reliability_diagram(document, tmp_path / "reliability.png")
    assert path.read_bytes().startswith(b"\x89PNG")
