"""First hour: seconds and memory that a person feels, beside an earlier tree's.

The environment variable SAMONAI_BEFORE names the checkout of an earlier version; without it there
is nothing to compare with. Processes of both run in turns, with one thread each.
"""

import json
import tempfile
from pathlib import Path

from benchmarks.apart import ProcessCost, earlier_checkout, process_cost
from benchmarks.house_jobs import write_inputs
from benchmarks.rows import Row, ratio_row
from benchmarks.setting import Setting
from benchmarks.timing import Progress

_REPOSITORY = Path(__file__).parents[1]
_JOBS = Path(__file__).with_name("hour_jobs.py")
_SUBJECT = "hour"


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Measure a mistake's answer, `doctor`, a second prediction, and the memory of the demo."""
    before = earlier_checkout()
    if before is None:
        progress("SAMONAI_BEFORE names no checkout to compare with")
        return []
    trees = {"before": before, "now": _REPOSITORY}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_inputs(work, *setting.house_cases)
        wrong = work / "wrong.json"
        wrong.write_text(json.dumps({"boxes": [[1, 2, 3]]}))
        given = ("--input", str(work / "volume.nii.gz"), "--boxes", str(wrong), "--out", folder)
        mistake = ("-m", "samonai", "predict", "medical", "--model", "micro", *given)
        doctor = ("-m", "samonai", "doctor")
        small = str(work / f"cases{setting.house_cases[0]}")
        again = (str(_JOBS), small, str(work / "volume.nii.gz"))
        found: dict[tuple[str, str], list[ProcessCost]] = {}
        for turn in range(setting.rounds):
            for name, tree in trees.items():
                progress(f"{name}: round {turn + 1} of {setting.rounds}")
                for what, command in (("mistake", mistake), ("doctor", doctor), ("again", again)):
                    found.setdefault((what, name), []).append(
                        process_cost(tree, work, "-P", *command, check=False)
                    )
        for name, tree in trees.items():
            progress(f"{name}: demo")
            out = str(work / f"demo_{name}")
            found["demo", name] = [
                process_cost(tree, work, "-P", "-m", "samonai", "demo", "--out", out, check=False)
            ]
    return [
        _row(found, "mistake", "cpu", "a malformed file of boxes, less CPU time than before", 10.0),
        _row(found, "doctor", "cpu", "doctor, less CPU time than before", 2.5),
        ratio_row(
            _SUBJECT,
            "second run.predict of a scan, faster than before",
            [cost.said["second"] for cost in found["again", "before"]],
            [cost.said["second"] for cost in found["again", "now"]],
            at_least=5.0,
        ),
        _row(found, "demo", "peak", "demo, less peak memory than before"),
    ]


def _row(
    found: dict[tuple[str, str], list[ProcessCost]],
    what: str,
    key: str,
    name: str,
    bar: float | None = None,
) -> Row:
    over, under = ([getattr(c, key) for c in found[what, tree]] for tree in ("before", "now"))
    details = {"before": over, "now": under}
    return ratio_row(_SUBJECT, name, over, under, at_least=bar, details=details)
