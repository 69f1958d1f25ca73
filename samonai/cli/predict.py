"""`samonai predict`: label maps on the scans' own grids, with boxes or without."""

from pathlib import Path
from typing import Annotated, Any

import typer

from samonai.cli import options
from samonai.core.errors import InputError
from samonai.core.files import output_folder

EXAMPLE = (
    "Example: samonai predict medical --run runs/spleen --input scan.nii.gz --boxes boxes.json "
    '--out masks, where boxes.json holds {"boxes": [[i0, j0, k0, i1, j1, k1]], "classes": [1]}: '
    "voxel indices along columns, rows and slices, upper ends exclusive"
)


def predict(
    domain: options.Domain,
    source: Annotated[
        str,
        typer.Option(
            "--input",
            help="A volume, a DICOM folder, or a folder of volumes; or series of a PACS: "
            "dicomweb://HOST/PATH?StudyInstanceUID=… or dimse://AET@HOST:PORT?….",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the label maps, named after the cases.")],
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="File of boxes, clicks or regions; JSON (boxes, clicks as points), CSV (columns "
            "case, i0, j0, k0, i1, j1, k1, class), markups of 3D Slicer, DICOM SR, RTSTRUCT, an "
            "export of CVAT, LabelMe, Label Studio or napari, a coarse label map, or a folder with "
            "one of these per case. Not needed by a run trained with --heads semantic or both, nor "
            "with --set automatic=grid, which prompts with a grid of points."
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Name of the class to find without boxes; by default all. Documents: also words, "
            "regex:PATTERN or a question; texts that are not on the page are reported as not found."
        ),
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            help="The run's folder, or a folder of folds; the logits of several runs are "
            "averaged. Else --model."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A stock model, such as vit_b; micro, vit_l, vit_h, vit_t or medsam_vit_b."
        ),
    ] = None,
    checkpoint: options.Checkpoint = None,
    sha256: options.Sha256 = None,
    series: Annotated[
        str | None, typer.Option(help="DICOM SeriesInstanceUID, if there are several.")
    ] = None,
    ending: Annotated[
        str, typer.Option(help=".nii.gz, .nii, .nrrd or .mha; by default the input's own.")
    ] = "",
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="nifti, nrrd, mha, dicom-seg, rtstruct, png or overlay; may be repeated. By "
            "default the input's own kind.",
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Write volumes, extents and intensities beside each prediction."
        ),
    ] = False,
    uncertainty: Annotated[
        bool | None,
        typer.Option(
            help="Write the uncertainty, as a map and per structure; by default for several runs."
        ),
    ] = None,
    propagate: Annotated[
        bool,
        typer.Option(
            "--propagate",
            help="Carry each box, drawn on one slice, to the slices on both sides "
            "(`--set propagation.NAME=VALUE` sets where to stop).",
        ),
    ] = False,
    planes: options.Planes = 1,
    archive: options.Archive = False,
    readers: options.Readers = None,
    limit: options.Limit = None,
    dry_run: options.DryRun = False,
    retry_failed: options.RetryFailed = False,
    part: options.ArchivePart = None,
    send: options.Send = None,
    store: options.Store = None,
    device: options.Device = None,
    precision: options.Precision = None,
    allow_gaps: options.AllowGaps = False,
    case_map: options.CaseMap = None,
    set_: options.Set = None,
) -> None:
    """Predict label maps on the scans' own grids, header and affine exact, with boxes or without.

    Without boxes the run's semantic head labels all of its classes.
    """
    from samonai.workflows import arguments

    if bool(run) == (model is not None):
        raise InputError("give --run for a fine-tuned decoder, or --model for a stock model")
    settings = options.prediction_settings(
        domain, set_, planes, allow_gaps=allow_gaps, case_map=case_map, precision=precision
    )
    if propagate:
        settings["spread"] = "propagate"
    assigned = options.archive_part(archive, part)
    going = options.archive_settings(archive, readers, limit, dry_run, retry_failed, assigned)
    if run:
        decoders = arguments.check_runs(run, domain, checkpoint, device)
    else:
        arguments.check_model(str(model), checkpoint, sha256, device)
        decoders = []
    if not dry_run:
        output_folder(out, keep=assigned.part.count > 1)
    arguments.check_source(source)
    arguments.check_prompts(
        domain,
        boxes,
        prompt,
        decoders,
        automatic=settings.get("automatic"),
        settings_name_classes=settings.get("structures") is not None,
    )

    from samonai.workflows import run as workflow
    from samonai.workflows.run import open_runs

    device = device or assigned.device
    network = (
        open_runs(run, checkpoint=checkpoint, device=device, domain=domain) if run else str(model)
    )
    asked: dict[str, Any] = {
        "prompt": prompt,
        "domain": domain,
        "series": series,
        "ending": ending,
        "formats": format_ or [],
        "measure": measure,
        "store": store,
        "checkpoint": checkpoint,
        "sha256": sha256,
        "device": device,
        "uncertainty": uncertainty,
        "send": send,
        **settings,
    }
    if archive:
        from samonai.workflows.archive.archive import predict_archive

        state = predict_archive(network, source, boxes, out, **asked, **going)
        raise typer.Exit(options.tell(state, out, dry_run, assigned))
    for path in workflow.predict(network, source, boxes, out, **asked):
        typer.echo(path)
    if send is not None:
        typer.echo(f"DICOM objects stored by {send}")
