"""Train on the roofs of one city, measure on its held-out edge and on other places.

`python -m benchmarks.roofs --data FOLDER --out DIR [--epochs N] [--only SET …] [--boxes-only]
[--set KEY=VALUE …] [--automatic WAY …]`

FOLDER holds `fair-banepa`, `fair-kampala` and `nrcan-gdl`. Of Banepa's chips the easternmost column
is held out; the other places are never trained on. One run with both heads answers everything:
boxes with 5 % jitter beside the filled box and the model before, and no prompts at all, where an
object is what touches in the class map, or what the decoder answers to the map's boxes and points.
`--set` trains otherwise, such as `--set borders=true`, and `--automatic` names the ways measured
without prompts; a run of the semantic head alone (`--set heads=semantic`) gets no boxes.
Existing results are kept. Prints the tables of `docs/satellite.md`.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import samonai
from samonai.workflows.bundle_files import TRAIN, config_files, read_config
from samonai.workflows.settings import parse_settings

_HELD_OUT = "OAM-386693"
_NONE = ("classes", "box", "points")
_MEASURES = ("iou", "dice", "boundary_f1", "instance_f1")
_TITLES = ("IoU", "F1 of pixels", "boundary F1 (1 m)", "F1 of objects")
_METHODS = {"box": "filled box", "zero_shot": "before", "finetuned": "after"}
# A chip fills a tile: the run keeps 0.066 m per pixel of the model, and sees the other places so.
_SETTINGS: dict[str, Any] = {
    "heads": "both",
    "batch_size": 2,
    "learning_rate": 0.0003,
    "val_interval": 2,
}

Place = tuple[Path, Path]


def places(data: Path) -> dict[str, Place]:
    """Return images and labels by name."""
    nrcan = data / "nrcan-gdl"
    atlanta = "SN4_buildings_train_AOI_6_Atlanta"
    image = next(nrcan.glob(f"{atlanta}_*.tif"))
    label = next(nrcan.glob(f"{atlanta}_*.geojson"))
    kampala = data / "fair-kampala"
    return {
        "Banepa": (data / "fair-banepa" / "chips", data / "fair-banepa" / "buildings.geojson"),
        "Kampala": (kampala / "kampala_b_mosaic.tif", kampala / "kampala_b_buildings.geojson"),
        "Quebec": (nrcan / "tiled_image_1.tif", nrcan / "tiled_label_1.tif"),
        "Atlanta": (image, label),
    }


def main(arguments: list[str] | None = None) -> None:
    """Train, measure and print the rows without results."""
    asked = _parser().parse_args(arguments)
    found = places(asked.data)
    images, labels = found["Banepa"]
    chips = sorted(path.stem for path in images.glob("*.tif"))
    held_out = [name for name in chips if name.startswith(_HELD_OUT)]
    split = {"train": [name for name in chips if name not in held_out], "val": held_out}
    chosen = parse_settings(asked.set, read_config(config_files("satellite", TRAIN)))
    run = samonai.finetune(
        asked.model, images, labels, domain="satellite", out=asked.out / "run", split=split,
        epochs=asked.epochs, store=asked.store, **{**_SETTINGS, **chosen},
    )  # fmt: skip
    for name, place in found.items():
        if not asked.only or name in asked.only:
            cases = held_out if name == "Banepa" else "all"
            ways = () if asked.boxes_only else asked.automatic or _NONE
            for line in tables(run, place, cases, asked.out / name.lower(), name, ways):
                print(line)  # noqa: T201


def tables(
    run: Any, place: Place, cases: Any, out: Path, name: str, ways: Sequence[str] = _NONE
) -> Iterator[str]:
    """Measure a place with boxes and in ways without prompts; yield lines of Markdown."""
    columns: dict[str, str] = {}
    means: dict[str, dict[str, float | None]] = {}
    if "promptable" in run.metadata.heads:
        said = _measured(run, place, cases, out / "boxes", "slices")
        columns = dict(_METHODS)
        means = {way: {m: said["summary"][m].get(way) for m in _MEASURES} for way in columns}
    for automatic in ways:
        said = _measured(run, place, cases, out / automatic, "none", automatic=automatic)
        # "box" is also how the filled box is called.
        columns[f"none_{automatic}"] = f"no prompts, {automatic}"
        means[f"none_{automatic}"] = {m: said["summary"][m]["finetuned"] for m in _MEASURES}
    yield f"| {name} | {' | '.join(columns.values())} |"
    yield "|---" * (len(columns) + 1) + "|"
    for measure, title in zip(_MEASURES, _TITLES, strict=True):
        yield f"| {title} | {' | '.join(_number(means[c][measure]) for c in columns)} |"
    yield ""


def _measured(
    run: Any, place: Place, cases: Any, out: Path, prompts: str, **settings: Any
) -> dict[str, Any]:
    path = out / "metrics.json"
    if not path.is_file():
        run.evaluate(*place, out, cases=cases, prompts=prompts, report=False, **settings)
    metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return metrics


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofs", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--model", default="micro")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--automatic", action="append", help="a way; may be repeated")
    parser.add_argument("--store", type=Path, help="embeddings that are there already")
    parser.add_argument("--only", action="append", help="a place; may be repeated")
    parser.add_argument("--boxes-only", action="store_true", help="leave out what has no prompts")
    return parser


if __name__ == "__main__":
    main()
