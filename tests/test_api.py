"""The main job in Python, with a network at hand."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from tiny_scans import SHAPE, write_scans

import samonai
from samonai.core.errors import InputError
from samonai.workflows.run_folder import RunFolder, path_fingerprint

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork


def test_finetune_predict_and_evaluate(tiny_network: "SamNetwork", tmp_path: Path) -> None:
    images, labels = write_scans(tmp_path)
    before = {name: value.clone() for name, value in tiny_network.state_dict().items()}
    run = samonai.finetune(
        tiny_network,
        images,
        labels,
        domain="medical",
        out=tmp_path / "run",
        epochs=1,
        split={"train": ["case_a", "case_b"], "val": ["case_c"]},
        learning_rate=1e-3,
        decoder_window="auto",
    )
    after = tiny_network.state_dict()
    assert all(value.equal(after[name]) for name, value in before.items())
    assert any(not value.equal(after[name]) for name, value in run.network.state_dict().items())
    assert run.metadata.encoder_sha256 == tiny_network.encoder_sha256
    assert repr(run) == f"Run('{tmp_path / 'run'}')"
    assert tiny_network.windows is None
    assert run.network.windows is not None
    assert run.metadata.training["windows"] == run.network.windows.to_metadata()
    assert all(one.windows == run.network.windows for one in samonai.Session(run).networks)

    box = [4, 3, 0, 20, 17, 2]
    mask = run.predict(images / "case_c.nii.gz", boxes=np.array([box]))
    assert mask.shape == SHAPE
    assert mask.dtype == np.int32
    described = run.predict(images / "case_c.nii.gz", {"boxes": [box], "classes": [3]})
    assert np.array_equal(described, 3 * mask)
    written = run.predict(images / "case_c.nii.gz", [box], out=tmp_path / "masks")
    on_disk = np.asanyarray(nib.load(tmp_path / "masks" / "case_c.nii.gz").dataobj)
    assert np.array_equal(on_disk, written)

    metrics = samonai.evaluate(run, images, labels, tmp_path / "measured", report=False)
    assert metrics == json.loads((tmp_path / "measured" / "metrics.json").read_text())
    assert {row["case"] for row in metrics["cases"]} == {"case_c"}

    with pytest.raises(InputError, match="holds 3 sources"):
        run.predict(images, [box])


def test_settings_that_are_not_known_are_refused(
    tiny_network: "SamNetwork", tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="did you mean 'learning_rate'"):
        samonai.finetune(tiny_network, tmp_path, tmp_path, out=tmp_path / "run", learningrate=1)
    assert not (tmp_path / "run").exists()


def test_an_unfinished_run_says_how_to_finish_it(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format_version": 1}')
    with pytest.raises(InputError, match="has not finished training"):
        samonai.Run(tmp_path)


def test_settings_of_a_run_may_change_until_an_epoch_is_done(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.locked({"settings": {"epochs": 1}}):
        pass
    assert not folder.path.exists()
    with folder.locked({"settings": {"epochs": 2}}) as unfinished:
        assert unfinished
        (folder.path / "last.pt").write_bytes(b"state")
    with folder.locked({"settings": {"epochs": 2}}):
        assert folder.settings()["settings"] == {"epochs": 2}
    with pytest.raises(InputError, match="epochs"), folder.locked({"settings": {"epochs": 3}}):
        pass
    with folder.locked({"settings": {"epochs": 3}}, overwrite=True):
        assert not (folder.path / "last.pt").exists()


def test_two_processes_do_not_train_into_one_folder(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path).locked({}),
        pytest.raises(InputError, match="another process"),
        RunFolder(tmp_path).locked({}),
    ):
        pass


def test_embeddings_survive_a_run_that_failed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    chunk = folder.path / "store" / "0" / "c" / "0"
    with folder.locked({}):
        chunk.parent.mkdir(parents=True)
        chunk.write_bytes(b"embedding")
        (folder.path / "tensorboard").mkdir()
    assert [path.name for path in folder.path.iterdir()] == ["store"]
    assert chunk.exists()


def test_fingerprints_tell_folders_apart_and_name_none() -> None:
    first, second = path_fingerprint("/data/Jane Doe"), path_fingerprint("/data/other")
    assert first != second
    assert first is not None
    assert "Jane" not in first
    assert path_fingerprint(None) is None
