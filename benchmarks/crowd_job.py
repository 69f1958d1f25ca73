"""Masks of many boxes on one slice, by the `samonai` of any checkout (`apart.run_in_tree`).

`python crowd_job.py FOLDER MODEL [DECODER_WINDOW]`: predicts `slice.nii.gz` with the boxes of
`few.json` and of `all.json`, on weights of `FOLDER/MODEL.pth` where they are there. It prints, as
JSON, where the label maps are, the CPU seconds of the second prediction and the peak memory of
both. The slice is encoded before, into a store.
"""

import importlib
import json
import sys
import time
from pathlib import Path

import samonai


def main(folder: Path, model: str, windows: str | None = None) -> None:
    """Predict, and print paths, seconds and bytes."""
    # Where `predict` was before the façade had it.
    predict = getattr(samonai, "predict", None) or importlib.import_module("samonai.run").predict
    weights = folder / f"{model}.pth"
    network = samonai.load_sam(model, weights if weights.exists() else None, device="cpu")
    if windows is not None:
        network.set_windows(windows)
    out = folder / f"{hash(samonai.__file__)}-{windows}"
    found: dict[str, object] = {}
    for name in ("one", "few", "all"):  # the first fills the store
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
        start = time.process_time()
        (path,) = predict(
            network,
            folder / "slice.nii.gz",
            folder / f"{name}.json",
            out / name,
            store=out / "store",
            progress=False,
        )
        found[name] = {
            "label": str(path),
            "cpu_seconds": time.process_time() - start,
            "peak_bytes": _peak_bytes(),
        }
    sys.stdout.write(json.dumps(found) + "\n")


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
