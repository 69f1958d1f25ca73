"""Training, encoding, evaluation and archives killed at random moments end as if undisturbed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import TIMES

TESTS = Path(__file__).parents[1]


@pytest.mark.long
@pytest.mark.parametrize("job", ["train", "embed", "evaluate", "predict"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="jobs are forked")
def test_killed_jobs_end_as_undisturbed_ones(job: str, tmp_path: Path) -> None:
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, TESTS / "faults" / "kill_jobs.py", tmp_path, job, str(TIMES), "0"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rounds = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(rounds) == TIMES
    assert all(one["equal"] for one in rounds)
