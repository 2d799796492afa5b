"""`graphnet export-bioimageio`: a denoiser as a package of BioImage.IO."""

from __future__ import annotations

from pathlib import Path

import click

import graphnet
from graphnet_denoise.commands.options import name_option, noise_level_option, optional_model
from graphnet_denoise.exporting.bioimageio import write_bioimageio


@click.command("export-bioimageio")
@optional_model
@click.option(
    "-o",
    "--output",
    metavar="FOLDER_OR_ZIP",
    required=True,
    type=click.Path(path_type=Path),
    help="The package: a file if it ends with .zip, else a folder, which is made.",
)
@name_option
@click.option("--author", "authors", metavar="TEXT", multiple=True, help="Who trained it.")
@click.option("--license", metavar="SPDX", help="The model's licence, such as CC-BY-4.0.")
@noise_level_option
def export_bioimageio(
    model: Path,
    output: Path,
    name: str | None,
    authors: tuple[str, ...],
    license: str | None,
    noise_level: float | None,
) -> None:
    """Write MODEL (.safetensors) as a package of BioImage.IO, with test tensors, checked by bioimageio.spec.

    Without MODEL, the included model `camera` is written. Programs such as napari, deepImageJ and ilastik run
    such packages.
    """
    written = write_bioimageio(
        graphnet.load(model),
        output,
        name=name,
        authors=authors,
        license=license,
        noise_level=noise_level,
    )
    click.echo(written)
