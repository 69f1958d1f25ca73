"""Writes that store only a part: files cut anywhere, and a disk that is full while a store fills.

Decoders and checkpoints that are cut are in `test_faults_runs`, lines in `test_faults_writing`.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import TIMES, one_line
from test_faults_flips import facts_of, read_all
from test_faults_writing import full_disk

import samonai
from samonai.core.errors import InputError
from samonai.domains import get_domain
from samonai.embeddings import EmbeddingStore
from samonai.selection.job import _whole_metrics
from samonai.selection.run_plan import read_plan
from samonai.workflows.archive.manifest import DONE, FAILED, Manifest
from samonai.workflows.run_data import DATA_FILE, check_data, write_data
from samonai.workflows.run_folder import RunFolder, member_folders


def cut_anywhere(path: Path, count: int) -> list[bytes]:
    """Return the first part of a file's bytes, so many times: nothing, and all but the last one."""
    data, draw = path.read_bytes(), random.Random(path.name)
    ends = [0, len(data) - 1, *(draw.randrange(len(data)) for _ in range(count * TIMES))]
    return [data[:end] for end in ends]


def never_used(path: Path, read: Callable[[], Any]) -> None:
    """Check that a reader gives nothing of a file that is cut, or refuses it in one line."""
    whole, expected = path.read_bytes(), read()
    assert expected is not None
    for part in cut_anywhere(path, 20):
        path.write_bytes(part)
        found = one_line(read)
        # Without its last line end, a document is whole.
        assert found is None or (found == expected and part == whole[:-1]), part
    path.write_bytes(whole)


def test_no_part_of_a_record_is_used(two_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(two_runs / "runs", tmp_path / "runs")
    plan = tmp_path / "runs" / "seeds.json"
    never_used(plan, lambda: read_plan(plan)["members"])
    member = member_folders(plan.parent)[0]
    never_used(member / "run.json", RunFolder(member).settings)
    metrics = member / "evaluation" / "metrics.json"
    never_used(metrics, lambda: _whole_metrics(metrics))
    cases = get_domain("medical").find_cases(two_runs / "images", two_runs / "labels")
    write_data(tmp_path, cases)
    never_used(tmp_path / DATA_FILE, lambda: check_data(tmp_path, cases) or "as before")


def test_a_manifest_cut_anywhere_keeps_its_whole_lines_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    manifest = Manifest(path, {"a": 1})
    manifest.finished("case_a", DONE, files=[tmp_path / "case_a.nii.gz"])
    manifest.finished("case_b", FAILED, "cut short")
    whole, expected = path.read_bytes(), dict(manifest.states)
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        again = Manifest(path, {"a": 1})
        lines = whole[:end].count(b"\n") - 1
        assert again.states == dict(list(expected.items())[:lines]), end
        again.finished("case_c", DONE)
        assert set(Manifest(path, {"a": 1}).states) == {*again.states, "case_c"}, end
        assert all(json.loads(line) for line in path.read_bytes().splitlines()), end


def test_no_part_of_a_file_of_a_store_is_used(two_runs: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(two_runs / "store", tmp_path / "store"))
    facts = facts_of(copied)
    expected = read_all(EmbeddingStore(copied), facts)
    draw = random.Random(3)
    files = sorted(path for path in copied.rglob("*") if path.is_file())
    for _ in range(40 * TIMES):
        path = draw.choice(files)
        whole = path.read_bytes()
        path.write_bytes(whole[: draw.randrange(len(whole))])
        found = one_line(lambda: read_all(EmbeddingStore(copied, read_only=True), facts)) or {}
        for key, value in found.items():
            assert value in (None, expected[key]), path
        path.write_bytes(whole)


@pytest.mark.parametrize("limit", [1 << 12] if TIMES == 1 else [100, 1 << 12, 1 << 16])
def test_a_disk_that_fills_up_while_a_store_does(two_runs, tmp_path, limit) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        shutil.copy(two_runs / kind / "case_a.nii.gz", tmp_path / kind)
    given = tmp_path / "images", tmp_path / "labels"
    network, store = samonai.load_sam("micro"), tmp_path / "store"
    with full_disk(limit), pytest.raises(InputError, match="large") as caught:
        samonai.embed(network, *given, store=store)
    assert "\n" not in str(caught.value)
    samonai.embed(network, *given, store=store)
    facts = facts_of(two_runs / "store")
    whole = read_all(EmbeddingStore(two_runs / "store"), facts)
    found = {k: v for k, v in read_all(EmbeddingStore(store), facts).items() if v is not None}
    assert len(found) == 6  # embedding and target of three frames
    assert all(whole[key] == value for key, value in found.items())
