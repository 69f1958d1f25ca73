"""Named checkpoints: the registry, the cache, and downloads from a server on this machine."""

import errno
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from samonai.core.errors import InputError
from samonai.sam import download
from samonai.sam.checkpoints import (
    CHECKPOINTS,
    Checkpoint,
    cache_dir,
    cached_path,
    find_checkpoint,
    hash_note,
)
from samonai.sam.download import fetch
from samonai.sam.normalisation import MEDSAM_NORMALISATION, SAM_NORMALISATION, Normalisation

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at every path, as well or as badly as a test asks."""

    ranges = True
    stop_after: int | None = None  # bytes after which a connection breaks
    breaks = 0  # how many connections still break
    status = 200
    content = CONTENT

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that hang up."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        size = len(server.content)
        if start >= size:
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.breaks and server.stop_after is not None:
            server.breaks -= 1
            body = body[: server.stop_after]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def checkpoint(server, tmp_path, monkeypatch) -> Checkpoint:
    monkeypatch.setenv("SAMONAI_CACHE", str(tmp_path / "a cache é"))
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)
    url = f"http://127.0.0.1:{server.server_port}/file.pth"
    return Checkpoint("toy", "micro", SAM_NORMALISATION, "file.pth", url, len(CONTENT), SHA256)


def part_of(checkpoint: Checkpoint) -> Path:
    path = cached_path(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + ".part")


def raise_(error: Exception) -> None:
    raise error


def fails(checkpoint: Checkpoint, message: str, **arguments) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fetch(checkpoint, progress=False, **arguments)
    assert "\n" not in str(caught.value)
    assert not cached_path(checkpoint).exists()


def test_fetches_once_and_then_reads_the_cache(server, checkpoint):
    for _ in range(2):
        path = fetch(checkpoint)
        assert path == cached_path(checkpoint)
        assert path.read_bytes() == CONTENT
    assert server.asked == [None]
    assert not part_of(checkpoint).exists()


def test_goes_on_where_it_stopped(server, checkpoint):
    part_of(checkpoint).write_bytes(CONTENT[:300_000])
    assert fetch(checkpoint, progress=False).read_bytes() == CONTENT
    assert server.asked == ["bytes=300000-"]


def test_starts_over_where_the_server_has_no_ranges(server, checkpoint):
    server.ranges = False
    part_of(checkpoint).write_bytes(b"x" * 1000)
    assert fetch(checkpoint, progress=False).read_bytes() == CONTENT


def test_resumes_by_itself_when_the_connection_breaks(server, checkpoint):
    server.stop_after, server.breaks = 200_000, 3
    assert fetch(checkpoint, progress=False).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=200000-", "bytes=400000-", "bytes=600000-"]


def test_an_interrupted_download_keeps_its_bytes(server, checkpoint):
    server.stop_after, server.breaks = 5, 1
    server.ranges = False

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download.time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(checkpoint, progress=False)
    assert part_of(checkpoint).read_bytes() == CONTENT[:5]
    server.ranges = True
    assert fetch(checkpoint, progress=False).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=5-"


def test_gives_up_when_the_server_keeps_breaking(server, checkpoint):
    server.stop_after, server.breaks = 0, 100
    fails(checkpoint, "the connection ended early .0 bytes are kept.; run again")
    server.breaks, server.status = 0, 503
    fails(checkpoint, "answers 503")


def test_a_missing_file_is_told_at_once(server, checkpoint):
    server.status = 404
    fails(checkpoint, r"file\.pth: the server answers 404")
    assert len(server.asked) == 1


def test_no_server(checkpoint):
    fails(replace(checkpoint, url="http://127.0.0.1:1/file.pth"), "Connection refused")


def test_a_wrong_hash_is_an_error_and_deletes_nothing(server, checkpoint):
    server.content = b"!" + CONTENT[1:]
    for _ in range(2):
        fails(checkpoint, rf"\.part is not the file that was expected.*{SHA256}; delete it")
    assert part_of(checkpoint).read_bytes() == server.content
    assert len(server.asked) == 1


def test_a_wrong_size_is_an_error_before_anything_is_fetched(server, checkpoint):
    server.content = CONTENT + b"x"
    fails(checkpoint, "offers 1,024,001 bytes, expected 1,024,000")
    assert not part_of(checkpoint).exists()
    part_of(checkpoint).write_bytes(server.content)
    fails(checkpoint, "has 1,024,001 bytes, expected 1,024,000")


def test_a_flipped_byte_in_the_cache_is_found(server, checkpoint):
    path = fetch(checkpoint, progress=False)
    path.write_bytes(CONTENT[:9] + b"?" + CONTENT[10:])
    with pytest.raises(InputError, match="not the file that was expected"):
        fetch(checkpoint, progress=False)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match="has 1,023,999 bytes"):
        fetch(checkpoint, progress=False)


def test_a_users_hash_is_needed_once_where_none_is_published(server, checkpoint):
    unknown = replace(checkpoint, sha256=None, size=None)
    fails(unknown, "no trustworthy sha256 of toy is published: give the one you trust")
    assert not server.asked
    assert fetch(unknown, SHA256.upper(), progress=False).read_bytes() == CONTENT
    assert hash_note(cached_path(unknown)).read_text().strip() == SHA256
    assert fetch(unknown, progress=False) == cached_path(unknown)
    with pytest.raises(InputError, match="not the file that was expected"):
        fetch(unknown, "0" * 64, progress=False)
    assert hash_note(cached_path(unknown)).read_text().strip() == SHA256


def test_a_whole_part_of_unknown_size_is_taken(server, checkpoint):
    part_of(checkpoint).write_bytes(CONTENT)
    unknown = replace(checkpoint, sha256=None, size=None)
    assert fetch(unknown, SHA256, progress=False).read_bytes() == CONTENT
    assert server.asked == ["bytes=1024000-"]


def test_a_users_hash_must_be_one_and_agree_with_the_published(server, checkpoint):
    fails(checkpoint, "not the published one", sha256="0" * 64)
    fails(checkpoint, "64 hexadecimal digits, got 'ec2df627'", sha256="ec2df627")
    assert not server.asked


def test_processes_that_ask_at_once_share_one_download(server, checkpoint):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(checkpoint, progress=False)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == CONTENT for path in found] == [True] * 4
    assert server.asked == [None]


def test_no_room_and_no_folder_are_one_line(checkpoint, tmp_path, monkeypatch):
    usage = download.shutil.disk_usage(tmp_path)._replace(free=10)
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda _: usage)
        fails(checkpoint, "1,024,000 bytes are missing, 10 are free")
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(download.os, "fsync", lambda _: raise_(full))
        fails(checkpoint, r"no room for .*\.part: No space left on device; free space or set")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SAMONAI_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot make the cache folder"):
        fetch(checkpoint, progress=False)


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("SAMONAI_CACHE", "/somewhere")
    assert cache_dir() == Path("/somewhere/checkpoints")
    monkeypatch.delenv("SAMONAI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/samonai/checkpoints")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "samonai" / "checkpoints"


def test_the_registry():
    assert list(CHECKPOINTS) == ["micro", "vit_b", "vit_l", "vit_h", "vit_t", "medsam_vit_b"]
    for name in ("vit_b", "vit_l", "vit_h"):
        entry = find_checkpoint(name)
        assert entry.url.startswith("https://")
        assert entry.url.endswith(entry.file_name)
        assert entry.size
        assert len(entry.sha256) == 64
        assert entry.normalisation == SAM_NORMALISATION
    assert find_checkpoint("medsam_vit_b").normalisation == MEDSAM_NORMALISATION
    with pytest.raises(InputError, match="unknown model 'vit-b'; did you mean 'vit_b'"):
        find_checkpoint("vit-b")


@pytest.mark.parametrize("normalisation", [SAM_NORMALISATION, MEDSAM_NORMALISATION])
def test_normalisation_survives_its_metadata(normalisation):
    assert Normalisation.from_metadata(normalisation.to_metadata()) == normalisation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_std": [1, 1]}, "three means and three deviations"),
        ({"pixel_std": [1, 0, 1]}, "positive"),
        ({"pixel_mean": ["a", 1, 1]}, "not numbers"),
        ({"scale": float("nan")}, "not finite"),
    ],
)
def test_wrong_normalisation_metadata_is_one_line(change, message):
    with pytest.raises(InputError, match=message):
        Normalisation.from_metadata({**SAM_NORMALISATION.to_metadata(), **change})
    with pytest.raises(InputError, match="lacks name, scale, pixel_mean, pixel_std"):
        Normalisation.from_metadata({})
