"""`graphnet report`: a training run as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from graphnet.cli import compile_options, make_options
from graphnet.system import bytes_text, write_text
from graphnet_denoise.commands.options import MEMORY, OF_PREDICTION, most_option
from graphnet_denoise.report.drawing import draw
from graphnet_denoise.report.page import page, page_data, title_of
from graphnet_denoise.report.run import read_run


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", metavar="[IMAGE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE.html",
    required=True,
    type=click.Path(path_type=Path),
    help="The page to write.",
)
@most_option
@compile_options(*OF_PREDICTION, device="auto", memory=MEMORY)
def report(
    run: Path, images: tuple[Path, ...], output: Path, most: int, options: Mapping[str, object]
) -> None:
    """Show the training run in the folder RUN as one HTML file, which loads nothing from anywhere.

    It has the curves of the training; images before and after denoising, to be compared with a slider and
    zoomed to pixels; what was removed, and its spectrum; the layers of the network with their time and
    memory; the same for the parts of a training step (forward pass, loss, reverse pass, optimizer); settings
    and versions. IMAGE is a noisy image file or a folder of them; without it, the images are those of the
    run's validation. An image that cannot be read is named and left out.
    """
    found = read_run(run)
    drawn = draw(found, images, most=most, options=make_options(options))
    data = page_data(
        title_of(found),
        run=found,
        pictures=drawn.pictures,
        network=drawn.network,
        training=drawn.training,
        remarks=drawn.remarks,
    )
    text = page(data)
    write_text(output, text)
    size = bytes_text(len(text.encode()))
    click.echo(f"wrote {output}: {size}, images: {len(drawn.pictures)}")
    for remark in drawn.remarks:
        click.echo(remark, err=True)
