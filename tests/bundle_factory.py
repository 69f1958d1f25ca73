"""Tiny scans and a door to MONAI's bundle commands, for the tests of bundles/."""

import contextlib
import multiprocessing
import os
import runpy
import sys
import traceback
from pathlib import Path

import nibabel as nib
import numpy as np
import shapely
from document_factory import save_picture
from PIL import Image
from tiny_rasters import PLACE, write_features, write_raster

REPOSITORY = Path(__file__).parents[1]
MEDICAL = REPOSITORY / "bundles" / "medical"
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 1.5, 0, -20], [0, 0, 4, 10], [0, 0, 0, 1]])


def write_scans(folder: Path, cases: int = 3, slices: int = 2, seed: int = 0) -> Path:
    """Write scans, 24 x 20 x (slices + 1) voxels: two bright blocks, last slice bare."""
    names = [f"scan_{number}" for number in range(cases)]
    for number, name in enumerate(names):
        rng = np.random.default_rng(seed + number)
        label = np.zeros((24, 20, slices + 1), np.uint8)
        label[3 + number : 10 + number, 4:12, :slices] = 1
        label[14:20, 8 + number : 15 + number, :slices] = 2
        image = rng.normal(100, 10, label.shape) + 80 * (label == 1) + 150 * (label == 2)
        for kind, data in (("imagesTr", image.astype(np.int16)), ("labelsTr", label)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, AFFINE), folder / kind / f"{name}.nii.gz")
    return folder


def write_scenes(folder: Path, cases: int = 3) -> Path:
    """Write scenes, 40 x 48 pixels: two bright roofs that touch, with polygons."""
    for number in range(cases):
        rng = np.random.default_rng(number)
        image = rng.integers(1, 80, (3, 40, 48), np.uint8)
        image[:, 8:24, 4 + number : 30 + number] += 150
        write_raster(folder / "images" / f"scene_{number}.tif", image)
        roofs = [(4 + number, 8, 16 + number, 24), (16 + number, 8, 30 + number, 24)]
        outlines = [
            shapely.box(*(PLACE @ (x0, y1)), *(PLACE @ (x1, y0))) for x0, y0, x1, y1 in roofs
        ]
        write_features(folder / "labels" / f"scene_{number}.geojson", outlines)
    return folder


def write_pages(folder: Path, cases: int = 3) -> Path:
    """Write pages, 48 x 36 pixels: coloured blocks of two classes, with masks."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(cases):
        label = np.zeros((48, 36), np.uint8)
        label[6 + number : 18 + number, 5:30] = 1
        label[26:40, 5 + number : 20 + number] = 2
        colours = np.array([(255, 255, 255), (60, 60, 60), (200, 40, 40)], np.uint8)
        save_picture(folder / "images" / f"page_{number}.png", colours[label])
        Image.fromarray(label).save(folder / "labels" / f"page_{number}.png")
    return folder


def write_data(bundle: Path, folder: Path) -> dict[str, str]:
    """Write what a bundle trains on and predicts, and return the settings that name it."""
    if bundle.name == "satellite":
        write_scenes(folder)
        boxes = folder / "labels" / "scene_0.geojson"
        return {
            "dataset_dir": str(folder), "input": str(folder / "images"), "boxes": str(boxes),
        }  # fmt: skip
    if bundle.name == "documents":
        write_pages(folder)
        boxes = folder / "boxes.csv"
        boxes.write_text("case,x0,y0,x1,y1\n")
        return {
            "dataset_dir": str(folder), "input": str(folder / "images"), "boxes": str(boxes),
        }  # fmt: skip
    write_scans(folder)
    boxes = folder / "boxes.csv"
    boxes.write_text("case,i0,j0,k0,i1,j1,k1\n")
    return {"dataset_dir": str(folder), "input": str(folder / "imagesTr"), "boxes": str(boxes)}


def run_command(log: Path, cwd: Path, *arguments: str, module: str = "monai.bundle") -> str:
    """Run `python -m monai.bundle ...` in a process of its own, from a folder of its own.

    It comes from a server that has imported torch and MONAI and runs nothing: importing them once
    more takes longer than the whole run, and a fork of the tests' own process, which has threads
    by now, can wait forever for a lock that one of them held.

    Returns:
        What it wrote. An error in it fails the test with that text.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "monai.bundle", "monai.engines", "samonai.training"])
    process = context.Process(target=_command, args=(log, cwd, module, arguments))
    process.start()
    process.join(300)
    if process.is_alive():
        process.kill()
    text = log.read_text()
    assert process.exitcode == 0, f"{module} {' '.join(arguments)}:\n{text[-4000:]}"
    return text


def overrides(**values: object) -> list[str]:
    """Return settings as MONAI's command line takes them."""
    return [part for key, value in values.items() for part in (f"--{key}", str(value))]


def _command(log: Path, cwd: Path, module: str, arguments: tuple[str, ...]) -> None:
    os.chdir(cwd)
    sys.argv = ["python", *arguments]
    # As a fresh interpreter has it: MONAI warns about every configuration that it evaluates.
    import warnings

    warnings.simplefilter("default")
    with (
        log.open("w") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except BaseException:
            traceback.print_exc()
            file.flush()
            os._exit(1)
