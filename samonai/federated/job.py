"""NVFlare job of a federation, and its simulation on one machine.

The job is configuration alone: its classes are those of the installed package, which each site
allows by name.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import as_path, output_folder
from samonai.federated.plan import FederatedPlan

JOB_NAME = "samonai"
CLASSES = ("samonai.federated.nvflare_parts.",)
"""Beginning of the names of classes that a site allows a job to use, beside NVFlare's own."""

_PARTS = "samonai.federated.nvflare_parts"
_TASKS = ["agree", "train", "validate"]
_STATE_FOLDER = "federation"
_PRIVACY = {
    "percentile": "nvflare.app_common.filters.percentile_privacy.PercentilePrivacy",
    "svt": "nvflare.app_common.filters.svt_privacy.SVTPrivacy",
}


@dataclass(frozen=True)
class SiteData:
    """Data of one simulated site.

    Attributes:
        name: The site's name.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list.
    """

    name: str
    images: Path
    labels: Path | None


def need_nvflare() -> None:
    """Check that NVFlare is installed.

    Raises:
        InputError: NVFlare is not installed.
    """
    if importlib.util.find_spec("nvflare") is None:
        raise InputError("this needs NVFlare: pip install 'samonai[federated]'")


def site_of(folder: Path | str) -> SiteData:
    """Return the data in a site's folder: imagesTr and labelsTr, images and labels, or a data list.

    Raises:
        InputError: The folder has none of these.
    """
    path = as_path(folder, "site")
    name = re.sub(r"[^A-Za-z0-9_-]", "_", path.absolute().name)
    for images, labels in (("imagesTr", "labelsTr"), ("images", "labels")):
        if (path / images).is_dir() and (path / labels).is_dir():
            return SiteData(name, (path / images).absolute(), (path / labels).absolute())
    if (path / "dataset.json").is_file():
        return SiteData(name, (path / "dataset.json").absolute(), None)
    raise InputError(
        f"site {path}: expected imagesTr and labelsTr, images and labels, or dataset.json in it"
    )


def write_job(
    folder: Path,
    plan: FederatedPlan,
    *,
    sites: Mapping[str, Mapping[str, Any]] | None = None,
    checkpoint: Path | str | None = None,
    privacy: str | None = None,
) -> Path:
    """Write a federation as an NVFlare job.

    Args:
        folder: The folder of jobs; the job is in a folder of its own there.
        plan: The plan.
        sites: Data of simulated sites; None: each site has its own file.
        checkpoint: The model's weights at the server.
        privacy: NVFlare's filter of what a site sends: "percentile" or "svt"; None: none.

    Raises:
        InputError: The filter is unknown.
    """
    if privacy is not None and privacy not in _PRIVACY:
        raise InputError(f"privacy={privacy!r}: expected {' or '.join(_PRIVACY)}")
    job = folder / JOB_NAME
    controller = {"plan": plan.to_json(), "checkpoint": checkpoint and str(checkpoint)}
    filters = [] if privacy is None else [{"path": _PRIVACY[privacy], "args": {}}]
    own = {"tasks": ["train"], "filters": filters}
    contents: dict[str, Any] = {
        "meta.json": {
            "name": JOB_NAME, "resource_spec": {}, "min_clients": plan.min_sites,
            "deploy_map": {"app": ["@ALL"]},
        },
        "app/config/config_fed_server.json": {
            "format_version": 2, "task_data_filters": [], "task_result_filters": [],
            "components": [],
            "workflows": [
                {"id": "rounds", "path": f"{_PARTS}.FederationController", "args": controller}
            ],
        },
        "app/config/config_fed_client.json": {
            "format_version": 2, "task_data_filters": [], "components": [],
            "task_result_filters": [own] if filters else [],
            "executors": [
                {
                    "tasks": _TASKS,
                    "executor": {
                        "path": f"{_PARTS}.SiteExecutor",
                        "args": {"plan": plan.to_json(), "sites": sites},
                    },
                }
            ],
        },
    }  # fmt: skip
    for name, content in contents.items():
        path = job / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
    return job


def allow_classes(local: Path) -> None:
    """Add this package's classes to those that jobs may use, in a site's `local` folder."""
    from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST

    own, default = local / "resources.json", local / "resources.json.default"
    source = own if own.is_file() else default
    content = json.loads(source.read_text("utf-8")) if source.is_file() else {"format_version": 2}
    allowed = content.get("class_allow_list", list(DEFAULT_CLASS_ALLOW_LIST))
    content["class_allow_list"] = [*allowed, *(c for c in CLASSES if c not in allowed)]
    local.mkdir(parents=True, exist_ok=True)
    (source if source.is_file() else default).write_text(json.dumps(content, indent=1) + "\n")


def simulate(
    sites: Sequence[Path | str],
    out: Path | str,
    plan: FederatedPlan,
    *,
    checkpoint: Path | str | None = None,
    store: Path | str | None = None,
    device: str | None = None,
    threads: int | None = None,
    privacy: str | None = None,
) -> dict[str, Any]:
    """Train over several sites with NVFlare's simulator, each in its own folder, on this machine.

    Args:
        sites: The folders of the sites' data; their names are the sites'.
        out: The folder of the run; new, or empty.
        plan: The plan; all sites are needed.
        checkpoint: The model's weights, if not the published ones.
        store: Embedding store of all sites; by default each has one below `out`.
        device: Device of computation.
        threads: Sites at work at once, by default all. With fewer, NVFlare starts a new process for
            each task.
        privacy: See `write_job`.

    Returns:
        The federation's record, as in `federated.json` in `out`.

    Raises:
        InputError: NVFlare is missing, a site is refused or fails, or an argument is wrong.
    """
    need_nvflare()
    found = [site_of(folder) for folder in sites]
    names = [site.name for site in found]
    if len(found) < 2 or len(set(names)) < len(names):
        raise InputError("a federation needs two sites or more, whose folders' names differ")
    out = output_folder(out)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; choose another folder")
    threads = len(found) if threads is None else threads
    if not 1 <= threads <= len(found):
        raise InputError(f"threads={threads}: expected 1 to {len(found)}, the number of sites")
    state = out.absolute() / _STATE_FOLDER
    own = {"store": store and str(as_path(store, "store").absolute()), "device": device}
    own["checkpoint"] = checkpoint and str(as_path(checkpoint, "checkpoint").absolute())
    data = {
        site.name: {
            "images": str(site.images),
            "labels": site.labels and str(site.labels),
            "folder": str(state / "sites" / site.name),
            **own,
        }
        for site in found
    }
    job = write_job(state / "job", plan, sites=data, checkpoint=own["checkpoint"], privacy=privacy)
    workspace = state / "workspace"
    allow_classes(workspace / "local")
    log = state / "log.txt"
    _run_simulator(job, workspace, names, threads, log)
    return _collected(workspace, out, log)


def _run_simulator(
    job: Path, workspace: Path, names: Sequence[str], threads: int, log: Path
) -> None:
    command = [
        *(sys.executable, "-m", "nvflare.private.fed.app.simulator.simulator", str(job)),
        *("-w", str(workspace), "-c", ",".join(names), "-t", str(threads)),
    ]
    with log.open("wb") as file:
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)


def _collected(workspace: Path, out: Path, log: Path) -> dict[str, Any]:
    """Move the run's files into its folder, and return the federation's record."""
    found = sorted(workspace.rglob("samonai_outcome.json"))
    outcome = json.loads(found[0].read_text("utf-8")) if found else {}
    if "error" in outcome or not found:
        reason = outcome.get("error", "NVFlare's simulator ended without a result")
        raise InputError(f"{reason}; its log is {log}")
    for path in sorted((found[0].parent / "samonai_run").iterdir()):
        if path.is_file():
            shutil.move(path, out / path.name)
    return dict(outcome)
