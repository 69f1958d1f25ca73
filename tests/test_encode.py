"""Encoding cases: each frame once, whatever happens in between."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from embedding_fakes import FakeNetwork, StackDomain, encode_all, make_cases

from samonai.core.errors import InputError
from samonai.domains.base import Case
from samonai.embeddings import (
    Embedder,
    EmbeddingStore,
    EncodeReport,
    build_targets,
    encode_cases,
    load_targets,
)
from samonai.embeddings.case_index import file_stamp
from samonai.embeddings.prefetch import prefetch
from samonai.sam.network import SamNetwork

forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

FRAMES = 5
LABELLED = FRAMES - 1  # the first frame of each case has no object


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return make_cases(tmp_path / "data", cases=3, frames=FRAMES)


@pytest.fixture
def url(tmp_path: Path) -> Path:
    return tmp_path / "store"


def encode(
    cases: list[Case],
    url: Path | str,
    network: FakeNetwork | None = None,
    domain: StackDomain | None = None,
    **options: Any,
) -> EncodeReport:
    return encode_cases(
        cast(SamNetwork, network or FakeNetwork()),
        domain or StackDomain(),
        cases,
        EmbeddingStore(url),
        **{"progress": False, **options},
    )


def contents(url: Path | str, report: EncodeReport) -> dict[tuple[str, int], np.ndarray]:
    section = EmbeddingStore(url, read_only=True).section(report.signature)
    found = {}
    for case in report.cases:
        source = section.find(case.source_hash)
        assert source is not None
        for index in range(case.frame_count):
            values = source.get(index)
            if values is not None:
                found[case.source_hash, index] = values
    return found


def assert_equal_contents(
    left: dict[tuple[str, int], np.ndarray], right: dict[tuple[str, int], np.ndarray]
) -> None:
    assert left.keys() == right.keys()
    for key, values in left.items():
        np.testing.assert_array_equal(values, right[key])


def test_labelled_frames_are_encoded_and_others_skipped_and_counted(
    cases: list[Case], url: Path
) -> None:
    network, domain = FakeNetwork(), StackDomain()
    report = encode(cases, url, network, domain)
    assert (report.encoded, report.reused, report.skipped_empty) == (3 * LABELLED, 0, 3)
    assert network.encoded == 3 * LABELLED
    assert domain.read_cases == ["case0", "case1", "case2"]
    first = report.cases[0]
    assert (first.case_id, first.frame_count, first.spacing) == ("case0", 5, (2.0, 1.0, 0.5))
    assert first.indices == (1, 2, 3, 4)
    assert first.original_sizes == ((12, 20),) * 4

    image, label = np.load(cases[0].image), np.load(cases[0].label)
    stored = contents(url, report)
    mean = np.float16(image[2].mean(dtype=np.float32))
    np.testing.assert_allclose(stored[first.source_hash, 2][:3], mean, rtol=1e-3)
    assert first.targets_key is not None
    targets = load_targets(EmbeddingStore(url, read_only=True), first.targets_key)
    assert targets is not None
    frame = domain.frame(domain.read(cases[0]), 2)
    np.testing.assert_array_equal(targets.read(2).boxes, build_targets(frame).boxes)
    assert targets.read(2).areas.tolist() == [(label[2] > 0).sum()]


def test_later_runs_encode_nothing_and_open_nothing(cases: list[Case], url: Path) -> None:
    first = encode(cases, url)
    for _ in range(3):
        network, domain, store = FakeNetwork(), StackDomain(), EmbeddingStore(url)
        report = encode_cases(cast(SamNetwork, network), domain, cases, store, progress=False)
        assert (store.encoded, store.reused) == (0, 3 * LABELLED)
        assert (report.encoded, report.reused, report.skipped_empty) == (0, 3 * LABELLED, 3)
        assert report.cases == first.cases
        assert domain.read_cases == []
        assert network.encoded == 0


def test_a_renamed_file_is_reused_and_a_changed_one_encoded(cases: list[Case], url: Path) -> None:
    encode(cases, url)
    renamed = [
        Case("new", path.rename(path.with_name("new.npy")), label)
        for path, label in [(cases[0].image, cases[0].label)]
    ]
    domain = StackDomain()
    report = encode([*renamed, *cases[1:]], url, domain=domain)
    assert (report.encoded, domain.read_cases) == (0, ["new"])

    changed = np.load(cases[1].image)
    changed[2] += 1
    np.save(cases[1].image, changed)
    domain = StackDomain()
    report = encode(cases[1:], url, domain=domain)
    assert (report.encoded, report.reused) == (LABELLED, LABELLED)
    assert domain.read_cases == ["case1"]


def test_a_touched_file_is_read_again_but_not_encoded(cases: list[Case], url: Path) -> None:
    encode(cases, url)
    os.utime(cases[2].image, (1, 1))
    domain = StackDomain()
    assert encode(cases, url, domain=domain).encoded == 0
    assert domain.read_cases == ["case2"]


def test_a_new_label_changes_targets_and_keeps_embeddings(cases: list[Case], url: Path) -> None:
    before = encode(cases, url).cases[0]
    assert cases[0].label is not None
    label = np.load(cases[0].label)
    label[0, 0:5, 0:5] = 3
    np.save(cases[0].label, label)
    report = encode(cases, url)
    assert (report.encoded, report.reused) == (1, 3 * LABELLED)
    after = report.cases[0]
    assert after.indices == (0, 1, 2, 3, 4)
    assert after.targets_key != before.targets_key
    assert after.source_hash == before.source_hash


def test_min_area_changes_targets_and_keeps_embeddings(cases: list[Case], url: Path) -> None:
    encode(cases, url)
    report = encode(cases, url, min_area=49)
    assert (report.encoded, report.reused, report.dropped_objects) == (0, 0, 3 * LABELLED)
    assert report.cases[0].indices == ()
    assert encode(cases, url, min_area=48).reused == 3 * LABELLED


@pytest.mark.parametrize(
    ("network", "domain", "precision"),
    [
        (FakeNetwork(encoder_sha256="cd" * 32), StackDomain(), "fp32"),
        (FakeNetwork(), StackDomain(gain=2), "fp32"),
        (FakeNetwork(), StackDomain(), "bf16"),
    ],
    ids=["encoder", "domain settings", "precision"],
)
def test_another_signature_encodes_again(
    network: FakeNetwork, domain: StackDomain, precision: str, cases: list[Case], url: Path
) -> None:
    encode(cases, url, precision="fp32")
    report = encode(cases, url, network, domain, precision=precision)
    assert (report.encoded, report.reused) == (3 * LABELLED, 0)
    assert encode(cases, url, precision="fp32").encoded == 0


def test_only_a_damaged_frame_is_encoded_again(cases: list[Case], url: Path) -> None:
    report = encode(cases, url)
    before = contents(url, report)
    path = sorted(url.glob("*/embeddings/*"))[1]
    data = path.read_bytes()
    path.write_bytes(data[:-600] + bytes([data[-600] ^ 1]) + data[-599:])
    again = encode(cases, url)
    assert (again.encoded, again.reused) == (1, 3 * LABELLED - 1)
    assert_equal_contents(contents(url, again), before)


@pytest.mark.parametrize("damage", ["map", "table", "short", "empty"])
def test_damaged_targets_are_built_again(damage: str, cases: list[Case], url: Path) -> None:
    key = encode(cases, url).cases[1].targets_key
    assert key is not None
    path = url / "targets" / key
    data = bytearray(path.read_bytes())
    data[{"map": 300, "table": -20}.get(damage, 0)] ^= 1
    path.write_bytes(data[: {"short": -3, "empty": 0}.get(damage, len(data))])
    domain = StackDomain()
    report = encode(cases, url, domain=domain)
    assert (report.encoded, domain.read_cases) == (0, ["case1"])
    targets = load_targets(EmbeddingStore(url), key)
    assert targets is not None
    assert targets.whole()


def test_a_case_takes_three_files(cases: list[Case], url: Path) -> None:
    encode(cases, url, frames="all")
    files = sorted(path.relative_to(url).parts for path in url.rglob("*") if path.is_file())
    shared = [parts for parts in files if parts[-1] == "store.json"]
    assert len(shared) == 2  # of the store and of its only section
    folders = Counter(parts[-2] for parts in files if parts not in shared)
    assert folders == {"embeddings": 3, "cases": 3, "targets": 3}


def test_all_frames_of_unlabelled_cases(cases: list[Case], url: Path) -> None:
    bare = [Case(case.case_id, case.image) for case in cases]
    report = encode(bare, url)
    assert (report.encoded, report.skipped_empty) == (0, 3 * FRAMES)
    report = encode(bare, url, frames="all")
    assert (report.encoded, report.skipped_empty) == (3 * FRAMES, 0)
    assert report.cases[0].targets_key is None
    assert report.cases[0].indices == ()
    assert encode(cases, url, frames="all").encoded == 0


def test_batches_give_the_same(cases: list[Case], tmp_path: Path) -> None:
    single = encode(cases, tmp_path / "1", batch_size=1)
    batched = encode(cases, tmp_path / "5", batch_size=5)
    assert batched.encoded == single.encoded
    assert_equal_contents(contents(tmp_path / "1", single), contents(tmp_path / "5", batched))


def test_a_broken_case_stops_or_is_left_out(cases: list[Case], url: Path) -> None:
    cases[1].image.write_bytes(b"")
    with pytest.raises(InputError, match="case1 is empty"):
        encode(cases, url)
    report = encode(cases, url, on_error="skip")
    assert [case.case_id for case in report.cases] == ["case0", "case2"]
    assert [(case.case_id, case.message) for case in report.failed] == [("case1", "case1 is empty")]
    assert "1 cases failed" in report.summary()


@pytest.mark.parametrize(
    "option", [{"frames": "some"}, {"batch_size": 0}, {"on_error": "ignore"}], ids=str
)
def test_wrong_options_are_told(option: dict[str, Any], cases: list[Case], url: Path) -> None:
    with pytest.raises(InputError, match=next(iter(option))):
        encode(cases, url, **option)


def test_a_read_only_store_serves_what_is_there(cases: list[Case], url: Path) -> None:
    encode(cases[:2], url)
    network, store = cast(SamNetwork, FakeNetwork()), EmbeddingStore(url, read_only=True)
    report = encode_cases(network, StackDomain(), cases[:2], store, progress=False)
    assert report.reused == 2 * LABELLED
    with pytest.raises(InputError, match="read-only"):
        encode_cases(network, StackDomain(), cases, store, progress=False)


def test_no_path_stands_in_the_store(cases: list[Case], url: Path, tmp_path: Path) -> None:
    encode(cases, url)
    contents = [path.read_bytes() for path in url.rglob("*") if path.is_file()]
    assert len(contents) == 3 * len(cases) + 2
    assert not [data for data in contents if str(tmp_path).encode() in data or b".npy" in data]


def test_headers_with_detached_values_are_never_trusted(tmp_path: Path) -> None:
    header, plain = tmp_path / "case.mhd", tmp_path / "case.nii.gz"
    header.write_bytes(b"a")
    plain.write_bytes(b"a")
    assert file_stamp(Case("case", plain)) is not None
    assert file_stamp(Case("case", header)) is None
    assert file_stamp(Case("case", plain, header)) is None
    assert file_stamp(Case("case", tmp_path / "gone.nii.gz")) is None


def test_the_stamp_of_a_folder_sees_each_file(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"a")
    case = Case("case", tmp_path)
    stamps = [file_stamp(case)]
    (tmp_path / "series" / "2.dcm").write_bytes(b"b")
    stamps.append(file_stamp(case))
    os.utime(tmp_path / "series" / "1.dcm", (5, 5))
    stamps.append(file_stamp(case))
    assert len(set(stamps)) == 3


def test_an_interrupt_keeps_the_frames_before(cases: list[Case], url: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        encode(cases, url, FakeNetwork(fail_at=6))
    report = encode(cases, url)
    assert (report.encoded, report.reused) == (3 * LABELLED - 6, 6)
    assert "samonai-prefetch" not in {thread.name for thread in threading.enumerate()}


def test_a_summary_goes_to_standard_error(
    cases: list[Case], url: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode(cases, url)
    assert capsys.readouterr() == ("", "")
    encode(cases, url, progress=True)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        "3 cases: 0 frames encoded, 12 reused, 3 without objects skipped, 0 small objects dropped\n"
    )


def start(data: Path, url: Path, seconds: float) -> BaseProcess:
    # Forked, since importing torch once more takes longer than all these tests.
    process = multiprocessing.get_context("fork").Process(
        target=encode_all, args=(data, url, seconds)
    )
    process.start()
    return process


def stored_frames(store: Path) -> int:
    """Count whole records by the sizes of the files alone."""
    record, count = 4 * 8 * 8 * 2 + 8, 0
    for path in store.glob("*/embeddings/*"):
        _, end, records = path.read_bytes().partition(b"\n")
        count += len(records) // record if end else 0
    return count


@forks
def test_after_a_kill_only_missing_frames_are_encoded(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "data", cases=3, frames=20)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(tmp_path / "data", killed, 0.05)
    deadline = time.monotonic() + 120
    while stored_frames(killed) < 7:
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    there = stored_frames(killed)
    assert 7 <= there < 60

    report = encode(cases, killed, frames="all")
    assert (report.encoded, report.reused) == (60 - there, there)
    assert_equal_contents(
        contents(killed, report), contents(whole, encode(cases, whole, frames="all"))
    )


@forks
def test_processes_that_encode_the_same_cases_all_finish(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "data", cases=3, frames=10)
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    processes = [start(tmp_path / "data", shared, 0.01) for _ in range(3)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    report = encode(cases, shared, frames="all")
    assert (report.encoded, report.reused) == (0, 30)
    assert_equal_contents(
        contents(shared, report), contents(alone, encode(cases, alone, frames="all"))
    )
    assert not list(shared.rglob(".writing-*"))


def test_the_embedder_gives_the_same_from_a_cold_and_a_warm_store_and_none(
    cases: list[Case], url: Path
) -> None:
    domain = StackDomain()
    source = domain.read(cases[0])
    frames = [domain.frame(source, index) for index in (3, 0, 4)]
    network = FakeNetwork()

    def embed(store: EmbeddingStore | None) -> torch.Tensor:
        return Embedder(cast(SamNetwork, network), domain, store)(source, frames)

    bare = embed(None)
    assert bare.shape == (3, 4, 8, 8)
    assert bare.dtype == torch.float32
    store = EmbeddingStore(url)
    torch.testing.assert_close(embed(store), bare, rtol=0, atol=0)
    assert (network.encoded, store.encoded, store.reused) == (6, 3, 0)
    torch.testing.assert_close(embed(store), bare, rtol=0, atol=0)
    torch.testing.assert_close(embed(EmbeddingStore(url, read_only=True)), bare, rtol=0, atol=0)
    assert (network.encoded, store.reused) == (6, 3)
    shutil.rmtree(url)
    EmbeddingStore(url)
    torch.testing.assert_close(embed(EmbeddingStore(url, read_only=True)), bare, rtol=0, atol=0)
    assert network.encoded == 9


def test_cases_and_embedder_share_the_store(cases: list[Case], url: Path) -> None:
    encode(cases, url)
    network, domain, store = FakeNetwork(), StackDomain(), EmbeddingStore(url)
    source = domain.read(cases[1])
    embedder = Embedder(cast(SamNetwork, network), domain, store)
    embedder(source, [domain.frame(source, index) for index in range(FRAMES)])
    assert (network.encoded, store.reused) == (1, LABELLED)
    assert encode(cases, url, frames="all").encoded == 2


def test_a_real_network_encodes_what_it_would_itself(
    tiny_network: SamNetwork, tmp_path: Path, url: Path
) -> None:
    cases, domain = make_cases(tmp_path / "one", cases=1, frames=2), StackDomain()
    report = encode_cases(tiny_network, domain, cases, EmbeddingStore(url), progress=False)
    assert report.encoded == 1
    image = domain.frame(domain.read(cases[0]), 1).image
    expected = tiny_network.encode(tiny_network.preprocess(image)[None], "auto")[0]
    stored = contents(url, report)[report.cases[0].source_hash, 1]
    np.testing.assert_array_equal(stored, expected.to(torch.float16).numpy())
    assert report.signature["precision"] in ("fp32", "bf16")


def test_prefetch_runs_ahead_passes_errors_on_and_stops() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with closing(prefetch(numbers(), 3)) as items:
        assert next(items) == 0
        deadline = time.monotonic() + 10
        while len(made) < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
    assert 4 <= len(made) <= 5  # three wait, one is in hand

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    items = prefetch(broken(), 3)
    assert next(items) == 1
    with pytest.raises(OSError, match="gone"):
        next(items)
    assert list(prefetch(iter([1, 2, 3]), 1)) == [1, 2, 3]


def test_a_share_of_the_frames_without_objects_is_encoded_evenly_spaced(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    label = np.zeros((12, 12, 20), np.uint8)
    label[5:7, 3:9, 4:12] = 1
    np.save(tmp_path / "images" / "a.npy", np.full(label.shape, 9, np.uint8))
    np.save(tmp_path / "labels" / "a.npy", label)
    domain = StackDomain()
    cases = domain.find_cases(tmp_path / "images", tmp_path / "labels")
    store, network = EmbeddingStore(tmp_path / "store"), FakeNetwork()
    kinds = {"progress": False, "precision": "fp32"}
    report = encode_cases(network, domain, cases, store, empty_frames=0.4, **kinds)
    assert (report.encoded, report.skipped_empty) == (6, 6)
    stored = store.section(report.signature).find(report.cases[0].source_hash)
    assert [index for index in range(12) if stored.has(index)] == [1, 3, 5, 6, 8, 10]
    report = encode_cases(network, domain, cases, store, empty_frames=1.0, **kinds)
    assert (report.encoded, report.reused) == (6, 6)
    with pytest.raises(InputError, match="empty_frames"):
        encode_cases(network, domain, cases, store, empty_frames=1.5, **kinds)


def test_blank_frames_are_skipped_and_counted_where_all_are_wanted(cases, url):
    image = np.load(cases[0].image)
    image[0], image[3] = 40, 41
    image[3, 2, 2] += 2  # within the noise of a blank page
    image[4] = 7
    image[4, 5, 5] = 20  # a speck to see
    np.save(cases[0].image, image)
    network = FakeNetwork()
    report = encode(cases, url, network, frames="all")
    assert (report.encoded, report.skipped_blank, report.skipped_empty) == (3 * FRAMES - 2, 2, 0)
    assert "2 blank frames skipped" in report.summary()
    domain = StackDomain()
    again = encode(cases, url, network, domain, frames="all")
    assert (again.encoded, again.reused, again.skipped_blank) == (0, 3 * FRAMES - 2, 2)
    assert domain.read_cases == []  # what was blank is remembered


def test_looking_for_blank_frames_begins_where_a_run_on_labelled_ones_left_off(cases, url):
    np.save(cases[1].image, np.full_like(np.load(cases[1].image), 9))
    assert encode(cases, url).skipped_blank == 0
    report = encode(cases, url, frames="all")
    assert (report.encoded, report.skipped_blank) == (2, FRAMES)
