"""Doors to NVFlare's provisioning: startup kits, a server and a site that are started from them.

NVFlare makes the certificates, the kits and the connections; this module adds the class names that
jobs of samonai use, and each site's own file that names its data.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import as_path, output_folder, write_atomically
from samonai.federated.job import allow_classes, need_nvflare

SITE_FILE = "samonai_site.json"

_PROJECT = "samonai"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}", re.ASCII)
_BUILDERS: list[dict[str, Any]] = [
    {
        "path": "nvflare.lighter.impl.workspace.WorkspaceBuilder",
        "args": {"template_file": ["master_template.yml"]},
    },
    {
        "path": "nvflare.lighter.impl.static_file.StaticFileBuilder",
        "args": {"config_folder": "config"},
    },
    {"path": "nvflare.lighter.impl.cert.CertBuilder"},
    {"path": "nvflare.lighter.impl.signature.SignatureBuilder"},
]


def provision(
    server: str,
    sites: Sequence[str],
    out: Path | str,
    *,
    admin: str,
    port: int = 8002,
    org: str = "hospitals",
) -> dict[str, Path]:
    """Make startup kits with NVFlare: one for the server, one for each site, one for the admin.

    Args:
        server: The server's host name, as the sites reach it.
        sites: The sites' names.
        out: Folder for the project and the kits; the same folder again keeps the certificates.
        admin: The admin's address, which is the name of their kit.
        port: Port of the server.
        org: Name of the organization in the certificates.

    Returns:
        Name of the participant to its kit.

    Raises:
        InputError: NVFlare is missing, a name cannot be used, or provisioning failed.
    """
    need_nvflare()
    for name in (server, *sites):
        if not _NAME.fullmatch(name):
            raise InputError(f"{name!r}: expected letters, digits, dots and hyphens")
    if len(set(sites)) < max(len(sites), 2):
        raise InputError("a federation needs two sites or more, with different names")
    participants: list[dict[str, Any]] = [
        {"name": server, "type": "server", "org": org, "fed_learn_port": port},
        *({"name": site, "type": "client", "org": org} for site in sites),
        {"name": admin, "type": "admin", "org": org, "role": "project_admin"},
    ]
    project = {
        "api_version": 3,
        "name": _PROJECT,
        "participants": participants,
        "builders": _BUILDERS,
    }
    out = output_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with write_atomically(out / "project.yml") as path:
        path.write_text(json.dumps(project, indent=1) + "\n")  # JSON is YAML
    _nvflare(["provision", "-p", str(out / "project.yml"), "-w", str(out), "--force"])
    latest = max((out / _PROJECT).glob("prod_*"))
    kits = {entry["name"]: latest / str(entry["name"]) for entry in participants}
    for entry in participants:
        if entry["type"] != "admin":
            allow_classes(kits[str(entry["name"])] / "local")
    return kits


def name_data(
    kit: Path | str,
    images: Path | str,
    labels: Path | str | None = None,
    *,
    store: Path | str | None = None,
    checkpoint: Path | str | None = None,
    device: str | None = None,
) -> Path:
    """Write a site's own file, which names its data; it is read at the site only.

    Args:
        kit: The site's startup kit.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that has them.
        store: Embedding store; by default in the folder of each job.
        checkpoint: The model's weights at this site, if not the published ones.
        device: Device of computation.

    Raises:
        InputError: The folder is not a startup kit.
    """
    path = checked_kit(kit) / "local" / SITE_FILE
    given = {"images": images, "labels": labels, "store": store, "checkpoint": checkpoint}
    content = {
        name: os.path.abspath(as_path(value, name)) if "://" not in str(value) else str(value)
        for name, value in given.items()
        if value is not None
    }
    if device is not None:
        content["device"] = device
    with write_atomically(path, private=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    return path


def start(kit: Path | str) -> int:
    """Start the server or the site of a kit in the foreground; return NVFlare's exit code."""
    need_nvflare()
    folder = checked_kit(kit)
    return subprocess.run(
        ["bash", str(folder / "startup" / "sub_start.sh"), "--once"],
        env=_environment(os.environ),
        check=False,
    ).returncode


def checked_kit(kit: Path | str) -> Path:
    """Return the folder of a startup kit.

    Raises:
        InputError: The folder is no kit of a server or a site.
    """
    folder = as_path(kit, "the startup kit")
    if not (folder / "startup" / "sub_start.sh").is_file() or not (folder / "local").is_dir():
        raise InputError(f"{folder} is no startup kit of a server or a site; see provision")
    return folder


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which NVFlare's scripts find this Python."""
    here = str(Path(sys.executable).parent)
    return {**given, "PATH": os.pathsep.join([here, given.get("PATH", "")])}


def _nvflare(arguments: Sequence[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from nvflare.cli import main; main()", *arguments],
        env=_environment(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        told = " ".join((done.stdout + done.stderr).split())[-300:]
        raise InputError(f"NVFlare's provisioning failed: {told}")
