"""Options that several verbs have, said once."""

from pathlib import Path
from typing import Annotated

import typer

DOMAINS = ("medical", "satellite")

HAVE_OPTIONS = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        *(
            "boxes",
            "cases",
            "checkpoint",
            "device",
            "epochs",
            "heads",
            "images",
            "input",
            "labels",
            "model",
        ),
        *("prompt", "seed", "series", "sha256", "split", "store", "val_fraction"),
    )
} | {
    "decoder": "--run",
    "members": "--run",
    "uncertainty": "--uncertainty",
    "eval_box_jitter": "--box-jitter",
    "eval_prompts": "--prompts",
    "evaluation_dir": "--out",
    "measure": "--measure",
    "output_dir": "--out",
    "output_ending": "--ending",
    "output_formats": "--format",
}
"""Settings that are not given with `--set`, since they have an option of their own."""


def _known_domain(name: str) -> str:
    if name not in DOMAINS:
        raise typer.BadParameter(f"{name!r} is not known; use {', '.join(DOMAINS)}")
    return name


Domain = Annotated[
    str,
    typer.Argument(help=f"Kind of data: {', '.join(DOMAINS)}.", callback=_known_domain),
]
Images = Annotated[
    Path,
    typer.Option(
        help="Folder of volumes (NIfTI, NRRD, MetaImage, folders of DICOM), or a dataset.json."
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(help="Folder of label maps with the images' names; a data list may name them."),
]
Model = Annotated[str, typer.Option(help="micro, vit_b, vit_l, vit_h, vit_t or medsam_vit_b.")]
Heads = Annotated[
    str | None,
    typer.Option(
        help="promptable (the default): answers boxes and clicks; semantic: labels everything "
        "without a prompt; both, in one run."
    ),
]
Checkpoint = Annotated[
    Path | None, typer.Option(help="The model's weights (.pth, .safetensors), if your own.")
]
Sha256 = Annotated[str | None, typer.Option(help="The hash that the weights' file must have.")]
Store = Annotated[
    str | None,
    typer.Option(help="Where embeddings are kept: a folder, or a URL that zarr takes."),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:N; by default a GPU when there is one.")
]
Seed = Annotated[int, typer.Option(help="Every random choice hangs on it.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any other setting: `samonai bundle show` lists them."
    ),
]
