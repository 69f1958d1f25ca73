"""Loading and writing checkpoints: official, wrapped, ours, and stock tools' view of ours."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything import sam_model_registry

from samonai.core.errors import InputError
from samonai.sam import load_sam, save_sam
from samonai.sam.checkpoints import MICRO_WEIGHTS
from samonai.sam.loading import encoder_sha256
from samonai.sam.micro import build_micro
from samonai.sam.normalisation import MEDSAM_NORMALISATION, SAM_NORMALISATION
from samonai.sam.statedict import read_state

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(5)
    return build_micro().state_dict()


@pytest.fixture(scope="module")
def official(state, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "official.pth"
    torch.save(state, path)
    return path


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


WRAPPINGS = {
    "official": lambda s: s,
    "module.": lambda s: prefixed(s, "module."),
    "model": lambda s: {"model": s, "epoch": 3, "optimizer": {"state": {}, "lr": 1e-4}},
    "state_dict, sam.": lambda s: {"state_dict": prefixed(s, "sam."), "best": 0.9},
    "nested": lambda s: {"checkpoint": {"net": {"model": prefixed(s, "module.sam.")}}},
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "stored constants": lambda s: {**s, "pixel_mean": torch.ones(3, 1, 1)},
    "two models": lambda s: {"ema": {k: v * 0 for k, v in s.items()}, "model": s},
    "double": lambda s: {k: v.double() for k, v in s.items()},
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_official_and_wrapped_files_are_read(state, tmp_path, wrap):
    torch.save(wrap(state), tmp_path / "x.pth")
    found, metadata = read_state(tmp_path / "x.pth")
    assert metadata == {}
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_safetensors_and_legacy_files_are_read_whatever_their_ending(state, tmp_path):
    save_file(prefixed(state, "module."), tmp_path / "x.pth")
    torch.save(state, tmp_path / "y.bin", _use_new_zipfile_serialization=False)
    for name in ("x.pth", "y.bin"):
        found, _ = read_state(tmp_path / name)
        assert all(torch.equal(found[key], state[key]) for key in state)


def test_load_sam_takes_a_local_file(state, official):
    generator = torch.get_rng_state()
    network = load_sam("micro", checkpoint=str(official), device="cpu")
    assert torch.equal(torch.get_rng_state(), generator)
    assert not network.training
    assert network.name == "micro"
    assert network.normalisation == SAM_NORMALISATION
    tensors = [*network.parameters(), *network.buffers()]
    assert not any(tensor.is_meta for tensor in tensors)
    assert not any(p.requires_grad for p in network.image_encoder.parameters())
    assert any(p.requires_grad for p in network.mask_decoder.parameters())
    for name, tensor in network.image_encoder.state_dict().items():
        assert torch.equal(tensor, state["image_encoder." + name])


def test_a_loaded_network_does_not_depend_on_its_file(state, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(state, path)
    network = load_sam("micro", checkpoint=path, device="cpu")
    with path.open("r+b") as file:
        file.seek(100_000)
        file.write(b"\0" * (path.stat().st_size - 100_000))
    assert encoder_sha256(network.image_encoder) == network.encoder_sha256


def test_the_encoders_identity_is_that_of_its_weights(state, official, tmp_path):
    network = load_sam("micro", checkpoint=official, device="cpu")
    model = build_micro()
    model.load_state_dict(state)
    assert network.encoder_sha256 == encoder_sha256(model.image_encoder)
    with torch.no_grad():
        model.mask_decoder.iou_token.weight.add_(1)
    assert network.encoder_sha256 == encoder_sha256(model.image_encoder)
    with torch.no_grad():
        model.image_encoder.neck[0].weight[0, 0] += 1e-3
    assert network.encoder_sha256 != encoder_sha256(model.image_encoder)


@pytest.mark.parametrize("ending", [".pth", ".pt", ".safetensors"])
def test_what_is_written_loads_again(official, state, tmp_path, ending):
    network = load_sam("micro", checkpoint=official, device="cpu")
    with torch.no_grad():
        network.mask_decoder.iou_token.weight.add_(1)
    path = save_sam(network, tmp_path / f"out{ending}")
    again = load_sam("micro", checkpoint=path, device="cpu")
    assert again.encoder_sha256 == network.encoder_sha256
    found, _ = read_state(path)
    assert set(found) == set(state)
    key = "mask_decoder.iou_token.weight"
    assert torch.equal(found[key], state[key] + 1)


def test_the_normalisation_travels_with_safetensors(official, tmp_path, caplog):
    network = load_sam("micro", checkpoint=official, device="cpu")
    network.normalisation = MEDSAM_NORMALISATION
    path = save_sam(network, tmp_path / "out.safetensors")
    assert load_sam("micro", checkpoint=path).normalisation == MEDSAM_NORMALISATION
    save_sam(network, tmp_path / "out.pth")
    assert "cannot say that this model wants the medsam normalisation" in caplog.text
    with pytest.raises(InputError, match=r"must end in \.pth, \.pt or \.safetensors"):
        save_sam(network, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_vit_b_in_the_official_format_and_back_to_the_stock_loader(tmp_path):
    with torch.device("meta"):
        shapes = sam_model_registry["vit_b"]().state_dict()
    generator = torch.Generator().manual_seed(1)
    expected = {
        name: torch.empty(tensor.shape).uniform_(-1, 1, generator=generator)
        for name, tensor in shapes.items()
    }
    torch.save(expected, tmp_path / "vit_b.pth")
    network = load_sam("vit_b", checkpoint=tmp_path / "vit_b.pth", device="cpu")
    assert network.embedding_shape == (256, 64, 64)
    path = save_sam(network, tmp_path / "ours.pth")
    del network
    again = sam_model_registry["vit_b"](checkpoint=path).state_dict()
    assert list(again) == list(expected)
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_half_precision_files_become_float32(state, tmp_path):
    save_file(
        {name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.safetensors"
    )
    network = load_sam("micro", checkpoint=tmp_path / "half.safetensors")
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    save_sam(network, tmp_path / "full.pth")
    again = load_sam("micro", checkpoint=tmp_path / "full.pth")
    assert again.encoder_sha256 == network.encoder_sha256
    assert (
        load_file(tmp_path / "half.safetensors")["mask_decoder.iou_token.weight"].dtype
        == torch.float16
    )


def test_tensors_that_share_memory_in_the_file_are_parted(state, tmp_path):
    first, second = (f"mask_decoder.output_hypernetworks_mlps.{i}.layers.0.bias" for i in (0, 1))
    torch.save({**state, second: state[first]}, tmp_path / "tied.pth")
    network = load_sam("micro", checkpoint=tmp_path / "tied.pth", device="cpu")
    mlps = network.mask_decoder.output_hypernetworks_mlps
    with torch.no_grad():
        mlps[0].layers[0].bias.fill_(7)
    assert torch.equal(mlps[1].layers[0].bias, state[first])


def test_the_embedded_model_loads_by_default():
    network = load_sam(device="cpu")
    assert network.name == "micro"
    assert network.embedding_shape == (128, 64, 64)
    embedded = build_micro()
    embedded.load_state_dict({k: v.float() for k, v in load_file(MICRO_WEIGHTS).items()})
    assert network.encoder_sha256 == encoder_sha256(embedded.image_encoder)
