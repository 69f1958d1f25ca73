"""`samonai settings`: all settings of a kind of data, with ranges, units and meanings."""

import typer

from samonai.cli.options import Domain
from samonai.settings.table import settings_lines
from samonai.workflows.bundle_files import find_bundle, plain_configs

EXAMPLE = "Example: samonai settings medical"


def settings(domain: Domain) -> None:
    """List the settings of training, evaluation and prediction, by group."""
    for line in settings_lines(domain, plain_configs(find_bundle(domain))):
        typer.echo(line)
