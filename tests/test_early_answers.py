"""Mistakes that a look at the arguments shows: answered before torch or MONAI is imported."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from samonai.core.sealed import sealed
from samonai.sam.decoder_file import save_decoder
from samonai.sam.decoder_metadata import DecoderMetadata
from samonai.sam.network import SamNetwork
from samonai.workflows.bundle_files import EVALUATE, INFERENCE, TRAIN, config_files, read_config

# Refuses torch and MONAI, and runs one command line per line of standard input.
_DRIVER = """
import contextlib, io, json, shlex, sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "monai"):
            raise AssertionError(f"{name} was imported before the arguments were checked")

sys.meta_path.insert(0, Refusing())
from samonai.cli import main
for line in sys.stdin:
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        code = main(shlex.split(line))
    print(json.dumps([code, told.getvalue()]))
"""


def _promptable_run(folder: Path, network: SamNetwork) -> Path:
    """Write the folder of a finished run without a semantic head."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(sealed({"format_version": 1, "domain": "medical"})))
    facts = DecoderMetadata("micro", "5a" * 32, {}, "medical", {}, {"1": "ball"}, {}, {})
    save_decoder(network, folder / "decoder.safetensors", facts)
    return folder


def test_mistakes_are_answered_without_torch(tiny_network: SamNetwork, tmp_path: Path) -> None:
    """Missing paths, unknown models, devices, classes and settings, damaged files of prompts."""
    run = shlex.quote(str(_promptable_run(tmp_path / "run", tiny_network)))
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(b"no image, but a path that exists")
    broken = tmp_path / "boxes.json"
    broken.write_text('{"boxes": [[1, 2,')
    short, strange = tmp_path / "short.json", tmp_path / "strange.json"
    short.write_text('{"boxes": [[1, 2, 3]]}')
    strange.write_text('{"boxes": [[1, 2, 0, 3, 4, 1]], "classes": ["cube"]}')
    (tmp_path / "empty").mkdir()
    here, out = shlex.quote(str(scan)), shlex.quote(str(tmp_path / "out"))
    empty = shlex.quote(str(tmp_path / "empty"))
    expected = {
        f"embed medical --images {empty} --archive --store s --out {out} --part 0/8": "from 1 to",
        f"embed medical --images {empty} --archive --store s --out {out} --part 2": "expected K/N",
        f"predict medical --model micro --input {here} --out {out} --part 1/2": "with --archive",
        f"status {empty}": "has no manifest",
        f"predict medical --model micro --input /nowhere.nii --out {out}": "no such file or folder",
        f"predict medical --model macro --input {here} --out {out}": "unknown model 'macro'",
        f"predict medical --model micro --input {here} --out {out}": "a stock model needs some",
        f"predict medical --model micro --input {here} --boxes {broken} --out {out}": "valid JSON",
        f"predict medical --model micro --input {here} --boxes /no.json --out {out}": "no such",
        f"predict medical --model micro --input {here} --boxes {short} --out {out}": "6 numbers",
        f"predict medical --run {run} --input {here} --boxes {strange} --out {out}": "'cube'",
        f"predict medical --run {empty} --input {here} --out {out}": "it has no run.json",
        f"predict documents --run {run} --input {here} --out {out}": "not on documents",
        f"predict medical --run {run} --input {here} --prompt ? --out {out}": "no semantic head",
        f"predict medical --model micro --input {here} --device gpu --out {out}": "unknown device",
        f"predict medical --model micro --input {here} --planes 2 --out {out}": "planes",
        f"predict medical --model vit_b --sha256 12 --input {here} --out {out}": "sha256",
        f"predict medical --model vit_b --checkpoint /no.pth --input {here} --out {out}": "/no.pth",
        f"train medical --images /nowhere --labels {empty} --out {out}": "/nowhere",
        f"train medical --images {empty} --labels {empty} --out {out} --set epoch=1": "'epochs'",
        f"train medical --images {empty} --labels {empty} --out {out} --set batch_size=0": "batch",
        f"evaluate medical --run {empty} --images {empty} --labels {empty} --out {out}": "run.json",
        f"evaluate medical --run {run} --images /nowhere --labels {empty} --out {out}": "/nowhere",
        f"rank medical --run {empty} --images {empty} --out {out}": "run.json",
        f"calibrate medical --run {empty} --images {empty} --labels {empty}": "run.json",
        f"embed medical --images /nowhere --store {out}": "/nowhere",
        f"sweep medical --images /nowhere --labels {empty} --out {out} --trials 2": "/nowhere",
        f"curve medical --images {empty} --labels {empty} --out {out} --model x": "unknown model",
    }
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER],
        input="\n".join(expected),
        capture_output=True,
        text=True,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(expected), done.stderr
    for (line, wanted), (code, told) in zip(expected.items(), answers, strict=True):
        assert code == 2, (line, told)
        assert wanted in told, (line, told)
        assert told.count("\n") == 1, told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("domain", ["medical", "satellite", "documents"])
@pytest.mark.parametrize("others", [(EVALUATE,), (INFERENCE,)])
def test_configurations_merge_as_in_monai(domain: str, others: tuple[str, ...]) -> None:
    """Merged without MONAI where no key has a special meaning for it."""
    from monai.bundle import ConfigParser

    files = config_files(domain, TRAIN, *others)
    assert read_config(files) == ConfigParser.load_config_files([str(file) for file in files])


def test_keys_that_monai_merges_are_left_to_it(tmp_path: Path) -> None:
    """`+name` extends an entry and replaces none."""
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text('{"list": [1], "epochs": 3}')
    second.write_text('{"+list": [2], "epochs": 4}')
    assert read_config([first, second]) == {"list": [1, 2], "epochs": 4}
