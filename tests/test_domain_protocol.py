"""Domains: a new one needs a class and a configuration, and the engine names none."""

import ast
import json
import shutil
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
from toy_domain import StackDomain

import samonai
from samonai.cli import main
from samonai.core.errors import InputError
from samonai.domains import DOMAINS
from samonai.domains.capabilities import Capabilities, capabilities
from samonai.sam.decoder_metadata import read_decoder_metadata
from samonai.workflows.pacs_ends import pacs_series

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "samonai"
OUTSIDE = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).parts[0] not in ("domains", "settings")
]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data of the toy domain, which is registered with a bundle made from the medical one."""
    monkeypatch.setitem(DOMAINS, "toy", "toy_domain:StackDomain")
    source = REPOSITORY / "bundles" / "medical" / "configs"
    configs = tmp_path / "bundles" / "toy" / "configs"
    configs.mkdir(parents=True)
    for path in source.glob("*.json"):
        content = json.loads(path.read_text())
        if "domain" in content:
            trained = "decoder" in content["domain"]
            content["domain"] = (
                {
                    "_target_": content["domain"]["_target_"],
                    "decoder": content["domain"]["decoder"],
                    "name": "toy",
                }
                if trained
                else {"_target_": "toy_domain.StackDomain"}
            )
        (configs / path.name).write_text(json.dumps(content))
    monkeypatch.setattr(
        "samonai.workflows.bundle_files.bundles_folder", lambda: tmp_path / "bundles"
    )
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number in range(3):
        label = np.zeros((2, 24, 20), np.uint8)
        label[:, 4 + number : 14 + number, 5:15] = 1
        pictures = rng.integers(0, 40, label.shape) + 150 * label
        np.save(tmp_path / "images" / f"stack_{number}.npy", pictures.astype(np.uint8))
        np.save(tmp_path / "labels" / f"stack_{number}.npy", label)
    (tmp_path / "boxes.json").write_text('{"boxes": [[5, 4, 15, 14]]}')
    return tmp_path


def test_a_toy_domain_trains_evaluates_and_predicts(toy: Path) -> None:
    run = samonai.finetune(
        "micro", toy / "images", toy / "labels", domain="toy", out=toy / "run", epochs=1,
        progress=False,
    )  # fmt: skip
    assert run.metadata.domain_settings == {"gain": 1}
    metrics = run.evaluate(toy / "images", toy / "labels", toy / "test", report=False)
    assert metrics["summary"]["dice"]["finetuned"] > 0.5
    label = run.predict(toy / "images" / "stack_0.npy", toy / "boxes.json")
    assert label.shape == (2, 24, 20)
    assert set(np.unique(label)) == {0, 1}


def test_a_toy_domain_goes_through_the_command_line(toy: Path) -> None:
    data = ["toy", "--images", str(toy / "images"), "--labels", str(toy / "labels")]
    assert main(["train", *data, "--out", str(toy / "run"), "--epochs", "1"]) == 0
    prompts = ["--boxes", str(toy / "boxes.json"), "--out", str(toy / "masks")]
    source = str(toy / "images" / "stack_0.npy")
    assert main(["predict", "toy", "--run", str(toy / "run"), "--input", source, *prompts]) == 0
    assert np.load(toy / "masks" / "stack_0.npy").shape == (2, 24, 20)


def test_a_domain_without_optional_abilities_has_none() -> None:
    assert capabilities(StackDomain()) == Capabilities()


def test_a_pacs_is_for_domains_that_read_dicom() -> None:
    address = "dicomweb://localhost:8042/dicom-web?StudyInstanceUID=1.2.3"
    assert pacs_series(address, "medical") is not None
    with pytest.raises(InputError, match="a PACS holds DICOM, which is medical data"):
        pacs_series(address, "satellite")


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.stem)
def test_the_engine_asks_for_abilities_and_names_no_domain(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    assert not texts & {"medical", "satellite", "documents"}
    checked = [
        ast.unparse(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"
    ]
    assert [name for name in checked if name.split(".")[-1] in ("domain", "_domain")] == []


def test_a_toy_domain_goes_through_archives(toy: Path) -> None:
    (toy / "boxes").mkdir()
    for path in (toy / "images").glob("*.npy"):
        shutil.copy(toy / "boxes.json", toy / "boxes" / f"{path.stem}.json")
    arguments = ["predict", "toy", "--model", "micro", "--input", str(toy / "images"), "--archive"]
    prompts = ["--boxes", str(toy / "boxes"), "--out", str(toy / "masks")]
    assert main([*arguments, *prompts]) == 0
    assert sorted(path.name for path in (toy / "masks").glob("*.npy")) == [
        f"stack_{number}.npy" for number in range(3)
    ]
    assert main([*arguments, *prompts]) == 0, "the same command finds everything done"


@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
def test_a_toy_domain_goes_through_monai(toy: Path) -> None:
    configs = toy / "bundles" / "toy" / "configs"
    monai.bundle.run(
        config_file=str(configs / "train.json"),
        bundle_root=str(configs.parent),
        images=str(toy / "images"),
        labels=str(toy / "labels"),
        output_dir=str(toy / "run"),
        store=str(toy / "store"),
        epochs=1,
        progress=False,
    )
    assert read_decoder_metadata(toy / "run" / "decoder.safetensors").domain == "toy"
