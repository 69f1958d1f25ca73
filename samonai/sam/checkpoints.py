"""Registry of named checkpoints: architecture, URL, size, hash and normalisation; the cache."""

import os
from dataclasses import dataclass
from pathlib import Path

from samonai.core.errors import InputError
from samonai.core.files import sha256_file
from samonai.core.settings import suggest
from samonai.sam.normalisation import MEDSAM_NORMALISATION, SAM_NORMALISATION, Normalisation

_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
# MobileSAM publishes its weights in its repository without a hash; the one below is recorded by
# many independent users of that commit.
_MOBILE_SAM_URL = "https://github.com/ChaoningZhang/MobileSAM/raw/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/"


@dataclass(frozen=True)
class Checkpoint:
    """A published model with a name.

    Attributes:
        name: Name of the model.
        architecture: "vit_b", "vit_l", "vit_h", "vit_t" or "micro".
        normalisation: Normalisation of its encoder.
        file_name: Name of the file in the cache; empty for the embedded model.
        url: URL of the file; None for the embedded model.
        size: Bytes of the file; None if not published.
        sha256: 64 hexadecimal digits; None if not published: the user must give one.
    """

    name: str
    architecture: str
    normalisation: Normalisation
    file_name: str = ""
    url: str | None = None
    size: int | None = None
    sha256: str | None = None


MICRO_WEIGHTS = Path(__file__).parent / "weights" / "micro.safetensors"
"""The embedded weights: the full `Sam.state_dict()` layout, stored as fp16."""

# The ending of SAM's file names is the start of an MD5, not of the sha256 below.
CHECKPOINTS: dict[str, Checkpoint] = {
    checkpoint.name: checkpoint
    for checkpoint in (
        Checkpoint("micro", "micro", SAM_NORMALISATION),
        Checkpoint(
            "vit_b",
            "vit_b",
            SAM_NORMALISATION,
            "sam_vit_b_01ec64.pth",
            _SAM_URL + "sam_vit_b_01ec64.pth",
            375_042_383,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
        Checkpoint(
            "vit_l",
            "vit_l",
            SAM_NORMALISATION,
            "sam_vit_l_0b3195.pth",
            _SAM_URL + "sam_vit_l_0b3195.pth",
            1_249_524_607,
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        ),
        Checkpoint(
            "vit_h",
            "vit_h",
            SAM_NORMALISATION,
            "sam_vit_h_4b8939.pth",
            _SAM_URL + "sam_vit_h_4b8939.pth",
            2_564_550_879,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        ),
        Checkpoint(
            "vit_t",
            "vit_t",
            SAM_NORMALISATION,
            "mobile_sam.pt",
            _MOBILE_SAM_URL + "mobile_sam.pt",
            40_728_226,
            "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        ),
        Checkpoint(
            "medsam_vit_b",
            "vit_b",
            MEDSAM_NORMALISATION,
            "medsam_vit_b.pth",
            "https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        ),
    )
}
"""Every checkpoint by name."""


def find_checkpoint(name: str) -> Checkpoint:
    """Return the checkpoint of that name.

    Raises:
        InputError: The name is unknown.
    """
    name = str(name)  # of any type, for the message
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    raise InputError(
        f"unknown model {name!r}{suggest(name, CHECKPOINTS)}; known are {', '.join(CHECKPOINTS)}; "
        f"a file of your own is given as the checkpoint of the one that it was trained from"
    )


def cache_dir() -> Path:
    """Return the folder of downloaded checkpoints, which may not exist.

    It is `SAMONAI_CACHE`, else `XDG_CACHE_HOME`/samonai, else ~/.cache/samonai.
    """
    if chosen := os.environ.get("SAMONAI_CACHE"):
        return Path(chosen).expanduser() / "checkpoints"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "samonai" / "checkpoints"


def cached_path(checkpoint: Checkpoint) -> Path:
    """Return the path of a downloaded checkpoint, which may not exist yet."""
    return cache_dir() / checkpoint.file_name


def expected_sha256(checkpoint: Checkpoint, given: str | None) -> str:
    """Return the expected hash of the checkpoint's file.

    Args:
        checkpoint: The checkpoint.
        given: The user's own hash. It must equal the published one, if there is one.

    Raises:
        InputError: No hash is known, or the given one is not a sha256 or is not the published one.
    """
    if given is not None:
        given = check_sha256(given)
        if checkpoint.sha256 not in (None, given):
            raise InputError(
                f"the sha256 given for {checkpoint.name} ({given[:16]}…) is not the published one "
                f"({checkpoint.sha256}); leave it out, or give your file as the checkpoint"
            )
        return given
    remembered = hash_note(cached_path(checkpoint))
    if checkpoint.sha256 is None and remembered.is_file():
        return check_sha256(remembered.read_text().strip())
    if checkpoint.sha256 is None:
        raise InputError(
            f"no trustworthy sha256 of {checkpoint.name} is published: give the one you trust with "
            f"--sha256 (in Python sha256=...), or fetch {checkpoint.url} yourself and give the "
            f"file as the checkpoint"
        )
    return checkpoint.sha256


def hash_note(path: Path) -> Path:
    """Return the file beside `path` that holds a hash given by a user."""
    return path.with_name(path.name + ".sha256")


def check_sha256(text: str) -> str:
    """Return a sha256 in lower case.

    Raises:
        InputError: The hash is not 64 hexadecimal digits.
    """
    lowered = str(text).strip().lower()
    if len(lowered) != 64 or not set(lowered) <= set("0123456789abcdef"):
        raise InputError(f"a sha256 is 64 hexadecimal digits, got {str(text)[:80]!r}")
    return lowered


def verify_file(path: Path, sha256: str, size: int | None = None) -> None:
    """Check a file's size and hash, before it is parsed.

    Raises:
        InputError: The size or the hash of the file differs. The file is not deleted.
    """
    found_size = path.stat().st_size
    if size is not None and found_size != size:
        raise InputError(
            f"{path} has {found_size:,} bytes, expected {size:,}: it is incomplete or another "
            f"file; delete it and try again"
        )
    found = sha256_file(path)
    if found != sha256:
        raise InputError(
            f"{path} is not the file that was expected: its sha256 is {found}, expected {sha256}; "
            f"delete it and try again"
        )
