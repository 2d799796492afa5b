"""`graphnet export`: a model as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import click

import graphnet
from graphnet.cli import input_shapes
from graphnet_onnx.exporter import export


@click.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE.onnx",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write.",
)
@input_shapes
@click.option(
    "--fixed",
    multiple=True,
    metavar="NAME",
    help="Fix an open size to that of --input, such as batch or height; all fixes all.",
)
def command(
    model: Path, output: Path, shapes: list[tuple[int, ...]], fixed: tuple[str, ...]
) -> None:
    """Write the inference of MODEL (.yaml or .safetensors) as an ONNX file, with its weights, in float32.

    The batch, and the sizes that the description of MODEL leaves open, stay free in the file, as far as the
    model takes other sizes. A model without weights is written with random ones, which come from its seed.
    """
    loaded = graphnet.load(model)
    written = export(loaded, output, *shapes, fixed=fixed)
    for word, infos in (("input", written.inputs), ("output", written.outputs)):
        for name, sizes in infos.items():
            click.echo(f"{word} {name}: {sizes}")
    drawn = "" if loaded.weights is not None else ", random weights"
    click.echo(f"wrote {output}: {written.nodes} ONNX nodes, {written.size_bytes} bytes{drawn}")
