"""The embedding store: whole or absent, signed, shared by processes."""

import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr

from samonai.core.errors import InputError
from samonai.embeddings import EmbeddingStore, MissingEmbeddingError, SourceEmbeddings

SIGNATURE = {"encoder_sha256": "ab" * 32, "precision": "fp32", "domain_settings": {"axis": 2}}
SHAPE = (3, 4, 5)
HASH = "c0" * 32


def embedding(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float16)


def open_source(url: str | Path, frames: int = 4) -> SourceEmbeddings:
    return EmbeddingStore(url).section(SIGNATURE).source(HASH, frames, SHAPE, "case-1")


def chunk_file(folder: Path, index: int) -> Path:
    (found,) = folder.glob(f"*/embeddings/{HASH}/c.{index}.0.0.0")
    return found


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


def test_any_zarr_reader_understands_the_file(tmp_path: Path) -> None:
    open_source(tmp_path).write(1, embedding())
    (path,) = tmp_path.glob("*/embeddings/*/")
    array = zarr.open_array(path, mode="r")
    np.testing.assert_array_equal(array[1], embedding())
    assert np.isnan(array[0]).all()
    assert dict(array.attrs) == {"source_id": "case-1"}


def test_writing_counts(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    source = store.section(SIGNATURE).source(HASH, 2, SHAPE, "case-1")
    source.write(0, embedding())
    source.write(1, embedding(1))
    assert (store.encoded, store.reused) == (2, 0)


@pytest.mark.parametrize("damage", ["bit", "truncated", "short", "empty", "longer", "checksum"])
def test_damage_counts_as_absent_and_is_repaired_by_writing(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_source(tmp_path)
    source.write(1, embedding())
    source.write(2, embedding(2))
    path = chunk_file(tmp_path, 1)
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[17] ^= 4
    elif damage == "checksum":
        data[-1] ^= 1
    else:
        new = {"truncated": data[:-1], "short": data[:3], "empty": b"", "longer": data + b"\0"}
        data = bytearray(new[damage])
    path.write_bytes(data)

    with caplog.at_level(logging.WARNING):
        assert source.missing(range(4)) == [0, 1, 3]
    assert "Frame 1" in caplog.text
    assert str(tmp_path) not in caplog.text
    with pytest.raises(MissingEmbeddingError):
        source.read(1)
    source.write(1, embedding())
    np.testing.assert_array_equal(source.read(1), embedding())


def test_damage_behind_a_url_counts_as_absent() -> None:
    fsspec = pytest.importorskip("fsspec")
    url = f"memory://damaged-{os.getpid()}"
    source = open_source(url)
    source.write(1, embedding())
    files = fsspec.filesystem("memory")
    (path,) = (name for name in files.find(url) if name.endswith("c.1.0.0.0"))
    files.pipe_file(path, files.cat_file(path)[:-9])
    assert not source.has(1)


def test_a_half_written_chunk_is_never_read_and_swept_when_old(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    source.write(0, embedding())
    folder = chunk_file(tmp_path, 0).parent
    old, young = folder / "c.1.0.0.old.partial", folder / "c.1.0.0.young.partial"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert open_source(tmp_path).missing(range(4)) == [1, 2, 3]
    assert not old.exists()
    assert young.exists()


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
    group = zarr.open_group(tmp_path / name, mode="a")
    stored = group.attrs["signature"]
    assert isinstance(stored, dict)
    group.attrs["signature"] = {**stored, "precision": "bf16"}
    with pytest.raises(InputError, match="another signature"):
        EmbeddingStore(tmp_path).section(SIGNATURE)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
@pytest.mark.parametrize("node", [f"embeddings/{HASH}", "embeddings", ""])
def test_damaged_metadata_is_one_clear_line(node: str, content: str, tmp_path: Path) -> None:
    open_source(tmp_path)
    (section,) = tmp_path.glob("*/")
    (section / node / "zarr.json").write_text(content)
    with pytest.raises(InputError, match=f"{node}.*damaged; delete the folder {section.name}"):
        open_source(tmp_path)


def test_another_store_format_is_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path, mode="w", attributes={"samonai_store": 99})
    with pytest.raises(InputError, match="format 99"):
        EmbeddingStore(tmp_path)


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
    with pytest.raises(InputError, match="expected"):
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
