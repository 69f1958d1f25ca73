"""Runs of older versions: their settings and decoders open under the names of today."""

import json
from pathlib import Path
from typing import Any

import pytest

from samonai.core.errors import InputError
from samonai.sam.decoder_file import load_decoder, save_decoder
from samonai.sam.decoder_metadata import DecoderMetadata
from samonai.sam.network import SamNetwork
from samonai.workflows.run_folder import STATE_FILE, RunFolder

# As samonai 0.1.0 wrote them before settings had blocks; other entries are left out.
OLD_SETTINGS = {
    "epochs": 1,
    "box_jitter": 0.02,
    "multimask": True,
    "view_flip": 0.5,
    "embedding_mix": 0.5,
}
OLD_TRAINING: dict[str, Any] = {
    "click_rounds": 1,
    "multimask": True,
    "embedding_mix": 0.5,
    "loss": "dice_bce",
    "prompts": {"kinds": {"box": 1.0, "points": 0.0}, "carried": 0.3, "box_jitter": 0.02},
    "train_cases": ["scan_0"],
}
SETTINGS = {
    "epochs": 1,
    "sampler.box_jitter": 0.02,
    "interactive.multimask": True,
    "augmentation.flip": 0.5,
    "mixup.probability": 0.5,
}


@pytest.fixture
def old_run(tmp_path: Path) -> RunFolder:
    (tmp_path / STATE_FILE).touch()
    content = {"format_version": 1, "settings": OLD_SETTINGS, "domain": "medical"}
    (tmp_path / "run.json").write_text(json.dumps(content))
    return RunFolder(tmp_path)


def test_settings_of_an_old_run_have_the_names_of_today(old_run: RunFolder) -> None:
    assert old_run.settings()["settings"] == SETTINGS


def test_an_old_run_goes_on_with_the_same_settings_only(old_run: RunFolder) -> None:
    with old_run.locked({"settings": SETTINGS, "domain": "medical"}) as unfinished:
        assert unfinished
    other = {**SETTINGS, "sampler.box_jitter": 0.1}
    with (
        pytest.raises(InputError, match=r"other settings \(sampler\.box_jitter\)"),
        old_run.locked({"settings": other, "domain": "medical"}),
    ):
        pass


def test_a_decoder_of_an_old_run_keeps_its_training(
    tiny_network: SamNetwork, tmp_path: Path
) -> None:
    metadata = DecoderMetadata(
        model="micro",
        encoder_sha256=tiny_network.stock_sha256,
        normalisation=tiny_network.normalisation.to_metadata(),
        domain="medical",
        domain_settings={},
        classes={"1": "near"},
        training=OLD_TRAINING,
        metrics={},
    )
    path = save_decoder(tiny_network, tmp_path / "decoder.safetensors", metadata)
    network = tiny_network.fork()
    network.multimask = False
    network.set_windows("auto")
    training = load_decoder(network, path).training
    assert network.multimask
    assert network.windows is None
    assert training["interactive"] == {"click_rounds": 1, "multimask": True}
    assert training["mixup"] == {"probability": 0.5}
    assert training["loss_recipe"] == "dice_bce"
    assert training["prompts"] == {
        "box_probability": 1.0,
        "points_probability": 0.0,
        "carried_probability": 0.3,
        "box_jitter": 0.02,
    }
