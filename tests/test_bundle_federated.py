"""The bundle under MONAI's federated client: only the decoder travels."""

from pathlib import Path

import pytest
import torch
from bundle_factory import MEDICAL, write_scans
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from samonai import load_sam
from samonai.inference import DecoderCheckpointLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*config.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting up.*:UserWarning"),
]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MonaiAlgo:
    data = write_scans(tmp_path / "data")
    settings = {
        "dataset_dir": str(data),
        "output_dir": str(tmp_path / "models"),
        "store": str(tmp_path / "store"),
        "device": "$torch.device('cpu')",
        "progress": False,
        "initialize": [],
    }
    training = {"learning_rate": 0.001, "val_fraction": 0.34, "resume": False, "epochs": 2}
    evaluation = {"decoder": None, "report": False, "cases": ["scan_0"]}
    # MONAI joins its own folder for the bundle to the application's, and chooses the GPU by itself.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    client = MonaiAlgo(
        bundle_root=str(MEDICAL),
        local_epochs=1,
        config_evaluate_filename=["configs/train.json", "configs/evaluate.json"],
        train_kwargs=settings | training,
        eval_kwargs=settings | evaluation,
    )
    client.initialize(extra={"CLIENT_NAME": "here"})
    return client


def test_a_round_returns_a_difference_of_the_decoder(client: MonaiAlgo) -> None:
    weights = load_sam("micro", device="cpu").state_dict()
    client.train(ExchangeObject(weights=weights))
    update = client.get_weights()
    assert update.weight_type == WeightType.WEIGHT_DIFF
    assert not any(name.startswith("image_encoder.") for name in update.weights)
    moved = {name for name, change in update.weights.items() if bool((change != 0).any())}
    assert moved
    assert all(name.startswith("mask_decoder.") for name in moved)
    assert all(bool(torch.isfinite(change).all()) for change in update.weights.values())
    # The server's weights are measured, not a decoder that lies about.
    assert not any(
        isinstance(handler, DecoderCheckpointLoader)
        for handler in client.eval_workflow.parser.get_parsed_content("validate::handlers")
    )
    metrics = client.evaluate(ExchangeObject(weights=weights)).metrics
    assert 0 <= metrics["dice"] <= 1
