"""`graphnet export-darktable`: a denoiser for the module neural restore of darktable."""

from __future__ import annotations

from pathlib import Path

import click

import graphnet
from graphnet_denoise.commands.options import name_option, noise_level_option, optional_model
from graphnet_denoise.exporting.darktable import write_dtmodel


@click.command("export-darktable")
@optional_model
@click.option(
    "-o",
    "--output",
    metavar="FILE.dtmodel",
    required=True,
    type=click.Path(path_type=Path),
    help="The file to write.",
)
@name_option
@noise_level_option
def export_darktable(
    model: Path, output: Path, name: str | None, noise_level: float | None
) -> None:
    """Write MODEL (.safetensors) as a .dtmodel, which darktable 5.6 and later can run.

    Without MODEL, the included model `camera` is written. In darktable, install the file by "import from
    file" in the preferences, under AI. Then choose it for the task denoise, and run it in the module neural
    restore.
    """
    click.echo(write_dtmodel(graphnet.load(model), output, name=name, noise_level=noise_level))
