"""graphnet export: a model as a file of another format, or as a folder that runs with torch alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from graphnet.cli.options import input_shapes
from graphnet.description import read_text
from graphnet.errors import DescriptionError, InputError
from graphnet.model import Model, StandaloneFolder, export, export_standalone, writer_for


@click.command("export", short_help="Write a model for other programs, or for torch alone.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The file to write, or with --standalone the folder.",
)
@input_shapes
@click.option("--standalone", is_flag=True, help="Write a folder that runs with torch alone.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Set a field of the writer, e.g. fixed=[height,width].",
)
def command(
    model: Path,
    output: Path,
    shapes: list[tuple[int, ...]],
    standalone: bool,
    settings: tuple[str, ...],
) -> None:
    """Write the inference of MODEL (.yaml, .safetensors or a plugin's file), with its weights, in float32.

    The ending of PATH says in which format; plugins add writers, such as graphnet-onnx that of .onnx. With
    --standalone, PATH becomes a folder with a README, the source of the network and its weights.

    The batch, and the sizes that the description of MODEL leaves open, stay free as far as the model takes
    other sizes; --input gives an example of them. A model without weights is written with random ones, which
    come from its seed.
    """
    loaded = Model.load(model)
    writer = StandaloneFolder if standalone else writer_for(output, loaded.registry)
    fields = _fields(settings, writer)
    write = export_standalone if standalone else export
    click.echo(str(write(loaded, output, *shapes, **fields)))


def _fields(settings: tuple[str, ...], writer: type[Any]) -> dict[str, Any]:
    """The fields that `--set` gives."""
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            fields = ", ".join(writer.field_names()) or "the writer has none"
            raise InputError(f"expected --set FIELD=VALUE, found {setting!r}. Fields: {fields}.")
        try:
            value, _ = read_text(text, name=f"--set {name}")
        except DescriptionError:
            value = text
        found[name] = tuple(value) if isinstance(value, list) else value
    return found
