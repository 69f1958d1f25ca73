"""The embedding store: whole or absent, signed, shared by processes."""

import json
import logging
import multiprocessing
import os
import pickle
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from samonai.core.errors import InputError
from samonai.core.sealed import sealed
from samonai.embeddings import EmbeddingStore, MissingEmbeddingError, SourceEmbeddings
from samonai.embeddings.store_files import LocalFiles

SIGNATURE = {"encoder_sha256": "ab" * 32, "precision": "fp32", "domain_settings": {"axis": 2}}
SHAPE = (3, 4, 5)
HASH = "c0" * 32
RECORD = 3 * 4 * 5 * 2 + 8  # float16 values, number, checksum


def embedding(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float16)


def open_source(url: str | Path, frames: int = 4) -> SourceEmbeddings:
    return EmbeddingStore(url).section(SIGNATURE).source(HASH, frames, SHAPE, "case-1")


def file_of(folder: Path) -> Path:
    (found,) = folder.glob(f"*/embeddings/{HASH}")
    return found


def header_of(path: Path) -> int:
    """Return the size of a file's header."""
    return path.read_bytes().index(b"\n") + 1


@pytest.fixture(params=["folder", "file-url", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        pytest.importorskip("fsspec")
        return f"memory://{tmp_path.name}-{os.getpid()}"
    return str(tmp_path / "a store") if request.param == "folder" else (tmp_path / "s").as_uri()


def test_frames_come_back_and_others_are_absent(url: str) -> None:
    source = open_source(url)
    source.write(2, embedding())

    again = EmbeddingStore(url).section(SIGNATURE).find(HASH)
    assert again is not None
    np.testing.assert_array_equal(again.read(2), embedding())
    assert again.read(2).dtype == np.float16
    assert again.read(2).flags.writeable
    assert [again.has(index) for index in range(4)] == [False, False, True, False]
    assert again.missing([3, 2, 0]) == [3, 0]
    assert again.get(0) is None
    assert (again.frames, again.source_id) == (4, "case-1")
    with pytest.raises(MissingEmbeddingError, match="frame 1 of case-1"):
        again.read(1)
    for index in (-1, 4):
        with pytest.raises(IndexError):
            again.read(index)


def crc32c(data: bytes) -> int:
    """Compute the CRC-32C (Castagnoli) bit by bit, as RFC 3720 defines it."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def test_the_file_is_as_described(tmp_path: Path) -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of its definition
    source = open_source(tmp_path)
    source.write(3, embedding(3))
    source.write(1, embedding(1))
    path = file_of(tmp_path)
    header, _, records = path.read_bytes().partition(b"\n")
    said = json.loads(header)
    assert (said["dtype"], said["shape"], said["frames"]) == ("float16", list(SHAPE), 4)
    assert said["attributes"] == {"source_id": "case-1"}
    assert len(records) == 2 * RECORD
    for start, index in ((0, 3), (RECORD, 1)):
        record = records[start : start + RECORD]
        values = np.frombuffer(record[:-8], "<f2").reshape(SHAPE)
        np.testing.assert_array_equal(values, embedding(index))
        assert int.from_bytes(record[-8:-4], "little") == index
        assert int.from_bytes(record[-4:], "little") == crc32c(record[:-4])


def test_a_copy_of_a_store_works_where_files_cannot_be_appended_and_back(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    url = f"memory://copied-{os.getpid()}"
    files = fsspec.filesystem("memory")
    local, back = tmp_path / "local", tmp_path / "back"
    open_source(local).write(1, embedding(1))
    files.put(f"{local}/", f"{url}/", recursive=True)
    source = open_source(url)
    assert source.missing(range(4)) == [0, 2, 3]
    np.testing.assert_array_equal(source.read(1), embedding(1))
    source.write(2, embedding(2))
    assert [path for path in files.find(url) if path.endswith(f"{HASH}.2")]
    files.get(f"{url}/", f"{back}/", recursive=True)
    returned = open_source(back)
    assert returned.missing(range(4)) == [0, 3]
    np.testing.assert_array_equal(returned.read(2), embedding(2))
    returned.write(0, embedding())
    assert open_source(back).missing(range(4)) == [3]


def test_writing_counts(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    source = store.section(SIGNATURE).source(HASH, 2, SHAPE, "case-1")
    source.write(0, embedding())
    source.write(1, embedding(1))
    assert (store.encoded, store.reused) == (2, 0)


@pytest.mark.parametrize("damage", ["bit", "truncated", "short", "empty", "number", "checksum"])
def test_damage_counts_as_absent_and_is_repaired_by_writing(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_source(tmp_path)
    source.write(2, embedding(2))
    source.write(1, embedding())
    path = file_of(tmp_path)
    data = bytearray(path.read_bytes())
    changes = {"bit": -RECORD + 17, "number": -8, "checksum": -1}
    ends = {"truncated": -1, "short": 3 - RECORD, "empty": -RECORD}
    if damage in changes:
        data[changes[damage]] ^= 4
    path.write_bytes(data[: ends.get(damage, len(data))])

    again = open_source(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert again.missing(range(4)) == [0, 1, 3]
        assert source.missing(range(4)) == [0, 1, 3]
    assert ("Frame 1" in caplog.text) == (damage in ("bit", "checksum")) or damage == "number"
    assert str(tmp_path) not in caplog.text
    with pytest.raises(MissingEmbeddingError):
        source.read(1)
    again.write(1, embedding())
    for opened in (source, again, open_source(tmp_path)):
        np.testing.assert_array_equal(opened.read(1), embedding())
        np.testing.assert_array_equal(opened.read(2), embedding(2))
    records = path.stat().st_size - header_of(path)
    # A number that leads elsewhere is the only damage whose place is not found again.
    assert records == (3 if damage == "number" else 2) * RECORD


def test_damage_behind_a_url_counts_as_absent() -> None:
    fsspec = pytest.importorskip("fsspec")
    url = f"memory://damaged-{os.getpid()}"
    source = open_source(url)
    source.write(1, embedding())
    files = fsspec.filesystem("memory")
    (path,) = (name for name in files.find(url) if name.endswith(f"{HASH}.1"))
    files.pipe_file(path, files.cat_file(path)[:-9])
    assert not source.has(1)


def test_the_next_record_is_written_over_a_half_written_one(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    source.write(0, embedding())
    path = file_of(tmp_path)
    whole = path.read_bytes()
    for cut in (1, RECORD // 2, RECORD - 1):  # as a kill leaves it
        path.write_bytes(whole + bytes(range(cut)))
        assert open_source(tmp_path).missing(range(4)) == [1, 2, 3]
        open_source(tmp_path).write(3, embedding(3))
        assert source.missing(range(4)) == [1, 2]
        assert path.stat().st_size == len(whole) + RECORD


def test_a_damaged_header_is_written_anew(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    source.write(0, embedding())
    path = file_of(tmp_path)
    whole = path.read_bytes()
    for content in (b"", b"{", b"[]\n", whole[:40], whole.replace(b"case-1", b"case-2")):
        path.write_bytes(content)
        assert EmbeddingStore(tmp_path).section(SIGNATURE).find(HASH) is None
        again = open_source(tmp_path)
        assert not again.has(0)
        again.write(0, embedding())
        assert path.read_bytes() == whole
        assert source.has(0)


def test_another_source_id_of_the_same_content_finds_and_adds_frames(tmp_path: Path) -> None:
    open_source(tmp_path).write(0, embedding())
    section = EmbeddingStore(tmp_path).section(SIGNATURE)
    section.source(HASH, 4, SHAPE, "the same scan under a longer name").write(1, embedding(1))
    assert open_source(tmp_path).missing(range(4)) == [2, 3]


def test_a_whole_frame_is_not_written_again(tmp_path: Path) -> None:
    first, second = open_source(tmp_path), open_source(tmp_path)
    first.write(0, embedding())
    before = file_of(tmp_path).read_bytes()
    second.write(0, embedding(1))
    assert file_of(tmp_path).read_bytes() == before


def _write_every_frame(folder: Path, order: int) -> None:
    source = open_source(folder, frames=40)
    for index in list(range(40))[::order]:
        source.write(index, embedding(index))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_processes_that_write_one_file_lose_no_frame(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    orders = (1, -1, 1, -1)
    processes = [context.Process(target=_write_every_frame, args=(tmp_path, n)) for n in orders]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    source = open_source(tmp_path, frames=40)
    for index in range(40):
        np.testing.assert_array_equal(source.read(index), embedding(index))
    path = file_of(tmp_path)
    assert path.stat().st_size == header_of(path) + 40 * RECORD  # and none is there twice


def test_a_link_in_the_place_of_a_file_is_not_written_through(tmp_path: Path) -> None:
    open_source(tmp_path / "store").write(0, embedding())
    path, theirs = file_of(tmp_path / "store"), tmp_path / "theirs"
    theirs.write_bytes(b"precious")
    path.unlink()
    path.symlink_to(theirs)
    with pytest.raises(OSError, match="symbolic link"):
        open_source(tmp_path / "store").write(0, embedding())
    assert theirs.read_bytes() == b"precious"


def test_a_full_disk_leaves_no_part_of_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(tmp_path)
    source.write(0, embedding())
    path = file_of(tmp_path)
    before = path.read_bytes()

    class Full:
        """A file on a disk that has room for 20 bytes more."""

        def __init__(self, file):
            self._file = file

        def write(self, content):
            self._file.write(bytes(content[:20]))
            raise OSError(28, "No space left on device")

        def __getattr__(self, name):
            return getattr(self._file, name)

    appending = LocalFiles.appending

    @contextmanager
    def full(files, name):
        with appending(files, name) as file:
            yield Full(file)

    monkeypatch.setattr(LocalFiles, "appending", full)
    with pytest.raises(OSError, match="No space"):
        source.write(1, embedding(1))
    assert path.read_bytes() == before


def test_another_signature_finds_nothing(tmp_path: Path) -> None:
    open_source(tmp_path).write(0, embedding())
    store = EmbeddingStore(tmp_path)
    assert store.section(dict(reversed(SIGNATURE.items()))).find(HASH) is not None
    for key, value in {
        "encoder_sha256": "cd" * 32,
        "precision": "bf16",
        "domain_settings": {"axis": 1},
        "views": 3,
    }.items():
        assert store.section({**SIGNATURE, key: value}).find(HASH) is None


def test_the_signature_is_compared_when_opened(tmp_path: Path) -> None:
    name = EmbeddingStore(tmp_path).section(SIGNATURE).name
    path = tmp_path / name / "store.json"
    stored = json.loads(path.read_text())["signature"]
    path.write_text(json.dumps(sealed({"signature": {**stored, "precision": "bf16"}})))
    with pytest.raises(InputError, match="another signature"):
        EmbeddingStore(tmp_path).section(SIGNATURE)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
def test_a_damaged_store_file_is_one_clear_line(content: str, tmp_path: Path) -> None:
    source = open_source(tmp_path)
    source.write(0, embedding())
    (section,) = tmp_path.glob("*/store.json")
    whole = section.read_bytes()
    section.write_text(content)  # written anew: a section's name is a digest of the same
    assert open_source(tmp_path).has(0)
    assert section.read_bytes() == whole
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(InputError, match=r"its store\.json is damaged; use another folder"):
        open_source(tmp_path)


def test_another_store_format_is_refused(tmp_path: Path) -> None:
    content = sealed({"samonai_store": 99, "dtype": "float16"})
    (tmp_path / "store.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="format 99, this samonai reads 2; delete it, or use"):
        EmbeddingStore(tmp_path)


def test_a_store_of_the_first_format_is_refused(tmp_path: Path) -> None:
    attributes = {"samonai_store": 1, "dtype": "float16"}
    group = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
    (tmp_path / "zarr.json").write_text(json.dumps(group))
    for read_only in (True, False):
        with pytest.raises(InputError, match="format 1, this samonai reads 2; delete it, or use"):
            EmbeddingStore(tmp_path, read_only=read_only)
    assert [path.name for path in tmp_path.iterdir()] == ["zarr.json"]


def test_what_a_killed_process_left_is_removed_when_old(tmp_path: Path) -> None:
    EmbeddingStore(tmp_path)
    (tmp_path / "targets").mkdir()
    old, young = (tmp_path / "targets" / f".writing-{name}" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    EmbeddingStore(tmp_path).section(SIGNATURE)
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_values_that_float16_cannot_hold_are_refused(value: float, tmp_path: Path) -> None:
    wrong = embedding().astype(np.float32)
    wrong[0, 0, 0] = value
    source = open_source(tmp_path)
    with pytest.raises(ValueError, match="not finite"):
        source.write(0, wrong)
    assert not source.has(0)


def test_zeros_are_values_too(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    source.write(0, np.zeros(SHAPE, np.float16))
    assert source.has(0)


def test_wrong_shapes_are_refused(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    with pytest.raises(ValueError, match=r"\(3, 4, 5\)"):
        source.write(0, embedding()[:2])
    source.write(0, embedding())
    with pytest.raises(InputError, match=r"has 4 frames float16 \(3, 4, 5\), expected 5 frames"):
        open_source(tmp_path, frames=5)


def test_read_only_reads_and_never_writes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no embedding store"):
        EmbeddingStore(tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()

    open_source(tmp_path).write(0, embedding())
    before = sorted(tmp_path.rglob("*"))
    store = EmbeddingStore(tmp_path, read_only=True)
    found = store.section(SIGNATURE).find(HASH)
    assert found is not None
    assert found.has(0)
    with pytest.raises(InputError, match="read-only"):
        found.write(1, embedding())
    other = store.section({**SIGNATURE, "precision": "bf16"})
    assert other.find(HASH) is None
    with pytest.raises(InputError, match="read-only"):
        other.source(HASH, 4, SHAPE, "case-1")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unknown_protocol_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="nosuch://bucket"):
        EmbeddingStore("nosuch://bucket/store")


def test_worker_processes_get_a_copy(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    source.write(0, embedding())
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(0), embedding())
