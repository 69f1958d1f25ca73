"""Command-line options shared by several verbs."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samonai.core.errors import InputError
from samonai.domains import DOMAINS
from samonai.settings import options

if TYPE_CHECKING:
    from samonai.workflows.archive.archive import ArchiveReport
    from samonai.workflows.archive.parts import Assigned


def _known_domain(name: str) -> str:
    if name not in DOMAINS:
        raise typer.BadParameter(f"{name!r} is not known; use {', '.join(sorted(DOMAINS))}")
    return name


Domain = Annotated[
    str,
    typer.Argument(help=f"Kind of data: {', '.join(sorted(DOMAINS))}.", callback=_known_domain),
]
Images = Annotated[
    Path,
    typer.Option(
        help="Folder of volumes (NIfTI, NRRD, MetaImage, folders of DICOM) or medical pictures "
        "(PNG, JPEG, TIFF), or a dataset.json; of rasters; of pages (PNG, JPEG, TIFF, WebP, PDF)."
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Folder of label maps with the images' names; a data list may have them. Rasters: "
        "also a vector file; pages: COCO, or PAGE-XML, ALTO or masks with the pages' names."
    ),
]
Model = Annotated[str, typer.Option(help="micro, vit_b, vit_l, vit_h, vit_t or medsam_vit_b.")]


class _Unnamed(str):
    """The demonstration model's name, where no model was named."""


def _unnamed(context: typer.Context, model: str) -> str:
    source = context.get_parameter_source("model")
    return _Unnamed(model) if source is not None and source.name == "DEFAULT" else model


def tell_of_demonstration(model: str) -> None:
    """Print a line where the demonstration model is used because no other was named."""
    if isinstance(model, _Unnamed) and is_first_process():
        typer.echo(
            f"samonai: the model is {model}, for demonstrations; for real work give --model vit_b "
            f"(or medsam_vit_b), which samonai checkpoints download fetches",
            err=True,
        )


def is_first_process() -> bool:
    """Return whether this process prints: the only one, or the first of torchrun's."""
    return os.environ.get("RANK", "0") == "0"


TrainedModel = Annotated[
    str,
    typer.Option(
        "--model",
        help="micro (for demonstrations), vit_b, vit_l, vit_h, vit_t or medsam_vit_b.",
        callback=_unnamed,
    ),
]
Heads = Annotated[
    str | None,
    typer.Option(
        help="promptable (the default): segments boxes and clicks; semantic: labels all pixels "
        "without a prompt; both, in one run."
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="The model's weights, if your own: a .pth or .safetensors file, or a folder of "
        "transformers' SamModel."
    ),
]
Sha256 = Annotated[str | None, typer.Option(help="Expected sha256 of the weights' file.")]
AllowGaps = Annotated[
    bool,
    typer.Option(
        "--allow-gaps",
        help="DICOM: mask missing slices and interpolate uneven ones, with a warning, instead of "
        "refusing the series.",
    ),
]
CaseMap = Annotated[
    Path | None,
    typer.Option(
        help="DICOM: the CSV file for the name of each pseudonym; it identifies patients."
    ),
]
Planes = Annotated[
    int,
    typer.Option(
        help="3: decode volumes in all three planes and average them; three times the encoding."
    ),
]
Archive = Annotated[
    bool,
    typer.Option(
        "--archive",
        help="A folder of studies, nested and mixed: a failed study does not stop the others, and "
        "the same command resumes.",
    ),
]
Readers = Annotated[
    int | None,
    typer.Option(
        help="With --archive: studies read at once, by default 2; each is held in memory."
    ),
]
Limit = Annotated[int | None, typer.Option(help="With --archive: largest number of studies.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --archive: only list the studies.")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="With --archive: retry failed studies.")
]
ArchivePart = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="K/N",
        help="With --archive: only the K-th of N parts of the studies; several processes share "
        "--out and --store. By default that of a Slurm array's task or of torchrun's process.",
    ),
]
Send = Annotated[
    str | None,
    typer.Option(
        help="A PACS that the DICOM objects (by default DICOM-SEG) are sent to: "
        "dicomweb://HOST[:PORT]/PATH or dimse://AET@HOST:PORT."
    ),
]
Store = Annotated[
    str | None,
    typer.Option(help="Embedding store: a folder, or a URL that fsspec supports."),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:N; by default a GPU if there is one.")
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="Precision of the encoder: fp32, bf16, fp16, int8 (CPUs), or auto (the default): "
        "bf16 where the device supports it."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of all random choices.")]
ValFraction = Annotated[
    float | None, typer.Option(help="Share of the cases held out; 0.2 without a split.")
]
SplitFile = Annotated[
    Path | None,
    typer.Option(
        help='JSON {"train": [case, …], "val": [case, …]}; a case is a file\'s name. Or a file '
        "of folds, nnU-Net's splits_final.json or a MONAI data list: FILE#N is fold N."
    ),
]
Groups = Annotated[
    Path | None, typer.Option(help='JSON {"case": "patient", …}: patients are not split.')
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any other setting: `samonai bundle show` lists them."
    ),
]


def given_settings(
    config: Mapping[str, Any],
    set_: list[str] | None,
    *,
    allow_gaps: bool,
    case_map: Path | None,
    **others: Any,
) -> dict[str, Any]:
    """Return the settings given with `--set` or with options of their own.

    Args:
        config: The bundle's configuration.
        set_: Values of `--set`.
        allow_gaps: Likewise; as the next, refused for data that is not DICOM.
        case_map: Likewise.
        **others: Settings with an option of their own, unless they are None.
    """
    from samonai.workflows.settings import parse_settings

    settings = parse_settings(set_ or [], config, options())
    settings |= _dicom_settings(config, allow_gaps, case_map)
    return settings | {name: value for name, value in others.items() if value is not None}


def prediction_settings(
    domain: str, set_: list[str] | None, planes: int, **others: Any
) -> dict[str, Any]:
    """Return the given settings of prediction.

    Args:
        domain: The kind of data.
        set_: Values of `--set`.
        planes: The decoded planes.
        **others: See `given_settings`.
    """
    from samonai.workflows.bundle_files import INFERENCE, config_files, read_config

    config = read_config(config_files(domain, INFERENCE))
    return given_settings(config, set_, **others) | plane_settings(config, planes)


def _dicom_settings(
    config: Mapping[str, Any], allow_gaps: bool, case_map: Path | None
) -> dict[str, Any]:
    """Return the settings of DICOM reading; refuse them for other domains."""
    given: dict[str, Any] = {}
    if allow_gaps:
        given["allow_gaps"] = True
    if case_map is not None:
        given["case_map"] = str(case_map)
    for name in given:
        if name not in config:
            raise InputError(f"{options()[name]} is for DICOM, which is medical data")
    return given


def plane_settings(config: Mapping[str, Any], planes: int) -> dict[str, Any]:
    """Return the setting of the decoded planes; refuse it for 2D data."""
    if planes == 1:
        return {}
    if "planes" not in config:
        raise InputError("--planes is for volumes, which is medical data")
    from samonai.workflows.settings import check_settings

    return check_settings({"planes": planes}, config)


def archive_settings(
    archive: bool,
    readers: int | None,
    limit: int | None,
    dry_run: bool,
    retry_failed: bool,
    part: "Assigned",
) -> dict[str, Any]:
    """Return the options of an archive; refuse them without an archive."""
    given: dict[str, Any] = {"limit": limit, "dry_run": dry_run, "retry_failed": retry_failed}
    if archive:
        given["part"] = part.part
    if readers is not None:
        given["readers"] = readers
    if not archive and (dry_run or retry_failed or limit is not None or readers is not None):
        raise InputError("--readers, --limit, --dry-run and --retry-failed go with --archive")
    return given


def archive_part(archive: bool, part: str | None) -> "Assigned":
    """Return the part of an archive that is given, or that of the job's environment."""
    from samonai.workflows.archive.parts import WHOLE, Assigned, as_part, assigned_part

    if not archive:
        if part is not None:
            raise InputError("--part goes with --archive")
        return Assigned(WHOLE)
    if part is not None:
        return Assigned(as_part(part))
    found = assigned_part()
    if found.why:
        typer.echo(
            f"part {found.part} of the studies, from {found.why}; --part 1/1 takes all", err=True
        )
    return found


def tell(report: "ArchiveReport", out: Path, dry_run: bool, part: "Assigned") -> int:
    """Print the state of an archive and return the exit code: 1 if studies failed.

    torchrun ends all its processes when one of them ends with another code than 0, so that there
    failed studies are no failure of the process.
    """
    if dry_run:
        for case_id in report.waiting:
            typer.echo(f"to do    {case_id}")
    for case_id, reason in sorted(report.reasons.items()):
        typer.echo(f"{report.states[case_id]:8} {case_id}: {reason}")
    own = part.part
    told = "" if own.count == 1 else f"part {own}: "
    typer.echo(told + report.summary() + ("" if dry_run else f"; {out / own.manifest}"))
    if own.count > 1 and not dry_run:
        from samonai.workflows.archive.status import archive_status

        typer.echo(archive_status(out).other_parts(own))
    return int(report.count("failed") > 0 and not dry_run and part.local_rank is None)
