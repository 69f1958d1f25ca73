"""`samonai status`: results of the workers of an archive, and the studies still open."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: samonai status masks, while workers with --archive --out masks --part K/8 run"


def status(
    out: Annotated[Path, typer.Argument(help="The folder that was --out of the workers.")],
) -> None:
    """Join the manifests of an archive: done, failed with reasons, open, parts not started.

    Workers may run meanwhile. Ends with 1 if studies failed.
    """
    from samonai.workflows.archive.status import archive_status

    found = archive_status(out)
    for line in found.lines():
        typer.echo(line)
    raise typer.Exit(int(found.count("failed") > 0))
