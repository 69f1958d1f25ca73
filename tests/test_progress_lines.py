"""Progress of redirected output: lines, one a minute at most, with the time left."""

import io

from samonai.core.progress_lines import ProgressLines


def test_a_line_a_minute_with_share_and_time_left() -> None:
    seconds = [0.0]
    file = io.StringIO()
    lines = ProgressLines("training", 100, file, lambda: seconds[0])
    for step in range(1, 51):
        seconds[0] = step * 6.0  # 10 steps a minute
        lines.update(step, f"loss {step}")
    told = file.getvalue().splitlines()
    assert len(told) == 5
    assert told[0].startswith("training: 10 %, loss 10, ")
    # 49 of 99 steps from the first one took 300 - 6 seconds.
    assert told[-1] == "training: 50 %, loss 50, 5 min 6 s left"


def test_the_end_of_an_epoch_is_told_at_once() -> None:
    file = io.StringIO()
    lines = ProgressLines("training", 10, file, lambda: 0.0)
    lines.update(5, "epoch 1/2 done", now=True)
    assert file.getvalue() == "training: 50 %, epoch 1/2 done\n"
