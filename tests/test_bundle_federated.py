"""The bundle under MONAI's federated client: only the decoder travels, and each round trains it."""

from pathlib import Path

import pytest
import torch
from bundle_factory import MEDICAL, write_scans
from ignite.engine import Engine, Events
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from samonai import load_sam
from samonai.inference import DecoderCheckpointLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*config.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting up.*:UserWarning"),
]


def make_client(folder: Path, seed: int = 0, **files: None) -> MonaiAlgo:
    """A hospital's client with MONAI's default files, its data and its state in a folder."""
    data = folder / "data"
    if not data.exists():
        write_scans(data, cases=2, slices=1, seed=seed)
    settings = {
        "dataset_dir": str(data),
        "output_dir": str(folder / "models"),
        "store": str(folder / "store"),
        "device": "$torch.device('cpu')",
        "progress": False,
        "initialize": [],
    }
    training = {"learning_rate": 0.001, "val_fraction": 0.5, "epochs": 2}
    evaluation = {"evaluation#report": False, "evaluation#cases": ["scan_0"]}
    client = MonaiAlgo(
        bundle_root=str(MEDICAL),
        local_epochs=1,
        train_kwargs=settings | training,
        eval_kwargs=settings | evaluation,
        **files,
    )
    client.initialize(extra={"CLIENT_NAME": folder.name})
    return client


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    # MONAI's client chooses the GPU by itself.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def client(tmp_path: Path) -> MonaiAlgo:
    return make_client(tmp_path / "here")


def learned(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in network.named_parameters() if p.requires_grad}


def a_round(client: MonaiAlgo, weights: dict[str, torch.Tensor]) -> tuple[dict, dict, dict]:
    """Train one round: the weights at its first step, at its end, and the update sent."""
    first: list[dict] = []

    def note(engine: Engine) -> None:
        first.append(learned(engine.network))

    handle = client.trainer.add_event_handler(Events.ITERATION_STARTED, note)
    client.train(ExchangeObject(weights={name: value.clone() for name, value in weights.items()}))
    handle.remove()
    return first[0], learned(client.trainer.network), client.get_weights().weights


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_each_round_trains_the_average_of_the_sites(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    without = {"config_evaluate_filename": None}
    clients = [make_client(tmp_path / f"site_{n}", seed=10 * n, **without) for n in range(2)]
    weights = load_sam("micro", device="cpu").state_dict()
    for _ in range(2):
        results = [a_round(client, weights) for client in clients]
        ends = [end for _, end, _ in results]
        for begin, _, _ in results:
            assert same(begin, weights)
        assert not same(*ends)
        average = dict(weights)
        for name in ends[0]:
            # From the sites' own weights, and from what they send.
            average[name] = (ends[0][name] + ends[1][name]) / 2
            sent = weights[name] + sum(update[name] for _, _, update in results) / 2
            torch.testing.assert_close(sent, average[name], rtol=0, atol=1e-6)
        weights = average
    # A hospital that was away brings its files, but trains the server's weights.
    assert (tmp_path / "site_0/models/last.pt").exists()
    begin, _, _ = a_round(make_client(tmp_path / "site_0", **without), weights)
    assert same(begin, weights)
    assert "is not resumed from" in caplog.text


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
