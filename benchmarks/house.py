"""Start-up, store and session: CPU seconds of whole processes, beside an earlier tree's.

The environment variable SAMONAI_BEFORE names the checkout of an earlier version; its rows are left
out where it is not set. Processes of both run in turns, with one thread each.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.apart import ProcessCost, earlier_checkout, process_cost
from benchmarks.house_jobs import write_inputs
from benchmarks.rows import Row, ratio_row
from benchmarks.setting import Setting
from benchmarks.timing import Progress

_REPOSITORY = Path(__file__).parents[1]
_JOBS = Path(__file__).with_name("house_jobs.py")
_SUBJECT = "house"
_FEW = 100
"""A quick run has fewer cases, and only shows that the measurement works."""


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Measure cold predictions, a session's predictions, and the way to the first training step."""
    before = earlier_checkout()
    trees = {"now": _REPOSITORY, **({"before": before} if before else {})}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        small, cases = setting.house_cases
        write_inputs(work, small, cases)
        rows = _prediction_rows(work, trees, setting, progress)
        return [*rows, *_first_step_rows(work, trees, (small, cases), progress)]


def _prediction_rows(
    work: Path, trees: dict[str, Path], setting: Setting, progress: Progress
) -> list[Row]:
    contestants: dict[str, Callable[[], ProcessCost]] = {
        **{name: _predict(tree, work, name) for name, tree in trees.items()},
        "imports": lambda: _spent(_REPOSITORY, "-c", "import torch, monai"),
        "torch": lambda: _spent(_REPOSITORY, "-c", "import torch"),
        "parts": lambda: _job(_REPOSITORY, "encode_and_decode", work),
        "session": lambda: _job(_REPOSITORY, "session", work),
    }
    found: dict[str, list[ProcessCost]] = {name: [] for name in contestants}
    for turn in range(setting.rounds):
        for name, run in contestants.items():
            progress(f"{name}: round {turn + 1} of {setting.rounds}")
            found[name].append(run())
    cpu = {name: [spent.cpu for spent in all_of] for name, all_of in found.items()}
    parts = [spent.said["seconds"] for spent in found["parts"]]
    allowed = [imports + part for imports, part in zip(cpu["imports"], parts, strict=True)]
    least = [torch + part for torch, part in zip(cpu["torch"], parts, strict=True)]
    rows = [
        _ratio("cold predict, of importing torch and MONAI and of encoding and decoding",
               cpu["now"], allowed, at_most=1.15),
        _ratio("cold predict, of importing torch and of encoding and decoding", cpu["now"], least),
        _ratio("share of MONAI in importing torch and MONAI",
               [i - t for i, t in zip(cpu["imports"], cpu["torch"], strict=True)], cpu["imports"]),
    ]  # fmt: skip
    if "before" in trees:
        walls = [spent.said["wall"] for spent in found["session"]]
        cold = [spent.wall for spent in found["before"]]
        warm = [spent.said["seconds"] for spent in found["session"]]
        rows += [
            _ratio("cold predict, fewer CPU seconds than before", cpu["before"], cpu["now"]),
            _ratio("session.predict with stored embeddings, faster than cold predict before",
                   cold, walls, at_least=20.0),
            _ratio("the same in CPU seconds", cpu["before"], warm),
        ]  # fmt: skip
    return rows


def _first_step_rows(
    work: Path, trees: dict[str, Path], cases: tuple[int, int], progress: Progress
) -> list[Row]:
    found = {}
    for name, tree in trees.items():
        progress(f"first training step, {name}")
        folder = work / name
        folder.mkdir()
        for data in work.glob("cases*"):
            (folder / data.name).symlink_to(data)
        found[name] = _job(tree, "first_step", folder, *map(str, cases)).said
    rows = [
        Row(_SUBJECT, f"{cases[1]} tiny cases, files per case in the store",
            found["now"]["files_per_case"], "files", at_most=3.0),
        Row(_SUBJECT, f"{cases[1]} tiny cases, CPU time before the first step, per case",
            1000 * found["now"]["per_case"], "ms"),
    ]  # fmt: skip
    if "before" in trees:
        for key, name in (
            ("seconds", "CPU time before the first training step, less than before"),
            ("per_case", "the same per case"),
        ):
            ratio = found["before"][key] / found["now"][key]
            bar = 3.0 if key == "seconds" and cases[1] > _FEW else None
            details = {tree: values[key] for tree, values in found.items()}
            rows.append(
                Row(_SUBJECT, f"{cases[1]} tiny cases, {name}", ratio, "x", at_least=bar,
                    details=details)
            )  # fmt: skip
    return rows


def _ratio(name: str, over: list[float], under: list[float], **bars: float) -> Row:
    return ratio_row(_SUBJECT, name, over, under, details={"over": over, "under": under}, **bars)


def _predict(tree: Path, work: Path, name: str) -> Callable[[], ProcessCost]:
    """Return a function that predicts the volume by a command line that starts cold."""

    def run() -> ProcessCost:
        with tempfile.TemporaryDirectory(dir=work, prefix=name) as out:
            given = ("--input", str(work / "volume.nii.gz"), "--boxes", str(work / "box.json"))
            return _spent(
                tree, "-m", "samonai", "predict", "medical", "--model", "micro", *given,
                "--out", out,
            )  # fmt: skip

    return run


def _job(tree: Path, job: str, folder: Path, *numbers: str) -> ProcessCost:
    return _spent(tree, "-P", str(_JOBS), job, str(folder), *numbers)


def _spent(tree: Path, *arguments: str) -> ProcessCost:
    """Run Python with a tree's package, in its folder; return its costs."""
    return process_cost(tree, tree, *arguments)
