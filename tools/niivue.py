"""Fetch NiiVue, which shows volumes in the page of `samonai serve`, at its pinned version.

python tools/niivue.py

The package comes from the npm registry and is checked against both hashes; one file of it is
kept, unchanged but for the address of a source map that is not shipped. Its licence and those of
the packages that are bundled in it lie beside it in `LICENSES.txt`: a new version may bundle others
(`dist/metafile-esm.json` in the package lists them).
"""

import hashlib
import io
import sys
import tarfile
import urllib.request
from pathlib import Path

VERSION = "0.69.0"
ADDRESS = f"https://registry.npmjs.org/@niivue/niivue/-/niivue-{VERSION}.tgz"
PACKAGE_SHA256 = "6e9a6a471b428eb3b258a0086beca9187d95e43a781a39e8a519c6da246af485"
MEMBER = "package/dist/index.js"
FILE = Path(__file__).parents[1] / "samonai" / "serve" / "page" / "vendor" / "niivue.js"
FILE_SHA256 = "9e51d1de55809a7d3aefcf3f04c517df2486c0b15333d5da6c31d698313f88b3"
"""Of the file as it is kept."""
_SOURCE_MAP = b"//# sourceMappingURL=index.js.map"


def kept(package: bytes) -> bytes:
    """Return the file that is kept, from the bytes of the package.

    Raises:
        SystemExit: The package is not the pinned one.
    """
    if hashlib.sha256(package).hexdigest() != PACKAGE_SHA256:
        sys.exit(f"{ADDRESS} is not the pinned package: its sha256 differs")
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        member = archive.extractfile(MEMBER)
        assert member is not None
        return member.read().replace(_SOURCE_MAP, b"").rstrip() + b"\n"


def main() -> None:
    """Fetch the package and write the file."""
    with urllib.request.urlopen(ADDRESS, timeout=60) as answer:
        data = kept(answer.read())
    if hashlib.sha256(data).hexdigest() != FILE_SHA256:
        sys.exit("the file in the package is not the pinned one: its sha256 differs")
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_bytes(data)
    print(f"{FILE}: NiiVue {VERSION}, {len(data)} bytes")


if __name__ == "__main__":
    main()
