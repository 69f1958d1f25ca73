"""Loading and writing checkpoints: what is taken, what is refused, and what is said."""

import argparse
import io
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything import sam_model_registry

from samonai.errors import InputError
from samonai.sam import load_sam, save_sam
from samonai.sam.loading import architecture_builder, choose_device, encoder_sha256
from samonai.sam.micro import build_micro
from samonai.sam.normalisation import MEDSAM_NORMALISATION, SAM_NORMALISATION
from samonai.sam.statedict import check_state, read_state

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
    found = read_state(path)[0]
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


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("forced", [False, True])
def test_pickled_code_is_refused_and_never_runs(state, tmp_path, monkeypatch, forced):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary = tmp_path / "canary"
    torch.save({"model": state, "more": Payload(canary)}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="which could run code, and was refused") as caught:
        load_sam("micro", checkpoint=tmp_path / "evil.pth")
    assert "mkdir" in str(caught.value)
    assert not canary.exists()


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def without(state: State, part: str) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith(part)}


def only(state: State, part: str) -> State:
    return {name: tensor for name, tensor in state.items() if name.startswith(part)}


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("readme.txt", "nothing")
    return buffer.getvalue()


def with_nan(state: State) -> State:
    changed = {name: tensor.clone() for name, tensor in state.items()}
    changed["mask_decoder.iou_token.weight"][0, 3] = torch.nan
    return changed


KEY = "mask_decoder.mask_tokens.weight"
WRONG = {
    "empty": (lambda s: b"", "the file is empty"),
    "web page": (lambda s: b"\n<!DOCTYPE html><html>", "it is a web page"),
    "lfs": (lambda s: b"version https://git-lfs.github.com/spec/v1", "git-lfs pointer"),
    "text": (lambda s: b"hello", "expected a file that torch.save or safetensors wrote"),
    "gzip": (lambda s: b"\x1f\x8b\x08\x00", "compressed archive"),
    "other zip": (lambda s: archive(), "truncated or damaged, or not a file that torch.save"),
    "truncated": (lambda s: saved(s)[:-5000], "truncated or damaged"),
    "half": (lambda s: saved(s)[:200_000], "truncated or damaged"),
    "damaged pickle": (lambda s: b"\x80\x02}q\x00(X", "truncated or damaged|damaged"),
    "namespace": (
        lambda s: saved({"model": s, "args": argparse.Namespace(lr=1)}),
        r"holds Python objects \(argparse.Namespace\)",
    ),
    "list": (lambda s: saved([1, 2]), "it holds a list"),
    "other network": (
        lambda s: saved({"conv1.weight": torch.ones(1)}),
        "is not a SAM checkpoint: it has no SAM weights, but conv1.weight",
    ),
    "not a tensor": (lambda s: saved({**s, "epoch": 3}), "epoch is not a tensor"),
    "several": (lambda s: saved({"teacher": s, "student": s}), "holds several models"),
    "nan": (lambda s: saved(with_nan(s)), "iou_token.weight holds NaN or infinite values"),
    "decoder only": (
        lambda s: saved(only(s, "mask_decoder")),
        "holds only mask_decoder; a full checkpoint has image_encoder, prompt_encoder too",
    ),
    "encoder only": (lambda s: saved(only(s, "image_encoder")), "holds only image_encoder"),
    "no blocks": (
        lambda s: saved(without(s, "image_encoder.blocks.5")),
        "lacks 12 tensors, such as image_encoder.blocks.5.norm1.weight",
    ),
    "more": (
        lambda s: saved({**s, "mask_decoder.hf_token.weight": torch.ones(1)}),
        "has unknown 1 tensors, such as mask_decoder.hf_token.weight",
    ),
    "changed head": (
        lambda s: saved({**s, KEY: torch.ones(9, 128)}),
        r"mask_tokens.weight has shape \(9, 128\), expected \(4, 128\)",
    ),
    "transformers": (
        lambda s: saved({"vision_encoder.pos_embed": torch.ones(1)}),
        "format of Hugging Face",
    ),
    "own decoder": (
        lambda s: saved({**only(s, "mask_decoder"), "encoder_identity": torch.ones(32)}),
        "a decoder checkpoint of samonai",
    ),
    "SAM 2": (
        lambda s: saved({"model": {"image_encoder.trunk.pos_embed": torch.ones(1)}}),
        "SAM 2",
    ),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_files_are_one_line_that_says_what_they_are(state, tmp_path, make, message):
    path = tmp_path / "wrong.pth"
    path.write_bytes(make(state))
    with pytest.raises(InputError, match=message) as caught:
        load_sam("micro", checkpoint=path)
    assert "\n" not in str(caught.value)
    assert "wrong.pth" in str(caught.value)


def test_damaged_safetensors_are_one_line(state, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(state, path)
    content = path.read_bytes()
    for wrong in (content[:-100], content[:2000]):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match="truncated or damaged"):
            read_state(path)
    for text in ("{", "[]", json.dumps({"normalisation": {"scale": 1}})):
        save_file(state, path, {"samonai": text})
        with pytest.raises(InputError, match="metadata"):
            load_sam("micro", checkpoint=path)


def test_another_architecture_is_named(official):
    with pytest.raises(InputError, match="looks like micro, not like vit_b"):
        load_sam("vit_b", checkpoint=official)
    with torch.device("meta"):
        large, base = architecture_builder("vit_l")(), architecture_builder("vit_b")()
    with pytest.raises(InputError, match=r"sam\.pth looks like vit_l, not like vit_b"):
        check_state(large.state_dict(), base, Path("sam.pth"))


def test_missing_files_hashes_and_devices(official, tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        load_sam("micro", checkpoint=tmp_path / "none.pth")
    with pytest.raises(InputError, match="this is not a file"):
        load_sam("micro", checkpoint=tmp_path)
    with pytest.raises(InputError, match="not the file that was expected"):
        load_sam("micro", checkpoint=official, sha256="0" * 64)
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        choose_device("gpu")
    with pytest.raises(InputError, match=r"cuda:99 is not here"):
        choose_device("cuda:99")


def test_half_precision_files_become_float32(state, tmp_path):
    save_file(
        {name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.safetensors"
    )
    network = load_sam("micro", checkpoint=tmp_path / "half.safetensors")
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    save_sam(network, tmp_path / "full.pth")
    again = load_sam("micro", checkpoint=tmp_path / "full.pth")
    assert again.encoder_sha256 == network.encoder_sha256
    assert load_file(tmp_path / "half.safetensors")[KEY].dtype == torch.float16
