"""Flipped bits in every kind of file that is read again: computed anew, refused, or as before.

Decoders and checkpoints are in `test_faults_runs`.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import TIMES, one_line
from tiny_scans import write_scans

import samonai
from samonai.core.errors import InputError
from samonai.domains import get_domain
from samonai.embeddings import EmbeddingStore
from samonai.embeddings.target_store import load_targets
from samonai.selection.job import _whole_metrics
from samonai.selection.run_plan import read_plan
from samonai.workflows.archive.manifest import DONE, FAILED, Manifest
from samonai.workflows.run_data import DATA_FILE, check_data, write_data
from samonai.workflows.run_folder import RunFolder, member_folders

SPLIT = {"train": ["case_a", "case_b"], "val": ["case_c"]}


def flipped_files(path: Path, count: int) -> list[bytes]:
    """Return a file's bytes with one drawn bit flipped, so many times."""
    data, draw = path.read_bytes(), random.Random(path.name)
    found = []
    for _ in range(count * TIMES):
        changed = bytearray(data)
        bit = draw.randrange(8 * len(data))
        changed[bit // 8] ^= 1 << bit % 8
        found.append(bytes(changed))
    return found


def never_used(path: Path, read: Callable[[], Any], count: int = 40) -> None:
    """Check that a reader gives of a damaged file nothing, a refusal, or what stood there."""
    whole, expected = path.read_bytes(), read()
    assert expected is not None
    for damaged in flipped_files(path, count):
        path.write_bytes(damaged)
        found = one_line(read)
        assert found in (None, expected), damaged
    path.write_bytes(whole)


def test_no_flipped_bit_of_a_record_is_used(two_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(two_runs / "runs", tmp_path / "runs")
    plan = tmp_path / "runs" / "seeds.json"
    never_used(plan, lambda: member_folders(plan.parent))
    never_used(plan, lambda: read_plan(plan)["members"])
    member = member_folders(plan.parent)[0]
    never_used(member / "run.json", RunFolder(member).settings)
    never_used(member / "run.json", RunFolder(member).store)
    metrics = member / "evaluation" / "metrics.json"
    never_used(metrics, lambda: _whole_metrics(metrics))


def test_no_flipped_bit_of_a_manifest_is_used(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    manifest = Manifest(path, {"a": 1})
    manifest.finished("case_a", DONE, files=[tmp_path / "case_a.nii.gz"])
    manifest.started("case_c", alone=True)
    manifest.finished("case_b", FAILED, "cut short")
    expected = dict(manifest.states)

    def states() -> dict[str, str]:
        read = Manifest(path, {"a": 1})
        assert read.attempts("case_c") == 1 or read.states != expected
        return read.states

    whole = path.read_bytes()
    for damaged in flipped_files(path, 150):
        path.write_bytes(damaged)
        # A damaged line end is a line that was not written.
        assert (one_line(states) or {}).items() <= expected.items(), damaged
    path.write_bytes(whole)
    assert states() == expected


def test_a_manifest_without_digests_is_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    lines = [
        {"manifest": 1, "samonai": "0.1.0", "settings": {"a": 1}},
        {"case": "x", "state": DONE},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = Manifest(path, {"a": 1})
    manifest.finished("y", DONE)
    assert set(Manifest(path, {"a": 1}).states) == {"x", "y"}


def read_all(store: EmbeddingStore, facts: dict[str, Any]) -> dict[Any, Any]:
    """Return all that a store holds; None for what is missing or damaged."""
    found: dict[Any, Any] = {}
    section = store.section(facts["signature"])
    for source in facts["sources"]:
        embeddings = section.find(source)
        for index in range(3):
            value = None if embeddings is None else embeddings.get(index)
            found[source, index] = None if value is None else value.tobytes()
    for key in facts["targets"]:
        targets = load_targets(store, key)
        for index in range(3):
            whole = None if targets is None else one_line(lambda t=targets, n=index: t.read(n))
            found[key, index] = whole and (whole.class_map().tobytes(), whole.valid.tobytes())
    return found


def facts_of(store: Path) -> dict[str, Any]:
    """Return what leads to everything in a store."""
    (section,) = (path for path in store.iterdir() if (path / "embeddings").is_dir())
    signature = json.loads((section / "store.json").read_text())["signature"]
    kept = {k: v for k, v in signature.items() if k not in ("format_version", "dtype")}
    return {
        "signature": kept,
        "sources": sorted(path.name for path in (section / "embeddings").iterdir()),
        "targets": sorted(path.name for path in (store / "targets").iterdir()),
    }


@pytest.fixture
def copied(two_runs: Path, tmp_path: Path) -> Path:
    """A copy of a store of three cases."""
    return Path(shutil.copytree(two_runs / "store", tmp_path / "store"))


def test_no_flipped_bit_of_a_store_is_used(copied: Path) -> None:
    facts = facts_of(copied)
    expected = read_all(EmbeddingStore(copied), facts)
    assert len(expected) == 2 * 9
    assert None not in expected.values()
    draw = random.Random(0)
    files = sorted(path for path in copied.rglob("*") if path.is_file())
    for _ in range(80 * TIMES):
        path = draw.choice(files)
        whole = path.read_bytes()
        bit = draw.randrange(8 * len(whole))
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8])
                         + whole[bit // 8 + 1 :])  # fmt: skip
        found = one_line(lambda: read_all(EmbeddingStore(copied, read_only=True), facts)) or {}
        for key, value in found.items():
            assert value in (None, expected[key]), (path, bit)
        path.write_bytes(whole)


def test_a_damaged_store_is_filled_again(two_runs: Path, copied: Path) -> None:
    facts = facts_of(copied)
    expected = read_all(EmbeddingStore(copied), facts)
    network, draw = samonai.load_sam("micro"), random.Random(1)
    files = sorted(path for path in copied.rglob("*") if path.is_file())
    for _ in range(2 * TIMES):
        path = draw.choice(files)
        whole = bytearray(path.read_bytes())
        whole[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(whole)
        try:
            samonai.embed(network, two_runs / "images", two_runs / "labels", store=copied)
        except InputError as error:  # names the folder to delete
            assert "another folder" in str(error)  # noqa: PT017
            shutil.rmtree(copied)
            samonai.embed(network, two_runs / "images", two_runs / "labels", store=copied)
        assert read_all(EmbeddingStore(copied), facts) == expected, path


def test_a_finished_run_is_not_taken_for_one_on_other_data(tmp_path: Path) -> None:
    images, labels = write_scans(tmp_path)
    cases = get_domain("medical").find_cases(images, labels)
    write_data(tmp_path, cases)
    check_data(tmp_path, cases)
    first = cases[0]
    whole = first.image.read_bytes()
    first.image.write_bytes(whole)  # touched, and the same
    check_data(tmp_path, cases)
    for path in (first.image, first.label):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(InputError, match=r"other data \('case_a' was changed\)"):
            check_data(tmp_path, cases)
        path.write_bytes(whole)
    with pytest.raises(InputError, match="'case_a' is gone"):
        check_data(tmp_path, cases[1:])
    never_used(tmp_path / DATA_FILE, lambda: check_data(tmp_path, cases) or "as before")
