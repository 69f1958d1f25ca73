"""Bars of rasters: no seams, and memory that a scene's size does not break.

    python -m benchmarks.satellite offsets --input scene.tif --boxes boxes.geojson [--run RUN]
    python -m benchmarks.satellite moved --input scene.tif --boxes boxes.geojson [--run RUN]
    python -m benchmarks.satellite large [--side 40000] [--folder DIR]

`offsets` predicts a scene with its tiles moved by several offsets and compares the class maps away
from nodata, with each other and with labels. `moved` asks a model about the same objects in one
tile and in that tile moved: no seam is there, so what differs is the model's. `large` writes a
scene of which a few tiles show something, predicts it through the command in a process of its own,
and reports the process's peak memory and time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

import samonai
from samonai.domains.base import Case
from samonai.domains.satellite import SatelliteDomain
from samonai.domains.satellite.raster import Raster
from samonai.domains.tiling.tiles import TileGrid
from samonai.domains.tiling.tiles import Window as Part
from samonai.inference import CaseDataset, FilePrompts, trained_domain
from samonai.inference.inferer import SourceInferer
from samonai.prompts.frame_prompts import FramePrompts
from samonai.workflows.bundle_files import INFERENCE, config_files, read_config
from samonai.workflows.run import Run
from samonai.workflows.settings import parse_settings

REPOSITORY = Path(__file__).parents[1]
TILE = 512
_WAIT = 0.05
_TILING = ("tile", "resolution", "overlap", "offset", "placing")


def main(arguments: list[str] | None = None) -> None:
    """Measure one subject and print the figures as JSON."""
    asked = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="samonai-satellite-") as scratch:
        folder = asked.folder or Path(scratch)
        subjects = {"large": large, "offsets": offsets, "moved": moved}
        found = subjects[asked.subject](asked, folder)
    print(json.dumps(found, indent=1))  # noqa: T201


def offsets(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the IoU of the foreground, and of each class, between predictions at two offsets."""
    maps = {}
    for offset in asked.offsets:
        out = folder / f"offset_{offset}"
        command = [*_predict(asked, out), "--format", "tif", "--set", f"offset={offset}"]
        subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        with rasterio.open(out / f"{asked.input.stem}.tif") as written:
            maps[offset] = written.read(1), written.nodata
    pairs = {}
    for first, second in combinations(asked.offsets, 2):
        (one, nodata), (other, _) = maps[first], maps[second]
        known = one != nodata
        pairs[f"{first} and {second}"] = {
            "foreground": _iou(one[known] > 0, other[known] > 0),
            **{
                f"class_{value}": _iou(one[known] == value, other[known] == value)
                for value in np.unique(one[known & (one > 0)]).tolist()
            },
        }
    found: dict[str, Any] = {"scene": asked.input.name, "iou": pairs}
    if asked.boxes:
        found["tiles"] = {offset: _tiles_asked(asked, offset) for offset in asked.offsets}
    if asked.labels:
        domain = SatelliteDomain()
        true = domain.maps(domain.read(Case(asked.input.stem, asked.input, asked.labels))).label > 0
        found["iou with labels"] = {
            offset: _iou(read[read != nodata] > 0, true[read != nodata])
            for offset, (read, nodata) in maps.items()
        }
    return found


def _tiles_asked(asked: argparse.Namespace, offset: int) -> int:
    """Return the number of tiles with prompts of a scene's boxes."""
    known = read_config(config_files("satellite", INFERENCE))
    given = parse_settings(asked.set, known) | {"offset": offset}
    # The other settings are for the run or the inferer.
    own = {key: given[key] for key in given if key in _TILING}
    name = None if asked.run is None else Run(asked.run).folder.decoder
    domain = trained_domain(name, "satellite", **own)
    case, boxes = Case(asked.input.stem, asked.input), FilePrompts(asked.boxes)
    prompts = CaseDataset(domain, [case], boxes)[0].prompts
    assert isinstance(prompts, dict)
    return len(prompts)


def moved(asked: argparse.Namespace, _: Path) -> dict[str, Any]:
    """Return the IoU of the masks of objects that a tile shows whole, before and after a move."""
    network = Run(asked.run).network if asked.run else samonai.load_sam("micro")
    known = read_config(config_files("satellite", INFERENCE))
    domain = SatelliteDomain(**parse_settings(asked.set, known))
    raster = domain.read(Case(asked.input.stem, asked.input))
    inferer = SourceInferer(domain)
    tile, room = domain.grid(raster).tile, max(asked.shifts)
    places = TileGrid((raster.size[0] - room, raster.size[1] - room), tile, (0, 0))
    counts = {shift: np.zeros(3, np.int64) for shift in asked.shifts}
    for place in map(places.window, range(len(places))):
        answers = _answers(inferer, network, raster, place, asked.boxes)
        for shift in asked.shifts:
            other = replace(place, row=place.row + shift, column=place.column + shift)
            shared = place.intersection(other)
            assert shared is not None
            for number, found in _answers(inferer, network, raster, other, asked.boxes).items():
                # A box that a border cuts is another one.
                if number in answers and np.allclose(answers[number][0], found[0], atol=0.1):
                    one = answers[number][1][shared.within(place)]
                    two = found[1][shared.within(other)]
                    common, either = np.count_nonzero(one & two), np.count_nonzero(one | two)
                    counts[shift] += np.array([1, common, either])
    return {
        "scene": asked.input.name,
        "moved by": {
            shift: {"objects": objects, "iou": round(common / either, 4) if either else None}
            for shift, (objects, common, either) in ((n, c.tolist()) for n, c in counts.items())
        },
    }


def _answers(
    inferer: SourceInferer[Raster], network: Any, raster: Raster, place: Part, boxes: Path
) -> dict[int, tuple[Any, Any]]:
    """Return box in the raster and mask of the objects on one tile, by their number."""
    part = replace(raster, window=place)
    prompts = inferer.domain.read_boxes(part, boxes, only_case=False).get(0)
    if not isinstance(prompts, FramePrompts) or prompts.object_ids is None:
        return {}
    frame = inferer.domain.frame(part, 0)
    embedding = inferer.embed(part, frame, network)
    logits = inferer.logits(network, embedding, prompts, frame.size).numpy()
    placed = prompts.boxes + [place.column, place.row] * 2
    return dict(zip(prompts.object_ids.tolist(), zip(placed, logits > 0, strict=True), strict=True))


def large(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return peak memory and time of predicting a large scene."""
    folder.mkdir(parents=True, exist_ok=True)
    asked.input, roofs = write_scene(folder, asked.side, asked.places)
    asked.boxes = roofs if asked.prompts == "boxes" else None
    if asked.prompts == "grid":
        asked.set = [*asked.set, "automatic=grid", "points_per_side=8"]
    began = time.monotonic()
    peak = _peak_bytes(_predict(asked, folder / "out"))
    return {
        "scene": f"{asked.side} x {asked.side} pixels, {asked.places}² tiles show something",
        "prompts": asked.prompts,
        "peak_gb": round(peak / 1e9, 2),
        "seconds": round(time.monotonic() - began),
        "written": sorted(path.name for path in (folder / "out").iterdir()),
    }


def write_scene(folder: Path, side: int, places: int) -> tuple[Path, Path]:
    """Write a scene, nodata but for places² patches with four roofs each, and the roofs' boxes.

    Returns:
        The GeoTIFF and the GeoJSON file.
    """
    rng = np.random.default_rng(0)
    corners = np.linspace(0, side - TILE, places).astype(int)
    path, features = folder / "large.tif", []
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8", nodata=0,
        crs="EPSG:32616", transform=rasterio.Affine(0.5, 0, 700_000, 0, -0.5, 3_800_000),
        tiled=True, blockxsize=TILE, blockysize=TILE, compress="deflate", sparse_ok=True,
        bigtiff="if_safer",
    ) as scene:  # fmt: skip
        for top in corners.tolist():
            for left in corners.tolist():
                patch = rng.integers(60, 100, (3, TILE, TILE), np.uint8)
                for row, column in ((60, 40), (60, 300), (320, 60), (300, 330)):
                    patch[:, row : row + 110, column : column + 130] += 110
                    features.append(_box(scene.transform, top + row, left + column, 110, 130))
                scene.write(patch, window=Window(left, top, TILE, TILE))
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32616"}}
    collection = {"type": "FeatureCollection", "crs": crs, "features": features}
    roofs = folder / "roofs.geojson"
    roofs.write_text(json.dumps(collection))
    return path, roofs


def _box(place: Any, row: int, column: int, height: int, width: int) -> dict[str, Any]:
    x0, y0 = place * (column, row)
    x1, y1 = place * (column + width, row + height)
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "properties": {}, "geometry": geometry}


def _predict(asked: argparse.Namespace, out: Path) -> list[str]:
    whose = ["--run", str(asked.run)] if asked.run else ["--model", "micro"]
    boxes = ["--boxes", str(asked.boxes)] if asked.boxes else []
    settings = [word for setting in asked.set for word in ("--set", setting)]
    return [
        *(sys.executable, "-m", "samonai", "predict", "satellite", *whose, *boxes, *settings),
        *("--input", str(asked.input), "--out", str(out)),
    ]


def _peak_bytes(command: list[str]) -> int:
    """Run a command and return the peak of its resident memory (Linux)."""
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak = max(peak, int(line.split()[1]) * 1024)
        time.sleep(_WAIT)
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak


def _iou(one: Any, other: Any) -> float | None:
    union = int(np.count_nonzero(one | other))
    return round(int(np.count_nonzero(one & other)) / union, 4) if union else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.satellite", description=__doc__)
    subjects = parser.add_subparsers(dest="subject", required=True)
    two = subjects.add_parser("offsets", help="agreement of predictions at several offsets")
    two.add_argument("--input", type=Path, required=True)
    two.add_argument("--boxes", type=Path, help="vector file; none: the run's semantic head")
    two.add_argument("--labels", type=Path, help="vector file or mask to measure both against")
    two.add_argument("--offsets", type=int, nargs="+", default=[0, 97, 211])
    alone = subjects.add_parser("moved", help="agreement of one tile and the tile moved")
    alone.add_argument("--input", type=Path, required=True)
    alone.add_argument("--boxes", type=Path, required=True, help="vector file")
    alone.add_argument("--shifts", type=int, nargs="+", default=[1, 16, 128, 211])
    wide = subjects.add_parser("large", help="peak memory and time of a large scene")
    wide.add_argument("--side", type=int, default=40_000)
    wide.add_argument("--places", type=int, default=4)
    wide.add_argument(
        "--prompts",
        default="boxes",
        choices=("boxes", "grid", "none"),
        help="grid: of points; none: a run's semantic head",
    )
    for part in (two, alone, wide):
        part.add_argument("--run", type=Path, help="a run; none: micro as it is")
        part.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
        part.add_argument("--folder", type=Path, help="keep the files here")
    return parser


if __name__ == "__main__":
    main()
