"""MONAI's checks and exports of the bundle's network: the right shapes, and the right encoder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_factory import MEDICAL
from monai.bundle import ckpt_export, verify_net_in_out
from safetensors.torch import load_file, save_file

from samonai import load_sam
from samonai.core.errors import InputError
from samonai.sam.checkpoints import MICRO_WEIGHTS
from samonai.sam.network import SamNetwork

pytestmark = [
    # Of torch, MONAI and segment-anything while tracing: shapes that become constants, which is
    # what a traced network is, and torch.jit's own future.
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
]

CONFIGS = MEDICAL / "configs"
FILES = {
    "meta_file": str(CONFIGS / "metadata.json"),
    "config_file": str(CONFIGS / "inference.json"),
    "bundle_root": str(MEDICAL),
}


@pytest.fixture
def trained() -> SamNetwork:
    """The embedded model with another decoder."""
    network = load_sam("micro", device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.mask_decoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    return network


def test_network_takes_and_returns_what_the_metadata_say() -> None:
    verify_net_in_out(net_id="network_def", device="cpu", **FILES)


def test_metadata_shapes_are_the_networks(trained: SamNetwork) -> None:
    formats = json.loads((CONFIGS / "metadata.json").read_text())["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    values = torch.rand(1, image["num_channels"], *image["spatial_shape"])
    output = trained(values)
    assert tuple(output.shape) == (1, pred["num_channels"], *pred["spatial_shape"])
    assert str(output.dtype) == f"torch.{pred['dtype']}"
    ends = [trained.normalisation.apply(torch.full((3, 1, 1), value)) for value in (0.0, 255.0)]
    low, high = image["value_range"]
    assert low == pytest.approx(float(ends[0].min()), abs=0.1)
    assert high == pytest.approx(float(ends[1].max()), abs=0.1)


def test_an_export_holds_the_encoder_that_the_decoder_was_trained_on(
    trained: SamNetwork, tmp_path: Path
) -> None:
    checkpoint, exported = tmp_path / "model.pt", tmp_path / "model.ts"
    torch.save(trained.state_dict(), checkpoint)
    ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(checkpoint),
        use_trace=True,
        input_shape=[1, 3, 1024, 1024],
        **FILES,
    )
    script = torch.jit.load(exported)
    image = torch.from_numpy(
        np.random.default_rng(0).normal(size=(1, 3, 1024, 1024)).astype(np.float32)
    )
    with torch.no_grad():
        expected, before = trained(image), load_sam("micro", device="cpu")(image)
        found = script(image)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, before, rtol=1e-2, atol=1e-2)


def test_an_export_onto_another_encoder_is_refused(trained: SamNetwork, tmp_path: Path) -> None:
    weights = {name: tensor.float() for name, tensor in load_file(MICRO_WEIGHTS).items()}
    weights["image_encoder.pos_embed"] += 1
    save_file(weights, tmp_path / "other.safetensors")
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match="trained on another encoder"):
        ckpt_export(
            net_id="network_def",
            filepath=str(tmp_path / "model.ts"),
            ckpt_file=str(tmp_path / "model.pt"),
            use_trace=True,
            input_shape=[1, 3, 1024, 1024],
            checkpoint=str(tmp_path / "other.safetensors"),
            **FILES,
        )
    assert not (tmp_path / "model.ts").exists()


def test_a_checkpoint_is_the_decoder_alone_and_names_its_encoder(trained: SamNetwork) -> None:
    state = trained.state_dict()
    assert not any(name.startswith("image_encoder.") for name in state)
    assert bytes(state["encoder_identity"].tolist()).hex() == trained.encoder_sha256
