#!/bin/sh
# dicomweb-client leaves the port out of the Host header of requests that are not streamed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet dicomweb-client==0.61.2 pydicom==3.0.2 \
    requests==2.34.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import http.server
import threading
from importlib.metadata import version

from dicomweb_client.web import DICOMwebClient

seen = []


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        seen.append((self.path, self.headers["Host"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_):
        return


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    DICOMwebClient(address).search_for_studies(search_filters={"PatientName": "A*"})
    server.shutdown()
path, host = seen[0]
print(f"dicomweb-client {version('dicomweb-client')}: GET {path}, Host: {host}, server {address}")
assert host == "127.0.0.1", "dicomweb-client's behaviour has changed"
PYTHON
