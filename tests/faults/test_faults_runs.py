"""Runs: resumed on other data, made by strangers, with flipped bits, on a full disk."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_faults_writing import full_disk
from tiny_scans import write_scans

import samonai
from samonai.core.errors import InputError
from samonai.core.sealed import check_archive, seal_archive
from samonai.inference import trained_domain
from samonai.sam.decoder_file import load_decoder
from samonai.sam.decoder_metadata import read_decoder_metadata
from samonai.workflows.run_folder import RunFolder

SPLITLESS: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-3, "val_fraction": 0.3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images`, `labels`, a finished `run`, and its `store` outside of the run."""
    folder = tmp_path_factory.mktemp("made")
    write_scans(folder)
    train(folder)
    return folder


def train(folder: Path, **more: Any) -> samonai.Run:
    given = {**SPLITLESS, "out": folder / "run", "store": folder / "store", **more}
    return samonai.finetune("micro", folder / "images", folder / "labels", **given)


def rewritten(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nib.load(path)
    data = change(np.asanyarray(image.dataobj).copy())
    nib.save(nib.Nifti1Image(data, image.affine, image.header), path)


def test_a_run_is_not_resumed_on_other_data(made: Path, tmp_path: Path) -> None:
    decoder = made / "run" / "decoder.safetensors"
    weights, aside = decoder.read_bytes(), tmp_path / "aside"
    for kind in ("images", "labels"):
        shutil.copytree(made / kind, aside / kind)
    first = sorted((made / "images").iterdir())[0].name
    changes = {
        "was changed": lambda: rewritten(made / "images" / first, lambda data: data + 1),
        "' was changed": lambda: rewritten(made / "labels" / first, lambda d: np.roll(d, 1, 0)),
        "is new in": lambda: [
            shutil.copy(made / kind / first, made / kind / f"added_{first}")
            for kind in ("images", "labels")
        ],
        "is gone from": lambda: [(made / kind / first).unlink() for kind in ("images", "labels")],
    }
    for said, change in changes.items():
        decoder.unlink()  # as after a kill between the last epoch and the export
        change()
        with pytest.raises(InputError, match="was trained on other data so far") as caught:
            train(made)
        assert said in str(caught.value)
        for kind in ("images", "labels"):
            shutil.rmtree(made / kind)
            shutil.copytree(aside / kind, made / kind)
        train(made)
        assert decoder.read_bytes() == weights, said


def test_a_finished_run_is_not_taken_for_one_on_other_data(made: Path) -> None:
    path = sorted((made / "labels").iterdir())[0]
    whole = path.read_bytes()
    rewritten(path, lambda data: np.roll(data, 1, 0))
    with pytest.raises(InputError, match="was trained on other data"):
        train(made)
    path.write_bytes(whole)
    train(made)


def test_a_strangers_run_does_not_choose_where_embeddings_go(made, tmp_path, caplog) -> None:
    own = RunFolder(made / "run")
    assert own.store() == str(made / "store")
    shutil.copytree(made / "run", tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    theirs = tmp_path / "theirs"
    content = json.loads(path.read_text())
    content["store"] = str(theirs)
    for kept in (True, False):
        if not kept:  # they can make a digest, and not the mark
            del content["sha256"]
        path.write_text(json.dumps(content))
        if kept:
            with pytest.raises(InputError, match="damaged or was edited"):
                RunFolder(path.parent).store()
    assert RunFolder(path.parent).store() == str(path.parent / "store")
    assert "not chosen by you" in caplog.text
    samonai.evaluate(path.parent, made / "images", made / "labels", tmp_path / "out", report=False)
    assert not theirs.exists()
    assert (path.parent / "store").is_dir()


def edited(source: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Write a decoder as a stranger would: with other metadata, and no digest to disagree."""
    with safe_open(source, framework="pt") as file:
        content = json.loads(file.metadata()["samonai"])
    content["format_version"] = 1
    del content["weights_sha256"], content["sha256"]
    change(content)
    save_file(load_file(source), target, metadata={"samonai": json.dumps(content)})
    return target


def test_what_opens_other_files_is_not_taken_from_a_decoder(made, tmp_path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["domain_settings"]["case_map"] = str(tmp_path / "names.csv")
        content["domain_settings"]["any_driver"] = True

    path = edited(made / "run" / "decoder.safetensors", tmp_path / "d.safetensors", change)
    assert not {"case_map", "any_driver"} & read_decoder_metadata(path).domain_settings.keys()
    assert trained_domain(path).case_map is None


def test_any_driver_is_the_users_own_choice(made: Path, tmp_path: Path) -> None:
    from samonai.domains import get_domain

    def change(content: dict[str, Any]) -> None:
        content["domain"] = "satellite"
        settings = get_domain("satellite", any_driver=True).settings()
        assert settings["any_driver"]
        content["domain_settings"] = settings

    path = edited(made / "run" / "decoder.safetensors", tmp_path / "d.safetensors", change)
    assert trained_domain(path, "satellite").any_driver is False
    assert trained_domain(path, "satellite", any_driver=True).any_driver is True


ODD: dict[str, Callable[[dict[str, Any]], object]] = {
    "unknown entry": lambda c: c.update(more=1),
    "entry missing": lambda c: c.pop("classes"),
    "classes as a list": lambda c: c.update(classes=[1]),
    "class without number": lambda c: c.update(classes={"one": "liver"}),
    "class number of another script": lambda c: c.update(classes={"\u00b2": "liver"}),
    "name as number": lambda c: c.update(classes={"1": 3}),
    "model as list": lambda c: c.update(model=["micro"]),
    "cases as text": lambda c: c["training"].update(train_cases="all"),
    "prompts as text": lambda c: c["training"].update(prompts="box"),
    "carried as text": lambda c: c["training"].update(prompts={"carried": "x"}),
    "setting of another type": lambda c: c["domain_settings"].update(axis=[[]]),
    "unknown setting": lambda c: c["domain_settings"].update(colour=1),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_metadata_are_refused_in_one_line(made, tmp_path, odd) -> None:
    path = edited(made / "run" / "decoder.safetensors", tmp_path / "d.safetensors", ODD[odd])
    with pytest.raises(InputError) as caught:
        trained_domain(path)
    assert "\n" not in str(caught.value)


def test_metadata_that_nest_too_deeply_are_refused(made, tmp_path) -> None:
    path = tmp_path / "d.safetensors"
    weights = load_file(made / "run" / "decoder.safetensors")
    save_file(weights, path, metadata={"samonai": "[" * 100_000})
    with pytest.raises(InputError, match=r"nests too deeply|is not JSON"):
        read_decoder_metadata(path)


def refused(call: Callable[[], object]) -> bool:
    """Say whether a call is refused, in one line."""
    try:
        call()
    except InputError as error:
        return "\n" not in str(error)
    return False


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_no_flipped_bit_of_a_decoder_is_used(made: Path, tmp_path: Path) -> None:
    source, path = made / "run" / "decoder.safetensors", tmp_path / "d.safetensors"
    data, draw = source.read_bytes(), random.Random(0)
    network = samonai.load_sam("micro")
    header = int.from_bytes(data[:8], "little")
    bits = [draw.randrange(8 * (8 + header)) for _ in range(40)]
    bits += [draw.randrange(8 * len(data)) for _ in range(20)]
    for bit in bits:
        path.write_bytes(flipped(data, bit))
        if refused(lambda: load_decoder(network, path)):
            continue
        # What decides is as it was, such as where a key's name alone was hit.
        assert read_decoder_metadata(path) == read_decoder_metadata(source), bit
        assert all(torch.equal(v, load_file(path)[k]) for k, v in load_file(source).items()), bit


def test_a_weight_that_is_not_a_number_is_refused(made: Path, tmp_path: Path) -> None:
    source, path = made / "run" / "decoder.safetensors", tmp_path / "d.safetensors"
    edited(source, path, lambda content: None)
    weights = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, path, metadata=metadata)
    with pytest.raises(InputError, match="NaN or infinite"):
        load_decoder(samonai.load_sam("micro"), path)


@pytest.mark.parametrize("name", ["model.pt", "last.pt"])
def test_no_flipped_bit_of_a_checkpoint_is_used(made, tmp_path, name) -> None:
    data, draw = (made / "run" / name).read_bytes(), random.Random(name)
    check_archive(made / "run" / name)
    assert torch.load(made / "run" / name, weights_only=True)
    path = tmp_path / name
    bits = [draw.randrange(8 * len(data)) for _ in range(40)]
    bits += [8 * (len(data) - draw.randrange(1, 2000)) + draw.randrange(8) for _ in range(120)]
    for bit in bits:
        path.write_bytes(flipped(data, bit))
        with pytest.raises(InputError, match="checksum differs"):
            check_archive(path)
    for cut in (0, 5, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError, match="checksum differs"):
            check_archive(path)


def test_a_checkpoint_of_another_program_is_checked_by_its_records(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"weight": torch.arange(4000.0)}, path)
    check_archive(path)
    data = path.read_bytes()
    path.write_bytes(flipped(data, 8 * (len(data) // 2)))
    with pytest.raises(InputError, match="checksum differs"):
        check_archive(path)
    path.write_bytes(data)
    seal_archive(path)
    check_archive(path)
    assert torch.equal(torch.load(path, weights_only=True)["weight"], torch.arange(4000.0))


def test_a_damaged_state_is_named_and_nothing_is_trained_on_it(made, tmp_path) -> None:
    last, decoder = made / "run" / "last.pt", made / "run" / "decoder.safetensors"
    data, weights = last.read_bytes(), decoder.read_bytes()
    decoder.unlink()
    last.write_bytes(flipped(data, 4 * len(data)))
    with pytest.raises(InputError, match=r"last\.pt cannot be resumed from .*checksum"):
        train(made)
    last.write_bytes(data)
    train(made)
    assert decoder.read_bytes() == weights


@pytest.mark.parametrize("limit", [1 << 10, 1 << 15, 1 << 18])
def test_a_full_disk_in_training_is_one_line(made: Path, tmp_path: Path, limit: int) -> None:
    with full_disk(limit), pytest.raises(InputError) as caught:
        train(made, out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert "large" in str(caught.value)
    assert not list(tmp_path.rglob(".writing-*"))
    if limit == 1 << 18:
        train(made, out=tmp_path / "run")
        assert (tmp_path / "run" / "decoder.safetensors").is_file()


def test_a_flipped_bit_of_the_settings_is_found(made: Path, tmp_path: Path) -> None:
    data, draw = (made / "run" / "run.json").read_bytes(), random.Random(1)
    whole, folder = RunFolder(made / "run").settings(), RunFolder(tmp_path)
    for _ in range(300):
        (tmp_path / "run.json").write_bytes(flipped(data, draw.randrange(8 * len(data))))
        if not refused(folder.settings):  # the name of the digest or of the mark was hit
            assert whole.items() <= folder.settings().items()


@pytest.mark.parametrize("device", ["mps", "meta", "xpu", "cpu:77777777777777777777", "vulkan"])
def test_a_device_that_is_not_here_is_one_line(device: str) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(InputError, match="device") as caught:
        samonai.load_sam("micro", device=device)
    assert "\n" not in str(caught.value)


def test_more_workers_than_any_machine_has_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="workers"):
        train(made, out=tmp_path / "run", workers=1_000_000)


@pytest.mark.parametrize("given", ["/dev/zero", "x" * 5000])
def test_what_never_ends_or_cannot_be_is_refused(made, tmp_path, given) -> None:
    image = next((made / "images").iterdir())
    with pytest.raises(InputError):
        samonai.predict(made / "run", image, Path(given), tmp_path / "out")
    with pytest.raises(InputError):
        samonai.predict(made / "run", Path(given), None, tmp_path / "out")
    with pytest.raises(InputError):
        train(made, out=tmp_path / "run", split=Path(given))


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000])
def test_json_that_nests_too_deeply_is_one_line(made, tmp_path, text) -> None:
    path = tmp_path / "deep.json"
    path.write_text(text)
    image = next((made / "images").iterdir())
    for call in (
        lambda: samonai.predict(made / "run", image, path, tmp_path / "out"),
        lambda: train(made, out=tmp_path / "run", split=path),
        lambda: samonai.finetune("micro", path, out=tmp_path / "run"),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert "\n" not in str(caught.value)
