"""A word where a decoder is asked by prompts of a kind that its training never drew."""

import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bundle_factory import AFFINE

from samonai.domains.base import Case
from samonai.domains.medical import MedicalDomain
from samonai.inference import ObjectFinding, evaluation_prompts, prediction_prompts
from samonai.inference.prompting.compatibility import PromptCompatibility, trained_kinds
from samonai.sam.decoder_file import save_decoder
from samonai.sam.decoder_metadata import DecoderMetadata
from samonai.settings import current_training
from samonai.settings.choices import AUTOMATIC

BOXES_ONLY = {
    "prompts": {"box_probability": 1.0, "points_probability": 0.0, "mask_probability": 0.0},
    "interactive": {"click_rounds": 0},
}
# As older versions wrote it.
POINTS_ONLY = {"prompts": {"kinds": {"box": 0.0, "points": 1.0}}}
ITERATIVE = {**POINTS_ONLY, "prompts": {"kinds": {"box": 1.0}}, "click_rounds": 8}


@pytest.mark.parametrize(
    ("training", "kinds"),
    [
        (BOXES_ONLY, {"boxes"}),
        (POINTS_ONLY, {"clicks"}),
        (ITERATIVE, {"boxes", "clicks"}),
        ({"prompts": {"kinds": {"box_and_points": 0.5}}}, {"boxes", "clicks"}),
        ({"prompts": {"kinds": {"mask": 1.0}, "carried": 0.3}}, {"boxes", "coarse masks"}),
        ({}, set()),
    ],
)
def test_what_a_training_drew(training: dict, kinds: set[str]) -> None:
    assert trained_kinds(current_training(training)) == kinds


@pytest.fixture
def decoder(tiny_network, tmp_path: Path):
    """Write a decoder that says that it was trained so."""

    def write(training: dict, name: str = "decoder") -> Path:
        metadata = DecoderMetadata(
            model="micro",
            encoder_sha256=tiny_network.stock_sha256,
            normalisation=tiny_network.normalisation.to_metadata(),
            domain="medical",
            domain_settings={},
            classes={"1": "near"},
            training=training,
            metrics={},
            heads=["promptable", "semantic"],
        )
        return save_decoder(tiny_network, tmp_path / f"{name}.safetensors", metadata)

    return write


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [
        record.getMessage()
        for record in caplog.records
        if record.name == "samonai.inference.prompting.compatibility"
        and record.levelno == logging.WARNING
    ]
    caplog.clear()
    return found


def test_evaluations_say_what_is_new_to_the_decoder(decoder, caplog) -> None:
    boxes, points, old = decoder(BOXES_ONLY), decoder(POINTS_ONLY, "points"), decoder({}, "old")
    for regime in ("clicks", "middle_click"):
        evaluation_prompts(regime, boxes)
        (line,) = warnings(caplog)
        assert line.startswith(f"{boxes} was trained with boxes only: its masks for clicks may")
        assert line.endswith("train with --set sampler.points_probability=0.5 to use both")
        assert "\n" not in line
    for regime in ("slices", "volume", "middle", "keyframes"):
        evaluation_prompts(regime, boxes)
        assert warnings(caplog) == []
        evaluation_prompts(regime, points)
        (line,) = warnings(caplog)
        assert "was trained with clicks only: its masks for boxes" in line
    evaluation_prompts("clicks", decoder(ITERATIVE, "iterative"))
    evaluation_prompts("clicks", old)
    evaluation_prompts("clicks")
    evaluation_prompts("none", boxes)
    assert warnings(caplog) == []
    # Of several runs it is the one that does not know them.
    evaluation_prompts("clicks", points, [boxes])
    assert warnings(caplog)[0].startswith(str(boxes))


def test_what_prompts_itself_is_asked_the_same_way(decoder, caplog) -> None:
    boxes, points = decoder(BOXES_ONLY), decoder(POINTS_ONLY, "points")
    strange = {boxes: {"points", "box_and_points", "grid"}}
    strange[points] = set(AUTOMATIC) - {"classes", "points", "grid"}
    for path, kinds in strange.items():
        for automatic in AUTOMATIC:
            prediction_prompts(None, None, path, finding=ObjectFinding(automatic))
            assert len(warnings(caplog)) == (automatic in kinds), automatic
    prediction_prompts(None, None, None, finding=ObjectFinding("grid"))
    assert warnings(caplog) == []


def test_a_prediction_says_it_once_for_all_cases(decoder, caplog, tmp_path: Path) -> None:
    domain = MedicalDomain()
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((24, 20, 3), np.int16), AFFINE), path)
    case = Case("scan", path, None)
    source = domain.read(case)
    click = tmp_path / "clicks.json"
    click.write_text(json.dumps({"points": [[5, 6, 1]], "labels": [1], "classes": [1]}))
    box = tmp_path / "boxes.json"
    box.write_text(json.dumps({"boxes": [[2, 2, 1, 9, 9, 2]], "classes": [1]}))
    for training, expected in ((BOXES_ONLY, {click: 1, box: 0}), (POINTS_ONLY, {click: 0, box: 1})):
        written = decoder(training)
        for file, count in expected.items():
            prompts = prediction_prompts(file, None, written)
            for _ in range(2):
                assert prompts(domain, case, source)
            assert len(warnings(caplog)) == count, (training, file)


def test_each_kind_is_said_once(decoder, caplog) -> None:
    compatibility = PromptCompatibility([decoder(BOXES_ONLY), decoder(BOXES_ONLY, "other")])
    compatibility.check_kind("clicks")
    compatibility.check_kind("clicks")
    assert len(warnings(caplog)) == 1
