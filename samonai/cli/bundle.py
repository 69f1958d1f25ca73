"""`samonai bundle`: list, show, copy and run the MONAI bundles."""

import json
from pathlib import Path
from typing import Annotated

import typer

from samonai.settings.table import value_lines
from samonai.workflows.bundle_engine import run_bundle
from samonai.workflows.bundle_files import (
    EVALUATE,
    INFERENCE,
    TRAIN,
    config_files,
    find_bundle,
    lay_out,
    list_bundles,
    read_config,
)
from samonai.workflows.settings import (
    described_settings,
    names_used,
    parse_settings,
    plain_settings,
)

app = typer.Typer(no_args_is_help=True, help="List, show, copy and run the MONAI bundles.")

_INFER = "inference"

Name = Annotated[str, typer.Argument(help="A bundle's name, or the folder of a copy.")]


@app.command("list")
def list_all() -> None:
    """List the bundles that come with samonai."""
    for name in list_bundles():
        metadata = find_bundle(name) / "configs" / "metadata.json"
        about = json.loads(metadata.read_text(encoding="utf-8")) if metadata.is_file() else {}
        typer.echo(f"{name}  {about.get('version', '')}  {about.get('task', '')}".rstrip())


@app.command(epilog="Example: samonai bundle show medical --config evaluate.json")
def show(
    name: Name,
    config: Annotated[str, typer.Option(help=f"{TRAIN}, {EVALUATE} or {INFERENCE}.")] = TRAIN,
) -> None:
    """Show the settings of `--set` by group: value, range, unit and meaning."""
    files = config_files(name, *([TRAIN, config] if config == EVALUATE else [config]))
    content = read_config(files)
    used = names_used(read_config(files[-1:]))
    shown = {key: value for key, value in plain_settings(content).items() if key in used}
    for line in value_lines(shown, described_settings(content)):
        typer.echo(line)


@app.command(epilog="Example: samonai bundle init medical my_bundle")
def init(
    name: Name, folder: Annotated[Path, typer.Argument(help="A new or empty folder.")]
) -> None:
    """Copy a bundle into a folder of your own, to read it, change it, or run it with MONAI."""
    lay_out(name, folder)
    typer.echo(
        f"{folder}: run it with python -m monai.bundle run --config_file "
        f"{folder}/configs/{TRAIN} --bundle_root {folder} --dataset_dir DATA"
    )


@app.command(
    epilog="Example: samonai bundle run my_bundle train.json --dataset-dir Task04 --out models"
)
def run(
    name: Name,
    configs: Annotated[
        list[str], typer.Argument(help="Configurations; later ones override earlier ones.")
    ],
    dataset_dir: Annotated[Path | None, typer.Option(help="The data set's folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where results go.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting.")
    ] = None,
) -> None:
    """Run a bundle's configurations in this process, as MONAI does, but refuse mistyped settings.

    A bundle can run code: use only bundles whose source you trust.
    """
    files = config_files(name, *configs)
    config = read_config(files)
    overrides = parse_settings(set_ or [], config)
    if "bundle_root" in config:
        overrides.setdefault("bundle_root", find_bundle(name))
    for key, path in (("dataset_dir", dataset_dir), ("output_dir", out)):
        if path is not None:
            overrides[key] = path
    workflow = "infer" if files[0].stem.startswith(_INFER) else "train"
    run_bundle(files, overrides, workflow_type=workflow)
