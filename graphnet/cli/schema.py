"""graphnet schema: print the JSON Schema of model files."""

from __future__ import annotations

import click

from graphnet.cli import json_text
from graphnet.description import model_schema
from graphnet.sdk import default_registry


@click.command(short_help="Print the JSON Schema of model files, for editors.")
def schema() -> None:
    """Print the JSON Schema of model files, with every installed layer.

    An editor that reads the schema completes and checks model files.
    """
    click.echo(json_text(model_schema(default_registry())))
