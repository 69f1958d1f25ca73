"""Clicks simulated on labelled cases: where they fall, what is kept, and what is written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_scans import write_scans

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.domains.medical import MedicalDomain, Volume
from samonai.evaluation import ClickSimulation, parse_counts
from samonai.evaluation.clicking import click_table
from samonai.inference import prompts_from_label
from samonai.inference.inferer import SourceInferer
from samonai.prompts.types import Prompts
from samonai.sam.decoder_metadata import read_decoder_metadata
from samonai.sam.outputs import DecodeOutput

DOMAIN = MedicalDomain(window="percentile")


class Obedient:
    """Answers with a square of 64 model pixels around every positive click, less the negatives'."""

    long_side = 1024

    def __init__(self) -> None:
        self.asked: list[Prompts] = []

    def share(self, embeddings: torch.Tensor, prompts: int) -> None:
        pass

    def decode_single(
        self, embeddings: torch.Tensor, prompts: Prompts, shared: None = None
    ) -> DecodeOutput:
        self.asked.append(prompts)
        grid = torch.arange(256) * 4.0 + 2
        logits = torch.full((len(prompts), 1, 256, 256), -5.0)
        for row in range(len(prompts)):
            for (x, y), sign in zip(
                prompts.point_coords[row], prompts.point_labels[row], strict=True
            ):
                if sign >= 0:
                    near = ((grid - y).abs() < 32)[:, None] & ((grid - x).abs() < 32)[None]
                    logits[row, 0][near] = 5.0 if sign else -5.0
        return DecodeOutput(logits, torch.ones(len(prompts), 1))


class WithoutEncoder(SourceInferer):
    def embed(self, source, frame, network, *_):
        return torch.zeros(4, 64, 64)


def volume(label: np.ndarray) -> Volume:
    return Volume(np.zeros(label.shape, np.float32), np.eye(4), "case", label=label)


def test_each_click_goes_to_the_largest_error_and_answers_are_kept_by_number() -> None:
    # One pixel is 8 model pixels: a click fills 8 x 8 pixels.
    label = np.zeros((128, 128, 2), np.int32)
    label[20:28, 40:64, 1] = 1
    network = Obedient()
    simulation = ClickSimulation(WithoutEncoder(DOMAIN), (1, 3, 5))
    kept = simulation(volume(label), network)
    assert list(kept) == [1, 3, 5]
    sizes = {count: int((kept[count] == 1).sum()) for count in kept}
    assert 0 < sizes[1] <= 8 * 8 < sizes[3]
    assert not kept[5][..., 0].any()
    dice = {n: 2 * ((kept[n] > 0) & (label > 0)).sum() / ((kept[n] > 0).sum() + 192) for n in kept}
    assert dice[1] < min(dice[3], dice[5])
    first = network.asked[0]
    assert first.mask_inputs is None
    # Rows run along j, columns along i: x is i, y is j; the middle of 24 rows and 8 columns.
    x, y = (first.point_coords[0, 0] / 8).tolist()
    assert 23 < x < 25
    assert 43 < y < 61
    assert all(prompts.row_has_mask().all() for prompts in network.asked[1:])
    assert [prompts.point_labels.shape[1] for prompts in network.asked] == [1, 2, 3, 4, 5]


def test_an_object_that_is_right_keeps_its_answer_and_gets_no_click() -> None:
    label = np.zeros((128, 128, 1), np.int32)
    label[32:40, 32:40, 0] = 3

    class Exact(Obedient):
        def decode_single(self, embeddings, prompts, shared=None):
            output = super().decode_single(embeddings, prompts)
            if len(self.asked) > 1:
                return DecodeOutput(-output.low_res_logits, output.iou_predictions)
            output.low_res_logits[:] = -5.0
            output.low_res_logits[:, :, 64:80, 64:80] = 5.0
            return output

    network = Exact()
    kept = ClickSimulation(WithoutEncoder(DOMAIN), (1, 4))(volume(label), network)
    assert np.array_equal(kept[1], label)
    assert np.array_equal(kept[4], label)
    assert network.asked[-1].point_labels.tolist() == [[1, -1, -1, -1]]


def test_the_first_click_lies_in_the_middle() -> None:
    label = np.zeros((30, 30, 2), np.int32)
    label[3:8, 10:21, 0] = 2
    label[20:23, 20:23, 0] = 1
    prompts = prompts_from_label(DOMAIN, volume(label), regime="clicks")
    assert list(prompts) == [0]
    assert np.isnan(prompts[0].boxes).all()
    assert prompts[0].classes.tolist() == [1, 2]
    assert prompts[0].point_labels.tolist() == [[1], [1]]
    assert prompts[0].point_coords[0].tolist() == [[21.5, 21.5]]
    assert prompts[0].point_coords[1, 0, 0] == 5.5
    assert 12 < prompts[0].point_coords[1, 0, 1] < 19


@pytest.mark.parametrize("text", ["", "1,x", "0,1", "1,-3", "1.5"])
def test_numbers_of_clicks_that_make_no_sense_are_refused(text) -> None:
    with pytest.raises(InputError, match="expected numbers of clicks such as 1,3,5,9"):
        parse_counts(text)
    assert parse_counts("5, 1,3,3") == (1, 3, 5)


def test_the_table_has_the_means_of_each_number() -> None:
    rows = [
        {"clicks": n, "case": case, "class": "a", "label": 1, "method": method, "dice": dice}
        | dict.fromkeys(("iou", "surface_dice", "hd95_mm", "volume_difference_ml"))
        for n, case, method, dice in (
            (1, "x", "finetuned", 0.5),
            (1, "y", "finetuned", 0.7),
            (1, "x", "zero_shot", 0.1),
            (3, "x", "finetuned", 0.9),
        )
    ]
    table = click_table(rows, (1, 3))
    assert [entry["clicks"] for entry in table] == [1, 3]
    assert table[0]["summary"]["dice"] == {
        "finetuned": pytest.approx(0.6),
        "zero_shot": 0.1,
        "box": None,
    }
    assert table[1]["per_class"]["a"]["dice"]["finetuned"] == 0.9


REGIME = (
    "sampler.box_probability=0.5", "sampler.points_probability=0.5", "sampler.positive_points=1",
    "sampler.negative_points=0", "interactive.click_rounds=2", "interactive.mask_only_rounds=1",
    "interactive.multimask=true", "components=largest",
)  # fmt: skip


def test_a_run_that_was_trained_with_clicks_is_measured_with_clicks(tmp_path: Path, capsys) -> None:
    images, labels = write_scans(tmp_path)
    data = ["--images", str(images), "--labels", str(labels)]
    run, out = tmp_path / "run", tmp_path / "evaluation"
    settings = [part for setting in REGIME for part in ("--set", setting)]
    train = ["train", "medical", *data, "--out", str(run), "--epochs", "1", *settings]
    assert main(train) == 0
    metadata = read_decoder_metadata(run / "decoder.safetensors")
    assert metadata.training["interactive"]["click_rounds"] == 2
    assert metadata.training["interactive"]["multimask"] is True
    assert metadata.training["components"] == "largest"
    clicks = ["--prompts", "clicks", "--set", "evaluation.clicks=1,2"]
    evaluate = ["evaluate", "medical", "--run", str(run), *data, "--out", str(out), *clicks]
    assert main(evaluate) == 0
    assert "Dice by clicks" in capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["prompts"]["components"] == "largest"
    assert [entry["clicks"] for entry in metrics["clicks"]] == [1, 2]
    for entry in metrics["clicks"]:
        assert entry["summary"]["dice"]["finetuned"] is not None
        assert entry["summary"]["dice"]["zero_shot"] is not None
    # The first of the simulated clicks is the prompt that everything else is measured with.
    assert metrics["clicks"][0]["summary"]["dice"] == metrics["summary"]["dice"]
    assert metrics["summary"]["dice"]["box"] is None
    assert len((out / "clicks.csv").read_text().splitlines()) == 1 + 2 * 2
    assert "Dice by clicks" in (out / "index.html").read_text()
