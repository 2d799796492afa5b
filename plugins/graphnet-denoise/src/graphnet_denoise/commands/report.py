"""`graphnet report`: a training run as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click
import torch

import graphnet
from graphnet.cli import compile_options, make_options
from graphnet.errors import DescriptionError, GraphnetError
from graphnet.sdk import Gallery, Pairs, as_unit, default_registry
from graphnet.system import bytes_text, write_text
from graphnet_denoise.commands.options import MEMORY, OF_PREDICTION
from graphnet_denoise.images import list_images, read_picture
from graphnet_denoise.report.page import page
from graphnet_denoise.report.pictures import Pictured, middle
from graphnet_denoise.report.run import Run, read_run
from graphnet_denoise.restoring import Restorer

Example = tuple[str, torch.Tensor, torch.Tensor | None]
"""The name of an image, the noisy image, and its target if there is one: (C, H, W) in 0..1."""


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
@click.option(
    "--most",
    default=4,
    show_default=True,
    type=click.IntRange(min=0),
    help="How many images to show.",
)
@compile_options(*OF_PREDICTION, device="auto", memory=MEMORY)
def report(
    run: Path, images: tuple[Path, ...], output: Path, most: int, options: Mapping[str, object]
) -> None:
    """Show the training run in the folder RUN as one HTML file, which needs nothing else.

    It has the curves of the training; images before and after denoising, to be compared with a slider and
    zoomed to pixels; what was removed, and its spectrum; settings and versions. IMAGE is a noisy image file
    or a folder of them; without it, the images are those of the run's validation.
    """
    found = read_run(run)
    pictures: list[Pictured] = []
    remark = "" if found.model else "The run has not written a model yet, so there are no images."
    if found.model and most:
        restorer = Restorer.of(graphnet.load(found.model), options=make_options(options))
        try:
            examples = _files(images) if images else _validation(found)
            pictures = [_pictured(restorer, *one) for one in islice(examples, most)]
        except (GraphnetError, DescriptionError) as error:
            if images:
                raise
            remark = f"The images of the run's validation cannot be shown: {error}"
    text = page(found, [one.data() for one in pictures], remark=remark)
    write_text(output, text)
    click.echo(f"wrote {output}: {bytes_text(len(text.encode()))}, images: {len(pictures)}")
    if remark:
        click.echo(remark, err=True)


def _pictured(
    restorer: Restorer, name: str, noisy: torch.Tensor, target: torch.Tensor | None
) -> Pictured:
    channels = noisy.shape[0] if target is None else target.shape[0]
    level = noisy[channels:]  # a map of the noise level, or nothing
    seen = middle(noisy[:channels])
    told = float(level.flatten()[0]) * 255 if len(level) else None
    restored = restorer.restore(seen[None], noise_level=told)[0].cpu()
    return Pictured(name, seen, restored, None if target is None else middle(target))


def _files(images: Sequence[Path]) -> Iterator[Example]:
    for given in images:
        for path in list_images(given) if given.is_dir() else [given]:
            yield path.name, read_picture(path).tensor(), None


def _validation(run: Run) -> Iterator[Example]:
    """The images of the validation set that the run's training file names; none if it names none."""
    data: Any = run.config.get("data", {})
    form = data.get("validation")
    if form is None:
        return
    pairs: Any = default_registry().dataset(form).load()
    if isinstance(pairs, Gallery):
        for number in range(len(pairs)):
            noisy, target = (as_unit(one, torch.float32) for one in pairs[number])
            yield f"image {number + 1}", noisy, target
    elif isinstance(pairs, Pairs):
        for number in range(len(pairs)):
            both = pairs.inputs[number], pairs.targets[number]
            noisy, target = (as_unit(one, torch.float32) for one in both)
            yield f"image {number + 1}", noisy, target
