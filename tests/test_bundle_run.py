"""The medical bundle, run as its users run it: by MONAI's own commands, from anywhere."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_factory import AFFINE, MEDICAL, overrides, run_command, write_scans
from safetensors.torch import load_file

from samonai.sam import decoder_file
from samonai.sam.decoder_metadata import read_decoder_metadata


@dataclass
class Run:
    bundle: Path
    data: Path
    elsewhere: Path

    def monai(self, *configs: str, **settings: object) -> str:
        files = [str(self.bundle / "configs" / name) for name in configs]
        values = {"bundle_root": self.bundle, "device": "$torch.device('cpu')", **settings}
        return run_command(
            self.elsewhere / "log.txt",
            self.elsewhere,
            "run",
            "--config_file",
            str(files) if len(files) > 1 else files[0],
            *overrides(**values),
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A bundle copied away from the repository, and trained for one epoch with overrides only."""
    folder = tmp_path_factory.mktemp("bundle")
    run = Run(folder / "copy of it", write_scans(folder / "data"), folder / "elsewhere")
    run.elsewhere.mkdir()
    shutil.copytree(MEDICAL, run.bundle)
    run.monai(
        "train.json",
        dataset_dir=run.data,
        **{"sampler#box_jitter": 0.04},
        window="percentile",
        val_fraction=0.34,
        epochs=1,
        learning_rate=0.001,
    )
    return run


def test_training_leaves_a_decoder_that_knows_its_origin(trained: Run) -> None:
    models = trained.bundle / "models"
    metadata = read_decoder_metadata(models / "decoder.safetensors")
    assert metadata.model == "micro"
    assert metadata.domain_settings["window"] == "percentile"
    assert len(metadata.training["train_cases"]) == 2
    assert metadata.training["prompts"]["box_jitter"] == 0.04
    assert len(metadata.training["val_cases"]) == 1
    saved = torch.load(models / "model.pt", weights_only=True)
    assert not any(name.startswith("image_encoder.") for name in saved)
    assert saved.keys() == load_file(models / "decoder.safetensors").keys()
    assert {path.name for path in models.iterdir()} >= {"history.csv", "history.json", "last.pt"}


@pytest.fixture(scope="module")
def metrics(trained: Run) -> dict:
    # Nothing about window or model: both travel with the decoder. Its masks are turned inside out,
    # so that nobody can take it for the model before fine-tuning.
    inverted = invert(trained.bundle / "models" / "decoder.safetensors", trained.elsewhere)
    trained.monai("train.json", "evaluate.json", dataset_dir=trained.data, decoder=inverted)
    return json.loads((trained.bundle / "models" / "evaluation" / "metrics.json").read_text())


def invert(decoder: Path, folder: Path) -> Path:
    """Write a decoder whose logits are those of another with the sign changed."""
    weights = load_file(decoder)
    for part in ("weight", "bias"):
        weights[f"mask_decoder.output_hypernetworks_mlps.0.layers.2.{part}"].neg_()
    path = folder / "inverted.safetensors"
    decoder_file._write(weights, path, read_decoder_metadata(decoder))
    return path


def test_evaluation_measures_the_held_out_cases_beside_both_baselines(trained, metrics) -> None:
    held_out = read_decoder_metadata(trained.bundle / "models/decoder.safetensors").training
    assert {row["case"] for row in metrics["cases"]} == set(held_out["val_cases"])
    assert {row["label"] for row in metrics["cases"]} == {1, 2}
    assert metrics["summary"]["dice"]["finetuned"] < 0.5 < metrics["summary"]["dice"]["zero_shot"]
    # Blocks are their own boxes; the jitter of 5 % moves less than a pixel's centre.
    assert metrics["summary"]["dice"]["box"] > 0.9
    assert metrics["cases_trained_on"] == []


def test_evaluation_says_which_prompts_it_used(metrics) -> None:
    assert metrics["prompts"] == {
        "regime": "slices",
        "box_jitter": 0.05,
        "min_area": 1,
        "seed": 0,
        "components": "each",
    }
    assert metrics["domain_settings"]["window"] == "percentile"


def test_evaluation_leaves_a_page_and_pictures(trained, metrics) -> None:
    # The learning curve, the reliability diagram, and the one case.
    folder = trained.bundle / "models" / "evaluation"
    assert (folder / "index.html").read_text().count("data:image/png") == 6
    assert [path.stem for path in (folder / "pictures").iterdir()] == [metrics["cases"][0]["case"]]
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3


def test_evaluation_prepares_no_training_data(trained, metrics) -> None:
    targets = sorted((trained.bundle / "store" / "targets").iterdir())
    assert len([path for path in targets if not path.name.startswith(".")]) == 3


def test_inference_writes_on_the_inputs_own_grid(trained: Run) -> None:
    boxes = trained.elsewhere / "boxes.json"
    boxes.write_text(json.dumps({"boxes": [[3, 4, 0, 10, 12, 2]], "classes": ["class_2"]}))
    image = trained.data / "imagesTr" / "scan_0.nii.gz"
    text = trained.monai("inference.json", input=image, boxes=boxes)
    written = trained.bundle / "predictions" / "scan_0.nii.gz"
    predicted = nib.load(written)
    assert predicted.shape == (24, 20, 3)
    assert np.array_equal(predicted.affine, AFFINE)
    values = np.asarray(predicted.dataobj)
    assert set(np.unique(values)) <= {0, 2}
    assert not values[:, :, 2].any()
    assert "Traceback" not in text


def test_inference_before_fine_tuning_takes_a_coarse_label(trained: Run) -> None:
    trained.monai(
        "inference.json",
        input=trained.data / "imagesTr",
        boxes=trained.data / "labelsTr",
        decoder="$None",
        **{"coarse_label#margin": 1.0},
        output_dir=trained.elsewhere / "before",
        ending=".mha",
    )
    written = sorted(path.name for path in (trained.elsewhere / "before").glob("[!.]*"))
    assert written == ["scan_0.mha", "scan_1.mha", "scan_2.mha"]


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_end_with_the_same_weights(trained: Run, tmp_path: Path) -> None:
    overlay = tmp_path / "save.json"
    state = "@network.module.state_dict()"
    saving = f"$torch.save({state}, @output_dir + '/rank_' + str(@rank) + '.pt')"
    overlay.write_text(json.dumps({"+run": [saving]}))
    configs = [trained.bundle / "configs" / name for name in ("train.json", "multi_gpu_train.json")]
    settings = {
        "bundle_root": tmp_path,
        "dataset_dir": trained.data,
        "store": trained.bundle / "store",
        "window": "percentile",
        "val_fraction": 0.34,
        "epochs": 1,
        "batch_size": 1,
        "learning_rate": 0.001,
        "device": "$torch.device('cpu')",
    }
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "monai.bundle", "run", "--config_file"]
    command += [str([str(path) for path in (*configs, overlay)]), *overrides(**settings)]
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = (
        torch.load(tmp_path / "models" / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    # Both learned, and from different frames: one process alone ends elsewhere.
    alone = torch.load(trained.bundle / "models" / "model.pt", weights_only=True)
    assert any(not torch.equal(first[name], alone[name]) for name in first)
    assert (tmp_path / "models" / "decoder.safetensors").is_file()
