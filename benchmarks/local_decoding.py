"""Local decoding: a window of the image tokens around each prompt, against all tokens.

CPU seconds of a training step per object and its peak memory, both ways in one run; and of 1,000
boxes on one 256 x 256 slice, against an earlier version's decoding of all tokens
(`SAMONAI_BEFORE=DIR python -m benchmarks --only local_decoding`). The objects have the sides of
`setting.random_boxes`, 100 to 400 of 1024 pixels. A peak is that of a process of its own:
`python -m benchmarks.local_decoding MODEL DECODER_WINDOW`.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.apart import earlier_checkout, run_apart, run_in_tree
from benchmarks.crowd_trees import dice_of_classes, label_of, write_inputs
from benchmarks.memory import added_bytes
from benchmarks.rows import Row, ratio_row
from benchmarks.setting import Setting, network_of, one_box_each, random_embeddings, random_sam
from benchmarks.steps import decoder_optimizer, decoder_step
from benchmarks.timing import Progress
from samonai.core.memory import keep_freed_memory
from samonai.settings.choices import ALL_TOKENS, LOCAL

_SUBJECT = "local_decoding"
_STEP_BARS = {"micro": 3.0, "vit_b": 2.5}
_MEMORY_BAR, _CROWD_BAR = 0.6, 4.0
_FEW = 100  # up to so many boxes, a run only shows that the measurement works
_BATCH = 8  # objects of a step
_JOB = "crowd_job.py"


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Measure a training step of the embedded model and of the setting's, and many boxes."""
    keep_freed_memory()
    rows: list[Row] = []
    for model in dict.fromkeys(("micro", setting.model)):
        rows += _step_rows(setting, model, progress)
    return rows + _crowd_rows(setting, progress)


def _step_rows(setting: Setting, model: str, progress: Progress) -> list[Row]:
    steps = {windows: _step(model, windows) for windows in (ALL_TOKENS, LOCAL)}
    seconds: dict[str, list[float]] = {windows: [] for windows in steps}
    rounds = setting.short_rounds if model == "micro" else setting.rounds
    for turn in range(rounds + 1):
        for windows, step in steps.items():
            progress(f"{model}: training step, {windows}, round {turn} of {rounds}")
            start = time.process_time()
            step()
            if turn:  # the first is a warm-up
                seconds[windows].append((time.process_time() - start) / _BATCH)
    progress(f"{model}: peak memory")
    peaks = {windows: run_apart(_SUBJECT, model, windows) for windows in steps}
    full = setting.model != "micro"
    return [
        ratio_row(
            _SUBJECT,
            f"{model}: training step, fewer CPU seconds per object than on all tokens",
            seconds[ALL_TOKENS],
            seconds[LOCAL],
            at_least=_STEP_BARS.get(model) if full else None,
            details=seconds,
        ),
        Row(
            _SUBJECT,
            f"{model}: memory that a training step adds, of that on all tokens",
            peaks[LOCAL]["added_bytes"] / peaks[ALL_TOKENS]["added_bytes"],
            "x",
            at_most=_MEMORY_BAR if full else None,
            details=peaks,
        ),
    ]


def _step(model: str, windows: str) -> Callable[[], float]:
    """Return a training step on `_BATCH` objects, one on each frame."""
    network = network_of(random_sam(model), model).set_windows(windows).train()
    optimizer = decoder_optimizer(network)
    prompts, targets = one_box_each(_BATCH)
    embeddings = random_embeddings(network, _BATCH)
    return lambda: decoder_step(network, optimizer, lambda: embeddings, prompts, targets)


def _crowd_rows(setting: Setting, progress: Progress) -> list[Row]:
    """Compare predictions of the embedded model: windows, all tokens, an earlier version."""
    count, old = setting.crowded_slice, earlier_checkout()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, count)
        asked: dict[str, tuple[Path | None, tuple[str, ...]]] = {
            LOCAL: (None, (LOCAL,)),
            ALL_TOKENS: (None, ()),
        }
        if old is not None:
            asked["before"] = old, ()
        found: dict[str, Any] = {}
        for who, (tree, options) in asked.items():
            progress(f"{count} boxes on one slice: {who}")
            found[who] = run_in_tree(_JOB, folder, "micro", *options, tree=tree)["all"]
        dice = dice_of_classes(*(label_of(found[who]["label"]) for who in (LOCAL, ALL_TOKENS)))
    title = f"micro: {count} boxes on one slice"
    seconds = {who: [one["cpu_seconds"]] for who, one in found.items()}
    rows = [
        ratio_row(
            _SUBJECT,
            f"{title}, fewer CPU seconds than {who}",
            seconds[key],
            seconds[LOCAL],
            at_least=_CROWD_BAR if key == "before" and count > _FEW else None,
            details=seconds,
        )
        for key, who in ((ALL_TOKENS, "on all tokens"), ("before", "the other checkout"))
        if key in seconds
    ]
    mean = sum(dice) / len(dice)
    note = "Dice of the objects with all tokens' before fine-tuning"
    return [*rows, Row(_SUBJECT, f"{title}, {note}", mean, "Dice")]


def main() -> None:
    """Print {"added_bytes": …} of a training step of the arguments' model and tokens."""
    model, windows = sys.argv[1:]
    step = _step(model, windows)
    sys.stdout.write(json.dumps({"added_bytes": added_bytes(step)}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
