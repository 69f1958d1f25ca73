"""`samonai doctor`: versions, devices and missing packages of this machine."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated

import typer

from samonai.version import __version__

EXAMPLE = "For bug reports: its output names none of your files except the cache folder."

_SHOWN = (
    *("torch", "monai", "pytorch-ignite", "segment-anything", "numpy", "nibabel"),
    *("SimpleITK", "pydicom", "highdicom"),
)
_OPTIONAL = {
    "fsspec": ("embedding stores on object storage", "pip install 'samonai[remote]'"),
    "timm": ("the model vit_t (MobileSAM)", "pip install 'samonai[vit_t]'"),
    "pynetdicom": ("PACS: dicomweb:// and dimse://", "pip install 'samonai[pacs]'"),
    "libjpeg": ("12-bit JPEG Extended in DICOM (GPL)", "pip install pylibjpeg-libjpeg"),
}
_SYNTAXES = {
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG baseline": "1.2.840.10008.1.2.4.50",
    "JPEG extended": "1.2.840.10008.1.2.4.51",
    "JPEG lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.91",
    "HTJ2K": "1.2.840.10008.1.2.4.201",
}


def doctor(
    compute: Annotated[
        bool,
        typer.Option("--compute", help="Also the encoder's precision and attention, by PyTorch."),
    ] = False,
) -> None:
    """Show versions, devices, the cache, models, and missing packages with their installation."""
    for title, lines in (
        ("versions", _versions()),
        ("device", _device(compute)),
        ("models", _models()),
        ("compressed DICOM", _decoders()),
        ("missing", _missing()),
    ):
        typer.echo(f"{title}:")
        for line in lines:
            typer.echo(f"  {line}")


def _versions() -> Iterator[str]:
    yield f"samonai {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield ", ".join(f"{name} {_version(name) or 'missing'}" for name in _SHOWN)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device(compute: bool) -> Iterator[str]:
    """Describe the device; PyTorch is imported only where there may be another than the CPU."""
    if not compute and not _may_have_gpu():
        yield f"cpu: {_cores()} cores; no GPU is visible"
        yield "precision and attention of the encoder: samonai doctor --compute"
        return
    yield from _torch_device()


def _may_have_gpu() -> bool:
    """Return whether this machine may have a GPU: device nodes of NVIDIA, AMD or WSL."""
    if platform.system() != "Linux":
        return True
    nodes = (*Path("/dev").glob("nvidia[0-9]*"), Path("/dev/kfd"), Path("/dev/dxg"))
    return any(node.exists() for node in nodes)


def _cores() -> int | None:
    return os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()


def _torch_device() -> Iterator[str]:
    import torch

    from samonai.sam.attention import (
        ATTENTION_FORMS,
        FOLDED,
        GLOBAL_TOKENS,
        WINDOW_TOKENS,
        attention_form,
    )
    from samonai.sam.encoder import COMPILE_SWITCH, compiles, dtype_of, resolve_precision

    devices = [torch.device("cuda", n) for n in range(torch.cuda.device_count())]
    for device in devices:
        facts = torch.cuda.get_device_properties(device)
        yield f"{device}: {facts.name}, {facts.total_memory / 2**30:.0f} GiB"
    yield f"cpu: {_cores()} cores, {torch.get_num_threads()} threads"
    chosen = devices[0] if devices else torch.device("cpu")
    precision = resolve_precision("auto", chosen)
    yield f"used: {chosen}; the encoder computes in {precision}"
    for among, length in (("the whole image", GLOBAL_TOKENS), ("windows", WINDOW_TOKENS)):
        dtype = dtype_of(precision)
        form = FOLDED if compiles() else attention_form(chosen, dtype, length)
        yield f"attention in {among}: {ATTENTION_FORMS[form]}"
    yield f"compiled: {'yes' if compiles() else 'no'} ({COMPILE_SWITCH}=1 compiles the encoder)"


def _models() -> Iterator[str]:
    from samonai.sam.checkpoints import CHECKPOINTS, MICRO_WEIGHTS, cache_dir, cached_path

    folder = cache_dir()
    yield f"cache: {folder} ({_free(folder)} free; SAMONAI_CACHE moves it)"
    for checkpoint in CHECKPOINTS.values():
        if checkpoint.url is None:
            found = "embedded, for demonstrations"
            found = found if MICRO_WEIGHTS.is_file() else "missing; install samonai again"
        elif cached_path(checkpoint).is_file():
            found = "fetched"
        else:
            found = f"not fetched: samonai checkpoints download {checkpoint.name}"
        yield f"{checkpoint.name}: {found}"
    yield (
        "into a network without internet: samonai checkpoints download NAME --to FILE elsewhere, "
        "then samonai checkpoints verify NAME --file FILE and --checkpoint FILE here"
    )


def _free(folder: Path) -> str:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return f"{shutil.disk_usage(there).free / 1e9:.0f} GB"


def _decoders() -> Iterator[str]:
    from pydicom.pixels import get_decoder

    for name, uid in _SYNTAXES.items():
        plugins = get_decoder(uid).available_plugins
        yield f"{name}: {', '.join(plugins) or 'none'}"


def _missing() -> Iterator[str]:
    needed = [_name(text) for text in requires("samonai") or () if "extra ==" not in text]
    lost = [name for name in needed if _version(name) is None]
    if lost:
        yield f"needed: {', '.join(lost)}: pip install {' '.join(lost)}"
    for module, (purpose, install) in _OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            yield f"optional, for {purpose}: {install}"
    if not lost:
        yield "nothing that is needed"


def _name(requirement: str) -> str:
    """Return the distribution's name in a requirement such as "torch>=2.10"."""
    end = next((n for n, c in enumerate(requirement) if not (c.isalnum() or c in "-_.")), None)
    return requirement[:end]
