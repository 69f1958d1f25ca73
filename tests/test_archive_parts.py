"""Parts of an archive: several workers, one folder, every study once."""

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from archive_factory import WAYS, write_archive, write_boxes, write_study

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.core.locks import is_locked, locked_folder
from samonai.core.pseudonyms import pseudonym
from samonai.domains.base import Case, Domain
from samonai.domains.medical import MedicalDomain
from samonai.inference.output_ownership import OutputOwnership
from samonai.workflows.archive import archive
from samonai.workflows.archive.archive import embed_archive, predict_archive
from samonai.workflows.archive.manifest import Manifest
from samonai.workflows.archive.parts import Part, as_part, assigned_part, parts_of
from samonai.workflows.archive.status import archive_status
from samonai.workflows.archive.worklist import locked_results

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork

DOCS = Path(__file__).parents[1] / "docs" / "slurm.md"


def slurm(task: int, count: int, first: int, step: int = 1) -> dict[str, str]:
    values = {"ID": task, "COUNT": count, "MIN": first, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def torchrun(rank: int, world: int, local: int) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(local)}


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({}, "1/1"),
        (slurm(1, 8, 1), "1/8"),
        (slurm(0, 8, 0), "1/8"),
        (slurm(7, 8, 0), "8/8"),
        (slurm(30, 3, 10, 10), "3/3"),
        (torchrun(0, 2, 0), "1/2"),
        (torchrun(5, 8, 1), "6/8"),
        (slurm(3, 4, 1) | torchrun(1, 2, 1), "6/8"),
    ],
)
def test_a_part_comes_from_the_jobs_environment(environment: dict[str, str], part: str) -> None:
    found = assigned_part(environment)
    assert str(found.part) == part
    assert bool(found.why) == bool(environment)


def test_every_study_belongs_to_one_task_however_arrays_are_numbered() -> None:
    for array in ([slurm(n, 5, 0) for n in range(5)], [slurm(n, 5, 1) for n in range(1, 6)]):
        parts = [assigned_part(environment).part for environment in array]
        for number in range(50):
            assert sum(part.has(f"case{number}") for part in parts) == 1


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (slurm(7, 3, 1), "the array has gaps"),
        (slurm(1, 2, 1) | {"SLURM_ARRAY_TASK_ID": "one"}, "SLURM_ARRAY_TASK_ID='one'"),
        (torchrun(0, 2, 0) | {"RANK": "-1"}, "RANK='-1' is not a number"),
        (torchrun(2, 2, 0), "numbered from 1"),
    ],
)
def test_an_environment_that_gives_no_part_is_refused(
    environment: dict[str, str], told: str
) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        assigned_part(environment)


@pytest.mark.parametrize("given", ["0/8", "9/8", "1/0", "2", "2/", "-1/8", "1.0/2", "\uff12/8", ""])
def test_nonsense_is_no_part(given: str) -> None:
    with pytest.raises(InputError, match="part"):
        as_part(given)


def test_late_studies_do_not_move_the_others() -> None:
    # Computed once with hashlib by hand: sha256("spleen_1")[:8] as a number, modulo 8, from 1.
    assert [n for n in range(1, 9) if Part(n, 8).has("spleen_1")] == [3]
    counts = Counter(
        next(n for n in range(1, 9) if Part(n, 8).has(f"c{case}")) for case in range(800)
    )
    assert sorted(counts) == list(range(1, 9))
    assert max(counts.values()) < 150


def test_each_process_of_torchrun_has_the_gpu_of_its_local_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [assigned_part(torchrun(n, 3, n)).device for n in range(3)] == [
        "cuda:0", "cuda:1", "cuda:0",
    ]  # fmt: skip
    assert assigned_part(slurm(2, 3, 1)).device is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert assigned_part(torchrun(1, 2, 1)).device is None


def test_a_folder_belongs_to_one_number_of_parts(tmp_path: Path) -> None:
    Manifest(tmp_path / Part(1, 8).manifest, {}).finished("one", "done")
    told = r"results of 8 parts.*give --part K/8"
    with pytest.raises(InputError, match=told), locked_results(tmp_path, Part(1, 4)):
        pass
    told = "the whole archive is to be done"
    with pytest.raises(InputError, match=told), locked_results(tmp_path):
        pass
    with (
        locked_results(tmp_path, Part(1, 8)),
        locked_results(tmp_path, Part(2, 8)),
        pytest.raises(InputError, match="another process is working on part 2/8 in"),
        locked_results(tmp_path, Part(2, 8)),
    ):
        pass
    # Also before a manifest is there; the lock file of a killed process does not count.
    fresh = tmp_path / "fresh"
    with locked_folder(fresh, "testing", Part(1, 3).lock):
        (fresh / Part(1, 5).lock).touch()
        assert parts_of(fresh, locked=True) == [Part(1, 3)]
        told = "results of 3 parts"
        with pytest.raises(InputError, match=told), locked_results(fresh, Part(1, 2)):
            pass
    assert not is_locked(fresh / Part(1, 5).lock)


def test_workers_of_one_folder_know_each_others_files(tmp_path: Path) -> None:
    one, other = (OutputOwnership(tmp_path, f".sources.{n}-of-2.jsonl") for n in (1, 2))
    one.register(Case("a.b", tmp_path / "in" / "first"))
    (tmp_path / "a.b.nii.gz").touch()
    other.register(Case("a", tmp_path / "in" / "second"))  # not refused for the file of a.b
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(InputError, match="of another input of this name"):
        OutputOwnership(tmp_path).register(Case("a", tmp_path / "in" / "third"))


Encode = Callable[[Domain[Any], Sequence[Case], bool], None]


def simulated(out: Path, deadly: str) -> Callable[..., tuple[MedicalDomain, Encode]]:
    """Everything of `embed` but the network: studies are read, a file is written for each."""

    def encode(reader: Domain[Any], cases: Sequence[Case], progress: bool) -> None:
        (case,) = cases
        if case.case_id == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        (out / f"{case.case_id}.txt").write_text(str(reader.read(case).shape))

    return lambda *_, **__: (MedicalDomain(), encode)


def work_until_done(given: Path, out: Path, kills: int) -> list[str]:
    """Three workers, some of them killed at random; each starts again until its part is done."""
    start, draw = multiprocessing.get_context("fork"), random.Random(0)
    settings = {"store": out / "store", "progress": False, "readers": 1}
    told: list[str] = []

    def begin(number: int) -> Any:
        asked = {**settings, "part": f"{number}/3"}
        process = start.Process(target=embed_archive, args=("micro", given, out), kwargs=asked)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads that do not matter
            process.start()
        return process

    at_work = {number: begin(number) for number in (1, 2, 3)}
    began, next_kill = time.monotonic(), time.monotonic() + draw.uniform(0.1, 0.4)
    while at_work:
        assert time.monotonic() - began < 500
        time.sleep(0.02)
        if kills and time.monotonic() > next_kill:
            kills, next_kill = kills - 1, time.monotonic() + draw.uniform(0.1, 0.4)
            at_work[draw.choice(sorted(at_work))].kill()
        if parts_of(out):
            told = list(archive_status(out).lines())
        for number, process in list(at_work.items()):
            if not process.is_alive():
                process.join()
                if process.exitcode == 0:
                    del at_work[number]
                else:
                    at_work[number] = begin(number)
    return told


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")
@pytest.mark.parametrize(("good", "kills"), [(13, 2), pytest.param(189, 5, marks=pytest.mark.long)])
def test_three_workers_do_every_study_once(
    good: int, kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, out = tmp_path / "in", tmp_path / "out"
    broken = write_archive(given, good=good, contents=4)
    write_study(given / "poison", 0)
    deadly = pseudonym("poison__CT")
    out.mkdir()
    monkeypatch.setattr(archive, "embedder", simulated(out, deadly))
    seen = work_until_done(given, out, kills)
    assert any(line.startswith("part ") for line in seen)  # while they worked
    lines = [
        json.loads(line)
        for path in sorted(out.glob("manifest.*.jsonl"))
        for line in path.read_text("utf-8").splitlines()[1:]
    ]
    ends = [line for line in lines if line["state"] in ("done", "failed")]
    assert set(Counter(line["case"] for line in ends).values()) == {1}
    done = {line["case"] for line in ends if line["state"] == "done"}
    failed = {line["case"]: line["reason"] for line in ends if line["state"] == "failed"}
    assert len(done) == good
    assert failed.keys() == {*broken, deadly}
    assert "the program died 3 times" in failed[deadly]
    assert {path.stem for path in out.glob("*.txt")} == done
    status = archive_status(out)
    assert (status.count("done"), status.count("failed"), status.open) == (good, len(WAYS) + 1, 0)
    assert sum(part.manifest.session.of for part in status.parts) == 3 * (good + len(WAYS) + 1)


def test_status_joins_the_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, finished in ((1, 3), (3, 1)):
        manifest = Manifest(tmp_path / Part(number, 4).manifest, {"a": 1})
        manifest.begin(5, of=20)
        for case in range(finished):
            manifest.finished(f"case{number}{case}", "done", frames=10)
    manifest.finished("bad", "failed", "no image in it")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with locked_folder(tmp_path, "working", Part(1, 4).lock):
        status = archive_status(tmp_path)
        assert [part.at_work for part in status.parts] == [True, False]
        later = status.parts[0].manifest.session.began + 10
        assert status.parts[0].rates(later) == (0.3, 3.0)
        assert main(["status", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    for line in (
        "failed   bad: no image in it",
        "part 1/4: 3 done, 0 failed, 0 skipped, 2 to do; at work",
        "part 3/4: 1 done, 1 failed, 0 skipped, 3 to do; stopped",
        "not started: 2/4, 4/4",
        "20 studies: 4 done, 1 failed, 0 skipped, 15 to do",
        "1 at work, ",
    ):
        assert line in told
    assert status.other_parts(Part(1, 4)) == (
        f"the other parts: 3/4 lacks 3, not started: 2/4, 4/4; samonai status {tmp_path}"
    )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_two_parts_predict_into_one_folder(
    tmp_path: Path, tiny_network: "SamNetwork", monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"study{number}" for number in range(3)]
    for number, name in enumerate(names):
        write_study(tmp_path / "in" / name, number)
    boxes = write_boxes(tmp_path / "boxes.csv", [f"{name}__CT" for name in names])
    cases, out = {pseudonym(f"{name}__CT") for name in names}, tmp_path / "out"
    first = predict_archive(tiny_network, tmp_path / "in", boxes, out, part="1/2")
    assert first.states.keys() == {case for case in cases if Part(1, 2).has(case)}
    assert archive_status(out).open == 3 - len(first.states)
    with pytest.raises(InputError, match=r"results of other settings \(tta\)"):
        predict_archive(tiny_network, tmp_path / "in", boxes, out, part="2/2", tta=4)
    second = predict_archive(tiny_network, tmp_path / "in", boxes, out, part="2/2")
    assert first.states | second.states == dict.fromkeys(cases, "done")
    assert {path.name for path in out.glob("*.nii.gz")} == {f"{case}.nii.gz" for case in cases}
    assert archive_status(out).open == 0
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "9")
    with pytest.raises(InputError, match="results of 2 parts"):
        predict_archive(tiny_network, tmp_path / "in", boxes, out, part="1/9", dry_run=True)


def documented(language: str, containing: str) -> str:
    fenced = DOCS.read_text("utf-8").split("```")[1::2]
    blocks = [
        text for name, _, text in (block.partition("\n") for block in fenced) if name == language
    ]
    found = [block for block in blocks if containing in block]
    assert len(found) == 1
    return found[0]


def run_documented(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a block of the page with a stand-in for srun, and with this Python's samonai."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    samonai = f'exec {sys.executable} -m samonai "$@"'
    torch_run = f'exec {sys.executable} -m torch.distributed.run "$@"'
    for name, body in (("srun", 'exec "$@"'), ("samonai", samonai), ("torchrun", torch_run)):
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    python_path = os.pathsep.join([str(DOCS.parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": python_path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
def test_the_documented_jobs_run_as_written(tmp_path: Path) -> None:
    for number in range(6):
        write_study(tmp_path / "archive" / f"study{number}", number)
    write_study(tmp_path / "archive" / "broken", 9)
    WAYS["pixels_cut"](tmp_path / "archive" / "broken")
    script = documented("bash", "#SBATCH")
    codes = []
    for task in range(1, 5):
        done = run_documented(script, tmp_path, **slurm(task, 4, 1))
        codes.append(done.returncode)
        assert f"part {task}/4 of the studies, from SLURM_ARRAY_TASK_ID={task}" in done.stderr
        assert f"part {task}/4: " in done.stdout
    assert sorted(codes) == [0, 0, 0, 1]
    status = run_documented(documented("", "samonai status"), tmp_path)
    assert status.returncode == 1
    assert "7 studies: 6 done, 1 failed, 0 skipped, 0 to do" in status.stdout
    command = documented("", "torchrun").replace("--out encoded", "--out by_torchrun")
    both = run_documented(command, tmp_path)
    assert both.returncode == 0, both.stderr[-2000:]
    found = archive_status(tmp_path / "by_torchrun")
    assert (found.count("done"), found.count("failed"), found.open) == (6, 1, 0)
    assert len(found.parts) == 2
