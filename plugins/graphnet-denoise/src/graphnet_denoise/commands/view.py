"""`graphnet view`: look at a training run while it runs, or at the images of a folder before and after."""

from __future__ import annotations

import webbrowser
from collections.abc import Mapping
from pathlib import Path

import click

from graphnet.cli import compile_options, make_options
from graphnet.errors import DataError
from graphnet.plan import CompileOptions
from graphnet_denoise.commands.options import MEMORY, OF_PREDICTION, most_option
from graphnet_denoise.images import find_images
from graphnet_denoise.report.live import LiveFolder, LiveRun
from graphnet_denoise.report.run import is_run
from graphnet_denoise.report.serving import PageServer


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("images", metavar="[IMAGE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="The model for a folder of images; by default an included one, by the noise of each image.",
)
@most_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="The port of the address; by default a free one.",
)
@click.option("--open", "in_browser", is_flag=True, help="Open the address in the browser.")
@compile_options(*OF_PREDICTION, device="auto", memory=MEMORY)
def view(
    folder: Path,
    images: tuple[Path, ...],
    model: Path | None,
    most: int,
    port: int,
    in_browser: bool,
    options: Mapping[str, object],
) -> None:
    """Serve a page that follows FOLDER, for the browser, and print its address. Ctrl-C ends the command.

    If FOLDER is that of a training run, the page is that of `graphnet report`, and changes with the run. It
    can be opened before the run begins. IMAGE is a noisy image file or a folder of them; without it, the
    images are those of the run's validation.

    If FOLDER has images, the page shows each before and after denoising; an image is denoised when it is
    looked at.

    Only programs on this machine that know the address can read the page.
    """
    try:
        with (
            _live(folder, images, model, most, make_options(options)) as shown,
            PageServer(shown, port=port) as server,
        ):
            click.echo(server.address)
            click.echo("Press Ctrl-C to end.", err=True)
            if in_browser:
                webbrowser.open(server.address)
            server.serve_forever()
    except KeyboardInterrupt:
        return


def _live(
    folder: Path,
    images: tuple[Path, ...],
    model: Path | None,
    most: int,
    options: CompileOptions,
) -> LiveRun | LiveFolder:
    """What the page shows of a folder. Raises DataError if it is neither a run's nor one of images."""
    if not folder.is_dir():
        raise DataError(
            f"{folder}: expected the folder of a training run, or a folder of images, found "
            f"{'a file' if folder.exists() else 'nothing'}. Give a folder."
        )
    if not is_run(folder) and find_images(folder).images:
        if images:
            raise DataError(
                f"{folder}: is a folder of images. Leave out {images[0]}, or give a run before it."
            )
        return LiveFolder(folder, model, options=options)
    if model is not None:
        raise DataError(f"{folder}: is a run, which has a model of its own. Leave out --model.")
    for image in images:
        if not image.exists():
            raise DataError(f"{image}: there is no such image.")
    return LiveRun(folder, images, most=most, options=options)
