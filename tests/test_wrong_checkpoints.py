"""Checkpoints that are not what they should be: refused, harmless, and named in one line."""

import argparse
import io
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from samonai.core.errors import InputError
from samonai.sam import load_sam
from samonai.sam.loading import architecture_builder, choose_device
from samonai.sam.micro import build_micro
from samonai.sam.statedict import check_state, read_state

State = dict[str, torch.Tensor]

KEY = "mask_decoder.mask_tokens.weight"


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(5)
    return build_micro().state_dict()


@pytest.fixture(scope="module")
def official(state, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "official.pth"
    torch.save(state, path)
    return path


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
    "integers": (
        lambda s: saved({**s, KEY: s[KEY].to(torch.int8)}),
        "not a plain tensor of floating-point numbers",
    ),
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
        lambda s: saved({"vision_encoder.backbone.weight": torch.ones(1)}),
        "another model of Hugging Face transformers",
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


def test_a_few_bytes_that_pose_as_a_huge_tensor_are_refused(state, tmp_path):
    torch.save({**state, KEY: torch.zeros(1).expand(10**9, 10**6)}, tmp_path / "bomb.pth")
    with pytest.raises(InputError, match=r"mask_tokens.weight has shape \(1000000000, 1000000\)"):
        load_sam("micro", checkpoint=tmp_path / "bomb.pth")


def test_missing_files_hashes_and_devices(official, tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        load_sam("micro", checkpoint=tmp_path / "none.pth")
    with pytest.raises(InputError, match=r"folder without config\.json"):
        load_sam("micro", checkpoint=tmp_path)
    with pytest.raises(InputError, match="not the file that was expected"):
        load_sam("micro", checkpoint=official, sha256="0" * 64)
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        choose_device("gpu")
    with pytest.raises(InputError, match=r"cuda:99 is not here"):
        choose_device("cuda:99")
