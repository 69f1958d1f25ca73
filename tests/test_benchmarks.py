import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.rows import Row, speed_up
from benchmarks.timing import Contestant, Timing, interleave


def test_contestants_take_turns() -> None:
    calls: list[str] = []
    contestants = {
        "a": Contestant(lambda: calls.append("a"), images=4, repeats=2),
        "b": Contestant(lambda: calls.append("b")),
    }
    times = interleave(contestants, rounds=3, warm_up=True, progress=lambda _: None)
    assert "".join(calls) == "ab" + "aab" * 3
    assert len(times["a"].rounds) == len(times["b"].rounds) == 3


def test_a_speed_up_is_the_ratio_of_medians_with_the_spread_of_the_rounds() -> None:
    row = speed_up("s", "n", ours=Timing((1.0, 2.0, 4.0)), theirs=Timing((8.0, 10.0, 4.0)))
    assert (row.value, row.spread) == (4.0, (1.0, 8.0))


@pytest.mark.parametrize(
    ("at_least", "at_most", "met"),
    [
        (None, None, None),
        (2.0, None, True),
        (2.1, None, False),
        (None, 2.0, True),
        (1.0, 1.9, False),
    ],
)
def test_a_bar_is_met_or_missed(
    at_least: float | None, at_most: float | None, met: bool | None
) -> None:
    assert Row("s", "n", 2.0, "x", at_least=at_least, at_most=at_most).met is met


def test_a_quick_run_writes_what_it_measured_and_where(tmp_path: Path) -> None:
    assert main(["--quick", "--only", "store", "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "results.json").read_text())
    assert [row["subject"] for row in document["rows"]] == ["store", "store"]
    assert document["versions"]["torch"]
    assert document["machine"]["cores"] >= 1
