"""Training that begins with the decoder of an earlier run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from bundle_factory import write_scans

import samonai
from samonai.cli import main
from samonai.core.errors import InputError
from samonai.sam.decoder_file import rewrite_metadata
from samonai.sam.decoder_metadata import read_decoder_metadata, trained_cases

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork

FIRST = {"train": ["scan_0"], "val": ["scan_2"]}
SECOND = {"train": ["scan_1"], "val": ["scan_2"]}
STILL = {"learning_rate": 1e-12, "weight_decay": 0.0}
"""Settings with which training leaves all weights where they are."""


@pytest.fixture
def first(tiny_network: "SamNetwork", tmp_path: Path) -> "samonai.Run":
    data = write_scans(tmp_path / "data")
    return samonai.finetune(
        tiny_network, data / "imagesTr", data / "labelsTr", out=tmp_path / "first", epochs=1,
        split=FIRST, store=tmp_path / "store", learning_rate=1e-2, progress=False,
    )  # fmt: skip


def test_training_begins_with_the_decoder_of_an_earlier_run(
    first: "samonai.Run", tiny_network: "SamNetwork", tmp_path: Path, caplog
) -> None:
    data = tmp_path / "data" / "imagesTr", tmp_path / "data" / "labelsTr"
    more = {"store": tmp_path / "store", "epochs": 1, "progress": False}
    stock = {name: value.clone() for name, value in tiny_network.state_dict().items()}
    again = samonai.finetune(
        tiny_network, *data, out=tmp_path / "again", initial_decoder=first.path, split=SECOND,
        **STILL, **more,
    )  # fmt: skip
    learned, kept = first.network.state_dict(), again.network.state_dict()
    moved = max(float((learned[name] - stock[name]).abs().max()) for name in stock)
    assert moved > 1e-3, "the first run must differ from the model for this test to mean anything"
    for name, value in kept.items():
        torch.testing.assert_close(value, learned[name], rtol=0, atol=1e-6)
    training = again.metadata.training
    assert training["earlier_cases"] == ["scan_0"]
    assert trained_cases(training) == {"scan_0", "scan_1"}
    metrics = again.evaluate(*data, tmp_path / "evaluation", cases="all", report=False)
    assert metrics["cases_trained_on"] == ["scan_0", "scan_1"]
    caplog.clear()
    samonai.finetune(
        tiny_network, *data, out=tmp_path / "seen", initial_decoder=first.path,
        split={"train": ["scan_1"], "val": ["scan_0"]}, **STILL, **more,
    )  # fmt: skip
    assert "1 of the 1 held-out cases were trained on" in caplog.text


def test_a_decoder_of_another_encoder_or_of_several_runs_is_refused(
    first: "samonai.Run", tmp_path: Path, capsys
) -> None:
    data = [
        "--images",
        str(tmp_path / "data/imagesTr"),
        "--labels",
        str(tmp_path / "data/labelsTr"),
    ]
    command = ["train", "medical", *data, "--out", str(tmp_path / "run"), "--epochs", "1"]
    assert main([*command, "--from", str(first.path)]) == 2
    assert "was trained on tiny, and this training is of micro" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*command, "--from", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert main([*command, "--set", "initial_decoder=x"]) == 2
    assert "give it as --from" in capsys.readouterr().err
    folds = tmp_path / "folds"
    for name in ("fold_1", "fold_2"):
        shutil.copytree(first.path, folds / name)
    (folds / "folds.json").write_text(json.dumps({"members": ["fold_1", "fold_2"]}))
    assert main([*command, "--from", str(folds)]) == 2
    assert "holds 2 runs; name one of them" in capsys.readouterr().err


def test_a_decoder_that_changed_the_encoder_is_refused(
    first: "samonai.Run", tiny_network: "SamNetwork", tmp_path: Path
) -> None:
    decoder = first.folder.decoder
    metadata = read_decoder_metadata(decoder)
    rewrite_metadata(
        decoder, replace(metadata, training={**metadata.training, "encoder_changed": True})
    )
    with pytest.raises(InputError, match="changed the encoder too"):
        samonai.finetune(
            tiny_network, tmp_path / "data/imagesTr", tmp_path / "data/labelsTr",
            out=tmp_path / "again", initial_decoder=first.path, split=SECOND, epochs=1,
        )  # fmt: skip
    assert not (tmp_path / "again").exists(), "refused before a frame is encoded"
