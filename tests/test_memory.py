"""Keeping freed memory: what the system sees of it, in processes of their own."""

import os
import platform
import subprocess
import sys

import pytest

from samonai.core.memory import SWITCH, keep_freed_memory

GLIBC = platform.libc_ver()[0] == "glibc"
# Page faults of a hundred tensors of 64 MiB, after the first: of all of them, or of the few that
# the heap grows for.
SCRIPT = """
import resource, sys
from samonai.core.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] != "default" else None
if sys.argv[1] == "ask":
    print(kept, 0)
    sys.exit()
import torch
torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    torch.ones(1 << 24)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(how: str, **variables: str) -> tuple[str, int]:
    ours = ("MALLOC_", "LD_PRELOAD", SWITCH)
    known = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    command = [sys.executable, "-c", SCRIPT, how]
    done = subprocess.run(
        command, env={**known, **variables}, capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(not GLIBC, reason="asks glibc's malloc, which this system does not have")
def test_large_tensors_find_the_memory_of_the_ones_before():
    kept, faults = run("keep")
    assert kept == "True"
    _, default = run("default")
    assert faults * 4 < default


@pytest.mark.skipif(not GLIBC, reason="asks glibc's malloc, which this system does not have")
def test_what_the_user_chose_stays():
    assert run("ask")[0] == "True"
    assert run("ask", MALLOC_TRIM_THRESHOLD_="100000")[0] == "False"
    assert run("ask", **{SWITCH: "0"})[0] == "False"


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.delenv(SWITCH)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert keep_freed_memory() is False
