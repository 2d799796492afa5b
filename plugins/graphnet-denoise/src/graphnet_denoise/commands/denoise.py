"""`graphnet denoise`: denoise image files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypedDict

import click
from rich.console import Console
from rich.progress import Progress

import graphnet
from graphnet.cli import compile_options, make_options
from graphnet.errors import DataError
from graphnet_denoise.commands.options import MEMORY, OF_PREDICTION, self_ensemble_option
from graphnet_denoise.images import (
    WRITE_SUFFIXES,
    Picture,
    list_images,
    read_picture,
    write_picture,
)
from graphnet_denoise.restoring import Restorer
from graphnet_denoise.zeroshot import STEPS, restore_alone

BLIND = Path(__file__).parents[1] / "models" / "blind.safetensors"
"""The model that comes with the command."""

_MODELS = (".safetensors", ".yaml", ".yml")
_NAMED = 3  # so many files are named one by one


@click.command()
@click.argument(
    "files", metavar="[MODEL] INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="An image file if there is one INPUT, else a folder, which is made if it does not exist. By "
    "default, the result of photo.jpg is photo-denoised.png in the same folder.",
)
@click.option(
    "--noise-level",
    metavar="STD",
    type=click.FloatRange(min=0),
    help="The noise's standard deviation in 255ths, for a model that takes it as an input.",
)
@click.option(
    "--zero-shot",
    is_flag=True,
    help="Train the network of MODEL (.yaml) on each image itself; no other data is needed.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help=f"With --zero-shot: how many steps to train.  [default: {STEPS}]",
)
@self_ensemble_option
@compile_options(*OF_PREDICTION, device="auto", memory=MEMORY)
def denoise(
    files: tuple[Path, ...],
    output: Path | None,
    noise_level: float | None,
    zero_shot: bool,
    steps: int | None,
    self_ensemble: bool,
    options: Mapping[str, object],
) -> None:
    """Denoise images of any size with a trained MODEL (.safetensors), or with --zero-shot.

    Without MODEL, the command uses its included model, for Gaussian noise of unknown strength on photos.
    With --zero-shot, MODEL is a network (.yaml), which is trained on each image itself.
    INPUT is an image (PNG, JPEG, TIFF, WebP, BMP) or a folder of images. The ending of OUT decides whether a
    result is PNG or JPEG. In a folder, results keep the names of their images; other kinds of files become
    PNG.

    For a model for colour, a grey image is repeated over the channels, and noise is added to each channel so
    that the noise of the channels is independent. Its level is estimated from the image. The result is the
    mean of the channels, in grey.

    An image that needs more than --memory is denoised in tiles, with the same result; 100% means no bound.
    """
    if steps is not None and not zero_shot:
        raise DataError("--steps says how long --zero-shot trains. Add that, or leave --steps out.")
    steps = steps or STEPS
    model, inputs = split_model(files)
    sources = find_sources(inputs)
    targets = plan_outputs(inputs, sources, output)
    network = graphnet.load(model)
    restore: Restore
    where: _Where = {"options": make_options(options), "self_ensemble": self_ensemble}
    if not zero_shot:
        restorer = Restorer.of(network, **where)
        restore = partial(_by_weights, restorer, noise_level)
    elif network.weights is None and noise_level is None:
        restore = partial(restore_alone, network, steps=steps, **where)
    else:
        raise DataError(
            f"{model}: --zero-shot trains a network from its description (.yaml), without weights and "
            f"without a noise level. Leave out --zero-shot, or the weights and the level."
        )
    for folder in {target.parent for target in targets}:
        _make_folder(folder)

    replaced = {target for target in targets if target.exists()}
    console = Console(stderr=True)
    jobs = list(zip(sources, targets, strict=True))
    total = len(jobs) * (steps if zero_shot else 1)
    with Progress(console=console, disable=not console.is_terminal or total == 1) as bar:
        task = bar.add_task("Denoising", total=total)
        for source, target in jobs:
            picture = read_picture(source)
            if picture.depth == 16 and (
                picture.pixels.itemsize == 1 or target.suffix.lower() != ".png"
            ):
                click.echo(f"{source}: has 16 bits a channel, {target} gets 8", err=True)
            write_picture(target, restore(picture, advance=lambda: bar.advance(task)))
    click.echo(_written(targets, replaced), err=True)


def _written(targets: Sequence[Path], replaced: Collection[Path]) -> str:
    """Say which files were written, each by its name if there are few, and which replaced an older file."""
    if len(targets) <= _NAMED:
        over = dict.fromkeys(replaced, " in place of an older file")
        return "\n".join(f"wrote {target}{over.get(target, '')}" for target in targets)
    folders = ", ".join(sorted({str(target.parent) for target in targets}))
    over_many = f", {len(replaced)} in place of older files" if replaced else ""
    return f"wrote {len(targets)} images into {folders}{over_many}"


def split_model(files: Sequence[Path]) -> tuple[Path, Sequence[Path]]:
    """Return the model and the images; without a file that has the ending of a model, the included model.

    Raises DataError if nothing is left to denoise.
    """
    model, inputs = (files[0], files[1:]) if files[0].suffix in _MODELS else (BLIND, files)
    if not inputs:
        raise DataError(
            f"there is no image to denoise with {model}. Give one, or a folder of images."
        )
    return model, inputs


class _Where(TypedDict):
    """How a model computes, whether it is trained already or not."""

    options: graphnet.CompileOptions
    self_ensemble: bool


class Restore(Protocol):
    """A function that denoises a picture; it calls `advance` after each piece of work."""

    def __call__(self, picture: Picture, *, advance: Callable[[], None]) -> Picture: ...


def _by_weights(
    restorer: Restorer, noise_level: float | None, picture: Picture, *, advance: Callable[[], None]
) -> Picture:
    restored = restorer.restore_picture(picture, noise_level=noise_level)
    advance()
    return restored


def find_sources(inputs: Sequence[Path]) -> list[Path]:
    """Return all images among the inputs and in their folders, in the given order.

    Raises DataError, before any work is done, if a file or folder does not exist.
    """
    missing = [str(path) for path in inputs if not path.exists()]
    if missing:
        raise DataError(f"there is no such file or folder: {', '.join(missing)}. Check the names.")
    return [
        source for path in inputs for source in (list_images(path) if path.is_dir() else [path])
    ]


def plan_outputs(
    inputs: Sequence[Path], sources: Sequence[Path], output: Path | None
) -> list[Path]:
    """Return the path of the result of each source; without `output`, it is next to the source.

    Raises DataError if `output` does not fit the number of inputs, if two results would have the same name,
    or if a result would overwrite an input.
    """
    if output is None:
        targets = [_beside(path) for path in inputs]
        return _checked(targets, sources)
    one_image = len(inputs) == 1 and not inputs[0].is_dir()
    as_file = output.suffix.lower() in WRITE_SUFFIXES and not output.is_dir()
    if as_file and not one_image:
        raise DataError(
            f"{output}: several images cannot become one file. Give a folder, such as "
            f"-o {output.with_suffix('')}."
        )
    if not as_file and (output.is_file() or (one_image and output.suffix and not output.is_dir())):
        raise DataError(
            f"{output}: expected a folder, or a file that ends in {', '.join(WRITE_SUFFIXES)}, "
            f"found {output.suffix or 'a file without an ending'!r}."
        )
    targets = [output] if as_file else [output / _result_name(source) for source in sources]
    return _checked(targets, sources)


def _beside(path: Path) -> Path:
    if path.is_dir():
        raise DataError(
            f"{path}: say where the results of a folder go, such as -o {path}-denoised."
        )
    return path.with_name(f"{path.stem}-denoised.png")


def _checked(targets: list[Path], sources: Sequence[Path]) -> list[Path]:
    """Return the targets; raises DataError if one is an input, or the result of two inputs."""
    origins = {source.resolve(): source for source in sources}
    first: dict[Path, Path] = {}
    for source, target in zip(sources, targets, strict=True):
        place = target.resolve()
        if place in origins:
            raise DataError(
                f"{target}: is an input, and would be overwritten by the result of {source}. Give "
                f"another place with -o."
            )
        if place in first:
            raise DataError(
                f"{target}: would be the result of both {first[place]} and {source}. Denoise them "
                f"into two folders."
            )
        first[place] = source
    return targets


def _result_name(source: Path) -> str:
    return source.name if source.suffix.lower() in WRITE_SUFFIXES else f"{source.name}.png"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: the folder cannot be made ({error.strerror}). Give another place with -o."
        ) from error
