#!/bin/sh
# s3fs makes a bucket that does not exist where folders are to be made below it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet s3fs==2026.9.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import http.server
import threading
from importlib.metadata import version

import s3fs

seen = []
NO_BUCKET = b"<Error><Code>NoSuchBucket</Code><Message>no such bucket</Message></Error>"


class Empty(http.server.BaseHTTPRequestHandler):
    """An S3 server without buckets, which notes what is made."""

    def answer(self, code, body=b""):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def do_HEAD(self):
        self.answer(404)

    def do_GET(self):
        self.answer(404, NO_BUCKET)

    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        seen.append(f"PUT {self.path}")
        self.answer(200)

    def log_message(self, *_):
        return


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    system = s3fs.S3FileSystem(
        key="key", secret="secret", endpoint_url=f"http://127.0.0.1:{server.server_address[1]}"
    )
    system.makedirs("mistyped/store/folder", exist_ok=True)
    server.shutdown()
print(f"s3fs {version('s3fs')}: makedirs('mistyped/store/folder') sent {seen}")
assert seen == ["PUT /mistyped"], "s3fs's behaviour has changed"
PYTHON
