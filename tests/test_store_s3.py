"""Embedding stores on S3, against a local server that counts requests (moto, s3fs)."""

import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_scans import write_scans

import samonai
from samonai.core.errors import InputError
from samonai.embeddings import EmbeddingStore

pytest.importorskip("s3fs", reason="stores on S3 need samonai[s3]")
moto = pytest.importorskip("moto.server", reason="the local S3 server is moto[server]")

SIGNATURE = {"encoder_sha256": "ab" * 32, "precision": "fp32", "domain_settings": {"axis": 2}}
SECRET = "never-in-a-file"
FRAMES = 6

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Server:
    """moto's S3 with a count of its requests by method."""

    def __init__(self) -> None:
        from werkzeug.serving import make_server

        app = moto.DomainDispatcherApplication(moto.create_backend_app)
        self.requests: Counter[str] = Counter()
        self.sent = 0

        def counting(environment: dict[str, Any], start: Any) -> Any:
            listing = "list-type" in environment.get("QUERY_STRING", "")
            self.requests["LIST" if listing else environment["REQUEST_METHOD"]] += 1
            body = list(app(environment, start))
            self.sent += sum(map(len, body))
            return body

        self._server = make_server("127.0.0.1", 0, counting, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def counted(self) -> dict[str, int]:
        """Return the requests since the last call."""
        found, self.requests, self.sent = dict(self.requests), Counter(), 0
        return found

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    import s3fs

    found = Server()
    for name, value in (
        ("AWS_ENDPOINT_URL", found.url),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    # moto's buckets are of the process, not of the server.
    urllib.request.urlopen(urllib.request.Request(f"{found.url}/moto-api/reset", method="POST"))
    s3fs.S3FileSystem().mkdir("bucket")
    found.counted()
    yield found
    found.close()
    s3fs.S3FileSystem.clear_instance_cache()


def embedding(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((8, 32, 32)).astype(np.float16)


def test_a_frame_is_one_request_and_presence_is_a_listing(server: Server) -> None:
    store = EmbeddingStore("s3://bucket/store")
    source = store.section(SIGNATURE).source("c0" * 32, FRAMES, (8, 32, 32), "case-1")
    source.write(0, embedding(0))
    server.counted()
    for frame in range(1, FRAMES - 1):
        source.write(frame, embedding(frame))
    written = server.counted()
    assert written["PUT"] == FRAMES - 2  # one for each frame
    found = EmbeddingStore("s3://bucket/store").section(SIGNATURE).find("c0" * 32)
    assert found is not None
    server.counted()
    assert found.missing(range(FRAMES)) == [FRAMES - 1]
    assert server.sent < embedding(0).nbytes / 2  # no record was read
    asked = server.counted()
    assert asked["LIST"] == 1
    assert sum(asked.values()) <= 4
    np.testing.assert_array_equal(found.read(3), embedding(3))
    assert server.counted().get("GET") == 1


def test_a_bucket_that_does_not_exist_is_named_and_not_made(server: Server) -> None:
    import s3fs

    with pytest.raises(InputError, match="there is no bucket 'missing'"):
        EmbeddingStore("s3://missing/store")
    assert not s3fs.S3FileSystem().exists("missing")


@pytest.mark.long
def test_a_data_set_is_encoded_once_and_no_file_holds_credentials(
    server: Server, tmp_path: Path
) -> None:
    write_scans(tmp_path)
    run = samonai.finetune(
        "micro", tmp_path / "images", tmp_path / "labels", out=tmp_path / "run", epochs=1,
        store="s3://bucket/all", progress=False, val_fraction=0.3,
    )  # fmt: skip
    assert run.frames.encoded > 0
    again = samonai.embed(
        "micro", tmp_path / "images", tmp_path / "labels", store="s3://bucket/all"
    )
    assert (again.encoded, again.reused) == (0, run.frames.encoded)
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
