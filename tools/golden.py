"""Golden record: results on generated data with fixed seeds, compared by `make golden`.

A change of structure must leave this record as it is; a commit that changes a line says which and
why. Per domain, with the embedded model and two epochs: sha256 of the decoder's tensors, of the
predicted label maps and of the metrics without times; the sections of the store with the keys of
their targets; `run.json`. Besides: every setting with its type and default, every `--help`.

Hashes of computed values hold for one kind of processor and one version of torch. Where the
record was made on another, they are left out of the comparison, and a line says so.
"""

import argparse
import difflib
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
RECORD = REPOSITORY / "tests" / "golden.json"
DOMAINS = {
    "medical": ("imagesTr", "labelsTr"),
    "satellite": ("images", "labels"),
    "documents": ("images", "labels"),
}
TRAINING = ("--epochs", "2", "--seed", "3", "--device", "cpu", "--set", "learning_rate=0.001")
OF_DOMAIN = {
    "satellite": ("--set", "tile=32", "--set", "overlap=8"),
    "documents": ("--set", "classes=text,table"),
}
PATHS = ("images", "labels", "store_mark", "sha256")
"""Entries of `run.json` that are hashes of the scratch folder's path, or depend on one."""

COMPUTED = "computed"
"""The part of a domain's record that depends on the processor."""

_TIMES = re.compile(r"second|time|duration|date|memory", re.IGNORECASE)


def main() -> int:
    """Make the record and compare it with, or write it to, the committed file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="replace the committed record")
    parser.add_argument("--out", type=Path, help="also write the record here")
    arguments = parser.parse_args()
    record = make_record()
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    if arguments.write:
        RECORD.write_text(text, encoding="utf-8")
        print(f"wrote {RECORD}")
        return 0
    return compare(json.loads(RECORD.read_text(encoding="utf-8")), record)


def compare(before: dict[str, Any], now: dict[str, Any]) -> int:
    """Print the lines that differ; return the exit code."""
    if before["machine"] != now["machine"]:
        print(f"hashes of computed values are not compared: recorded on {before['machine']}")
        for record in (before, now):
            for domain in DOMAINS:
                del record[domain][COMPUTED]
            del record["machine"]
    texts = [json.dumps(r, indent=1, sort_keys=True).splitlines() for r in (before, now)]
    changes = list(difflib.unified_diff(*texts, "recorded", "now", lineterm="", n=1))
    print("\n".join(changes) if changes else "golden: as recorded")
    return int(bool(changes))


def make_record() -> dict[str, Any]:
    """Return everything that is recorded."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    with tempfile.TemporaryDirectory(prefix="golden-") as scratch:
        record = {domain: record_domain(domain, Path(scratch) / domain) for domain in DOMAINS}
    return {
        "machine": machine(),
        **record,
        "settings": {domain: settings_of(domain) for domain in DOMAINS},
        "help": dict(helps()),
    }


def machine() -> str:
    """Return the processor and versions that floating-point sums depend on."""
    lines = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*:\s*(.*)", lines)
    name = model.group(1) if model else platform.processor()
    return f"{name}, torch {version('torch')}, monai {version('monai')}"


def record_domain(domain: str, folder: Path) -> dict[str, Any]:
    """Train, evaluate and predict on generated data of a domain, and record what came out."""
    import bundle_factory

    writers = {
        "medical": bundle_factory.write_scans,
        "satellite": bundle_factory.write_scenes,
        "documents": bundle_factory.write_pages,
    }
    writers[domain](folder)
    images, labels = (str(folder / name) for name in DOMAINS[domain])
    data = ("--images", images, "--labels", labels)
    run, store = folder / "run", folder / "store"
    samonai(
        "train", domain, *data, "--out", str(run), "--store", str(store), *TRAINING,
        *OF_DOMAIN.get(domain, ()),
    )  # fmt: skip
    samonai("evaluate", domain, *data, "--run", str(run), "--out", str(folder / "test"))
    boxes = boxes_file(domain, folder)
    source = next(path for path in sorted(Path(images).iterdir()))
    samonai(
        "predict", domain, "--run", str(run), "--input", str(source), "--boxes", str(boxes),
        "--out", str(folder / "masks"),
    )  # fmt: skip
    return {
        "run.json": without(
            {k: v for k, v in json.loads((run / "run.json").read_text()).items() if k not in PATHS},
            str(folder),
        ),
        "store": sections_of(store),
        "files": sorted(
            str(path.relative_to(folder))
            for name in ("run", "test", "masks")
            for path in (folder / name).rglob("*")
            if path.is_file() and "tensorboard" not in path.parts and path.suffix != ".lock"
        ),
        COMPUTED: {
            "decoder": tensors_of(run / "decoder.safetensors"),
            "metrics": digest(without(json.loads((folder / "test/metrics.json").read_text()), "")),
            "masks": {path.name: pixels(path) for path in sorted((folder / "masks").iterdir())},
        },
    }


def boxes_file(domain: str, folder: Path) -> Path:
    """Write a box that the first source of the generated data has something in."""
    if domain == "satellite":
        return folder / "labels" / "scene_0.geojson"
    boxes = {"medical": [[3, 4, 0, 10, 12, 2]], "documents": [[5, 6, 30, 18]]}[domain]
    path = folder / "boxes.json"
    names = {"medical": [1], "documents": ["text"]}[domain]
    path.write_text(json.dumps({"boxes": boxes, "classes": names}))
    return path


def samonai(*argv: str) -> str:
    """Run the command line of this tree with one thread; return its output."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "COLUMNS": "100",
        "SAMONAI_SALT": "golden", "TERM": "dumb", "NO_COLOR": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "samonai", *argv],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"samonai {' '.join(argv)}: {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def without(value: Any, folder: str) -> Any:
    """Return JSON values without times and without the scratch folder."""
    if isinstance(value, dict):
        return {k: without(v, folder) for k, v in value.items() if not _TIMES.search(k)}
    if isinstance(value, list):
        return [without(inner, folder) for inner in value]
    return value.replace(folder, "") if isinstance(value, str) and folder else value


def digest(value: Any) -> str:
    """Return the sha256 of JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def tensors_of(path: Path) -> str:
    """Return the sha256 over names, shapes and bytes of a safetensors file's tensors."""
    from safetensors.numpy import load_file

    total = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        total.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        total.update(tensor.tobytes())
    return total.hexdigest()


def pixels(path: Path) -> str:
    """Return the sha256 of a label map's values, or of a text's lines without scratch paths."""
    if path.name.endswith(".nii.gz"):
        import nibabel

        return hashlib.sha256(nibabel.load(path).get_fdata().tobytes()).hexdigest()
    if path.suffix == ".tif":
        import rasterio

        with rasterio.open(path) as dataset:
            return hashlib.sha256(dataset.read().tobytes()).hexdigest()
    if path.suffix == ".json":
        return digest(without(json.loads(path.read_text()), str(path.parents[1])))
    if path.suffix == ".png":
        from PIL import Image

        return hashlib.sha256(Image.open(path).tobytes()).hexdigest()
    return "written"


def sections_of(store: Path) -> list[str]:
    """Return the files of a store, ids of sections and cases shortened to <id>."""
    names = set()
    for path in (path for path in store.rglob("*") if path.is_file()):
        parts = path.relative_to(store).parts
        names.add("/".join(re.sub(r"[0-9a-f]{12,}", "<id>", part) for part in parts))
    return sorted(names)


def settings_of(domain: str) -> list[str]:
    """Return every setting of a domain with its default."""
    return [
        f"{config}: {line}"
        for config in ("train.json", "evaluate.json", "inference.json")
        for line in samonai("bundle", "show", domain, "--config", config).splitlines()
    ]


def helps() -> Iterator[tuple[str, list[str]]]:
    """Yield every verb with the lines of its `--help`."""
    top = samonai("--help").splitlines()
    yield "samonai", [line.rstrip() for line in top]
    for line in top:
        verb = re.match(r"[│|]\s+([a-z]+)\s", line)
        if verb:
            text = samonai(verb.group(1), "--help")
            yield verb.group(1), [line.rstrip() for line in text.splitlines()]


if __name__ == "__main__":
    raise SystemExit(main())
