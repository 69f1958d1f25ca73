"""Data efficiency: growing shares on the same held-out cases, and the U-Net beside them."""

import json
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_scans import write_scans

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.domains import get_domain
from samonai.metrics.volumes import mask_metrics
from samonai.report.curves import curve_table, verdict
from samonai.selection import curve
from samonai.selection.curve import growing_shares
from samonai.selection.unet_baseline import UNetSettings, train_unet

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork

CASES = [f"case_{number:02d}" for number in range(20)]


def test_each_share_contains_the_smaller_ones(tmp_path: Path) -> None:
    found = growing_shares(CASES, (1, 2, 5, 10, 25, 50, 100), None, seed=0)
    # One, two and five percent of twenty cases are one case.
    assert [len(cases) for cases in found] == [1, 2, 5, 10, 20]
    for fewer, more in pairwise(found):
        assert more[: len(fewer)] == fewer
    assert found != growing_shares(CASES, (1, 2, 5, 10, 25, 50, 100), None, seed=1)
    groups = tmp_path / "groups.json"
    groups.write_text(
        json.dumps({name: f"patient{number // 4}" for number, name in enumerate(CASES)})
    )
    # Patients of four cases each come in whole.
    assert [len(cases) for cases in growing_shares(CASES, (1, 50, 100), groups, 0)] == [4, 8, 20]
    for shares in ((0, 100), (101,), ()):
        with pytest.raises(InputError, match="shares are percent"):
            growing_shares(CASES, shares, None, 0)


def ticking() -> Iterator[float]:
    return iter(float(second) for second in count())


@pytest.mark.long
def test_the_unet_learns_within_its_time(tmp_path: Path) -> None:
    images, labels = write_scans(tmp_path)
    domain = get_domain("medical")
    cases = domain.find_cases(images, labels)
    clock = ticking()
    settings = UNetSettings(seconds=40, batch_size=4, seed=0)
    model = train_unet(domain, cases[:2], cases[2:], settings, clock=lambda: next(clock))
    assert model.values == (0, 1)
    assert 20 < model.steps < 42
    assert 40 <= model.seconds <= 55
    assert 8 <= len(model.history) <= 10
    source = domain.read(cases[2])
    found = model.predict(domain, source)
    assert found.shape == source.shape
    dice = mask_metrics(found == 1, source.label == 1, source.spacing)["dice"]
    assert dice is not None
    assert dice > 0.6
    # What is kept is the best of the checks.
    assert dice == pytest.approx(max(check["dice"] for check in model.history), abs=1e-6)
    model.save(tmp_path / "unet.safetensors")
    saved = load_file(tmp_path / "unet.safetensors")
    for name, value in model.network.state_dict().items():
        assert np.array_equal(saved[name], value.numpy())


def test_a_curve_with_a_unet_beside_it(tiny_network: "SamNetwork", tmp_path: Path) -> None:
    images, labels = write_scans(tmp_path)

    def call(**changes: Any) -> dict[str, Any]:
        settings = {"shares": (50, 100), "epochs": 1, "unet": 0.3, "val_fraction": 0.3, **changes}
        return curve(tiny_network, images, labels, out=tmp_path / "out", **settings).document

    document = call()
    out = tmp_path / "out"
    on_disk = json.loads((out / "curve.json").read_text())
    assert len(on_disk.pop("sha256")) == 64
    assert on_disk == document
    assert list(document["points"]) == ["1", "2"]
    assert document["sizes"] == [1, 2]
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert document["before"]["dice"] is not None
    for size, point in document["points"].items():
        run = out / f"cases{int(size):04d}"
        measured = json.loads((run / "evaluation" / "metrics.json").read_text())
        assert point["prompted"]["dice"] == measured["summary"]["dice"]["finetuned"]
        unet = json.loads((out / f"unet{int(size):04d}" / "metrics.json").read_text())
        assert point["unet"]["dice"] == unet["summary"]["dice"]["finetuned"]
        # The same held-out cases for both.
        assert [row["case"] for row in unet["cases"]] == document["val"]
        assert [row["case"] for row in measured["cases"]] == document["val"]
        names = document["train"][: int(size)] + document["val"]
        encoding = sum(document["encode_seconds"][name] for name in names)
        assert point["unet_seconds"] == pytest.approx(0.3 * (point["seconds"] + encoding))
    assert document["frames"]["encoded"] == 9
    assert curve_table(document).row_count == 2
    assert "with 2 cases the decoder, which gets boxes," in str(verdict(document))

    again = call()
    assert again["points"] == document["points"]
    assert again["frames"]["encoded"] == 0
    with pytest.raises(InputError, match=r"made with other settings \(unet_time\)"):
        call(unet=0.5)
    with pytest.raises(InputError, match="a multiple of ours"):
        call(unet=-1)
    with pytest.raises(InputError, match="no curve of satellite"):
        call(domain="satellite")


def test_the_verdict_compares_what_takes_no_prompts() -> None:
    def point(cases: int, **dice: float) -> dict[str, Any]:
        return {"cases": cases, "seconds": 1.0, **{k: {"dice": v} for k, v in dice.items()}}

    points = {"1": point(1, unet=0.9, automatic=0.1), "9": point(9, unet=0.75, automatic=0.7)}
    assert verdict({"points": points}) == (
        "with 9 cases the automatic head is behind the U-Net by 0.050 (Dice 0.700 and 0.750)"
    )
    points["9"] = point(9, unet=0.75, prompted=0.8)
    assert "which gets boxes, is ahead of the U-Net by 0.050" in str(verdict({"points": points}))
    assert verdict({"points": {"1": point(1, prompted=0.5)}}) is None


@pytest.mark.parametrize("verb", ["curve", "sweep"])
def test_what_the_command_line_passes_on(
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given: dict[str, Any] = {}

    def search(*data: Any, **settings: Any) -> None:
        given.update(settings)
        raise InputError("far enough")

    monkeypatch.setattr(f"samonai.selection.{verb}", search)
    command = [verb, "medical", "--images", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*command, "--heads", "both", "--epochs", "3", "--set", "patience=2"]) == 2
    assert "far enough" in capsys.readouterr().err
    assert (given["heads"], given["epochs"], given["patience"]) == ("both", 3, 2)
    assert given["val_fraction"] == 0.2
    if verb == "curve":
        assert given["shares"] == [1, 2, 5, 10, 25, 50, 100]
        assert main([*command, "--shares", "5,ten"]) == 2
        assert "expected percent such as 5,25,100" in capsys.readouterr().err
