"""Every regime that docs/regimes.md compares, trained by MONAI's own `run`, with overrides only."""

import math
import shutil
from pathlib import Path

import monai.bundle
import pytest
import torch
from bundle_factory import MEDICAL, write_scans
from safetensors.torch import load_file

from benchmarks.regime_list import REGIMES, Regime
from samonai.sam.decoder_metadata import read_decoder_metadata

# MONAI warns about every configuration that it evaluates.
pytestmark = pytest.mark.filterwarnings("ignore")

DEFAULT, *OTHERS = REGIMES


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle beside its data; all regimes share the store within."""
    folder = tmp_path_factory.mktemp("regimes")
    write_scans(folder / "data", cases=2)
    return Path(shutil.copytree(MEDICAL, folder / "bundle"))


@pytest.fixture(scope="module")
def default(bundle: Path) -> dict[str, torch.Tensor]:
    """The weights that the default regime ends with."""
    return load_file(train(bundle, DEFAULT))


def train(bundle: Path, regime: Regime) -> Path:
    """Train one epoch by what `python -m monai.bundle run` calls; return the decoder's file."""
    out = bundle.parent / regime.name
    settings = {
        "bundle_root": str(bundle),
        "dataset_dir": str(bundle.parent / "data"),
        "output_dir": str(out),
        "device": "$torch.device('cpu')",
        "val_fraction": 0.5,
        "epochs": 1,
        "progress": False,
        **{name.replace(".", "#"): value for name, value in regime.settings.items()},
    }
    config = str(bundle / "configs" / "train.json")
    monai.bundle.run(config_file=config, logging_file=False, **settings)
    return out / "decoder.safetensors"


@pytest.mark.parametrize("regime", OTHERS, ids=lambda regime: regime.name)
def test_every_regime_trains_through_the_bundle(regime: Regime, bundle: Path, default) -> None:
    if "lora" in regime.settings.get("train_parts", ""):
        pytest.importorskip("peft", reason="LoRA needs samonai[peft]")
    decoder = train(bundle, regime)
    metadata = read_decoder_metadata(decoder)
    assert metadata.training["epochs_done"] == 1
    assert math.isfinite(metadata.metrics["val_dice"])
    assert ("semantic" in metadata.heads) == regime.automatic
    weights = load_file(decoder)
    assert weights.keys() != default.keys() or any(
        not torch.equal(value, default[name]) for name, value in weights.items()
    ), "the override changed nothing"
