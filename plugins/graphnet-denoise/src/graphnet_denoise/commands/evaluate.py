"""`graphnet evaluate`: how close images are to clean ones, or how good a model is without them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import click
import torch
from rich.progress import Progress
from torch import Tensor

import graphnet
from graphnet.cli import compile_options, make_console, make_options
from graphnet.errors import DataError, DescriptionError
from graphnet.sdk import DataSet, Gallery, Pairs, Stream, default_registry
from graphnet.system import write_text
from graphnet_denoise.applying import restore_pixels
from graphnet_denoise.commands.options import (
    MEMORY,
    OF_PREDICTION,
    SOME_FAILED,
    self_ensemble_option,
    split_model,
)
from graphnet_denoise.commands.tables import images_table, scores_table
from graphnet_denoise.comparing import FileComparison, Restore, compare_files
from graphnet_denoise.gallery import NoisyGallery, WholeImages
from graphnet_denoise.learning.frames import sources_in
from graphnet_denoise.learning.judging import judge
from graphnet_denoise.matching import FilePair, match_folders, pairs_in
from graphnet_denoise.noise import parse_noise
from graphnet_denoise.photos import Photos
from graphnet_denoise.restoring import Restorer, Settings
from graphnet_denoise.scoring import Adjustment, Comparison, Restores, compare
from graphnet_denoise.shipped import Shipped
from graphnet_denoise.wording import not_done

EVALUATION_PAIRS = 1000
"""How many pairs are sampled when DATA is a plain folder of photos."""

_EXAMPLE = '{"photos": {"path": "photos", "target": "clean", "pairs": 500}}'


@click.command()
@click.argument("given", metavar="[MODEL] DATA [CLEAN]", nargs=-1, required=True)
@click.option(
    "--json",
    "report",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also write the scores as JSON.",
)
@click.option(
    "--csv",
    "rows",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also write the scores of each image as a row of CSV.",
)
@click.option("--images", "each", is_flag=True, help="Show the scores of each image.")
@click.option(
    "--crop",
    type=click.IntRange(min=0),
    default=0,
    metavar="PIXELS",
    help="Leave out this many pixels at each border.",
)
@click.option(
    "--affine",
    is_flag=True,
    help="Fit the gain and offset of each image to its target before measuring.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="How many images are denoised at a time; by default it depends on their size.",
)
@click.option(
    "--noise",
    metavar="NAME:NUMBER",
    help="DATA holds clean images: add this noise, such as gaussian:25 (std in 255ths), or JSON.",
)
@click.option(
    "--without-clean",
    is_flag=True,
    help="DATA holds noisy images only: measure how well hidden noisy pixels are predicted, what was "
    "removed, and how much flips change the result.",
)
@self_ensemble_option
@compile_options(*OF_PREDICTION, device="auto", memory=MEMORY)
def evaluate(
    given: tuple[str, ...],
    report: Path | None,
    rows: Path | None,
    each: bool,
    crop: int,
    affine: bool,
    batch_size: int | None,
    noise: str | None,
    without_clean: bool,
    self_ensemble: bool,
    options: Mapping[str, object],
) -> None:
    """Compare the images that a trained MODEL (.safetensors) makes with the clean images of DATA.

    Without MODEL, the command takes an included model for each image, by its noise. DATA is one of these:

    \b
    - a folder with two folders of images of the same names: noisy and clean, input and target,
      lq and gt, A and B, or the like; or pairs side by side, such as x_noisy.png and x_clean.png.
      The images may have any sizes and formats;
    - a folder of noisy images, followed by CLEAN, a folder of clean images of the same names;
    - an .npz or .npy file of pairs;
    - a folder of clean images, with --noise;
    - a folder of noisy images, with --without-clean;
    - a folder of photos: 1000 noisy-clean pairs are sampled from it;
    - a data set as JSON: '{"photos": {"path": "photos", "target": "clean", "seed": 1}}'.

    Two folders without a model are compared with each other. Of three, such as NOISY RESULTS CLEAN, the
    first two are compared with the third.

    PSNR (mean) is the mean of the images' PSNR, as papers quote it; PSNR (pooled) is the PSNR of the error
    over all pixels. Images that equal their target have no PSNR: they are counted. The range from black to
    white is that of the clean images' files, and the command says so if it is not that of their bits. Files
    that cannot be read or compared are reported, the others are measured, and the exit status is 1.
    """
    started = time.perf_counter()
    model, places = split_model(given)
    _check_places(places, model, noise=noise, without_clean=without_clean)
    adjustment = Adjustment(crop, affine)
    where = " ".join(places)
    restorer = None
    if model is not None or len(places) == 1:
        restorer = _restores(model, Settings(make_options(options), self_ensemble))
    record: dict[str, Any] = {"model": str(model or "included"), "data": where, "noise": noise}
    if without_clean:
        assert restorer is not None
        record |= _judge(restorer, Path(places[0]))
        _write_json(report, record, started)
        if record["left_out"]:
            raise click.exceptions.Exit(SOME_FAILED)
        return
    files = None if noise is not None else _file_pairs(places)
    remarks: Sequence[str] = ()
    left_out: Mapping[Path, str] = {}
    if files is not None:
        restore = None if restorer is None else partial(restore_pixels, restorer)
        compared = _compare_files(files, restore, adjustment)
        result, remarks, left_out = compared.scores, compared.remarks, compared.left_out
        for text in left_out.values():
            click.echo(f"error: {text}", err=True)
        record |= {"black": compared.range.low, "white": compared.range.high}
    else:
        assert restorer is not None
        result = _compare_data(where, noise, restorer, batch_size, adjustment)
    if restorer is None:
        record["model"] = None
    record |= {"self_ensemble": self_ensemble, "crop": crop, "affine": affine}
    record |= {**result.record(), "remarks": list(remarks), "left_out": [*left_out.values()]}
    _write_json(report, record, started)
    if rows is not None:
        write_text(rows, _as_csv(result))
    console = make_console()
    if each:
        console.print(images_table(result), soft_wrap=False)
    with_noise = f" with {noise}" if noise else ""
    title = f"{result.pairs} images of {where}{with_noise}"
    console.print(scores_table(result, title=title), soft_wrap=False)
    for remark in remarks:
        console.print(remark, highlight=False)
    if files is not None and left_out:
        click.echo(not_done([*left_out], len(files[0]), "compared"), err=True)
        raise click.exceptions.Exit(SOME_FAILED)


def _check_places(
    places: Sequence[str], model: Path | None, *, noise: str | None, without_clean: bool
) -> None:
    """Raise DataError for a number of arguments that has no meaning."""
    most = 1 if noise is not None or without_clean else 2 if model else 3
    if not 1 <= len(places) <= most:
        expected = {
            1: "one folder or file",
            2: "DATA, or NOISY and CLEAN",
            3: "one to three folders",
        }
        raise DataError(f"expected {expected[most]}, found {len(places)}.")
    if noise is not None and without_clean:
        raise DataError(
            "--noise needs clean images, and --without-clean noisy ones. Give one of them."
        )


@dataclass(frozen=True)
class _Included:
    """The included models, of which each image gets one by its noise."""

    shipped: Shipped
    takes_numbers: ClassVar[bool] = False

    def restore(self, images: Tensor, *, noise_level: float | None = None) -> Tensor:
        chosen = [(image, self.shipped.choose(image).restorer) for image in images]
        return torch.cat([one.restore(image[None]) for image, one in chosen])


def _restores(model: Path | None, settings: Settings) -> Restores:
    """The model, or the included ones if there is none."""
    if model is None:
        return _Included(Shipped(settings=settings))
    return Restorer.of(graphnet.load(model), settings)


def _judge(restorer: Restores, folder: Path) -> dict[str, Any]:
    """Measure a model on noisy images, say how good it is, and return the numbers."""
    found = sources_in(folder)
    for error in found.left_out:
        click.echo(f"left out {error}", err=True)
    judged = judge(restorer, [frame for source in found.files for frame in source.frames])
    for line in judged.lines():
        make_console().print(line, highlight=False)
    return {"without_clean": True, **judged.record(), "left_out": list(found.left_out)}


def _file_pairs(places: Sequence[str]) -> list[list[FilePair]] | None:
    """The files that are compared with clean ones, a list for each folder; None if DATA is no such folder."""
    folders = [Path(place) for place in places]
    if len(places) == 1:
        found = pairs_in(folders[0])
        return None if found is None else [found]
    return [match_folders(folder, folders[-1]) for folder in folders[:-1]]


def _compare_files(
    files: Sequence[Sequence[FilePair]], restore: Restore | None, adjustment: Adjustment
) -> FileComparison:
    console = make_console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("Comparing", total=len(files[0]))
        return compare_files(
            files[0],
            restore,
            others=files[1] if len(files) > 1 else None,
            adjustment=adjustment,
            advance=lambda: bar.advance(task),
        )


def _compare_data(
    data: str, noise: str | None, restorer: Restores, batch_size: int | None, adjustment: Adjustment
) -> Comparison:
    pairs = open_data(data).load() if noise is None else noisy_images(data, noise, restorer)
    if isinstance(pairs, Stream):
        raise DataError(
            f"{data}: makes other pairs in each epoch. Give pairs, or a folder of clean images and "
            f"--noise."
        )
    if not isinstance(pairs, (Pairs, Gallery)):
        raise DataError(
            f"{data}: is a torch Dataset, which a training reads. Give pairs, or a folder of clean images "
            f"and --noise."
        )
    return compare(restorer, pairs, batch_size=batch_size, adjustment=adjustment)


def open_data(data: str) -> DataSet:
    """Load the data set that `data` names: a path, or JSON {name: {field: value}}.

    From a folder of photos, noisy-clean pairs are sampled: scores against noisy targets say little. Raises
    DataError if the photos are too small for that.
    """
    if not data.lstrip().startswith("{"):
        dataset = default_registry().dataset(data)
        if isinstance(dataset, Photos):
            dataset.usable(
                "Give larger photos; or clean images with --noise gaussian:25; or noisy and clean images in "
                "two folders of these names"
            )
            return dataclasses.replace(dataset, target="clean", pairs=EVALUATION_PAIRS)
        return dataset
    try:
        form = json.loads(data)
    except ValueError as error:
        raise DataError(
            f"DATA: expected a path, or JSON such as {_EXAMPLE}, found {data!r} ({error})."
        ) from error
    return default_registry().dataset(form)


def noisy_images(path: str, noise: str, restorer: Restores) -> NoisyGallery:
    """Load the images at `path` with this noise, and with its level if the model takes it."""
    try:
        whole = WholeImages(path=path, noise=parse_noise(noise))
        gallery = whole.load()
        told = {gallery.channels + 1, 3 + 1}  # a colour model takes grey images too
        if isinstance(restorer, Restorer) and restorer.model.input_channels in told:
            whole = dataclasses.replace(whole, noise_level_map=True)
    except DescriptionError as error:
        raise DataError(f"--noise {noise}: {error}") from error
    return NoisyGallery(whole, gallery.images)


def _write_json(report: Path | None, record: Mapping[str, Any], started: float) -> None:
    if report is None:
        return
    record = {**record, "elapsed_s": time.perf_counter() - started}
    write_text(report, json.dumps(record, indent=2, allow_nan=False) + "\n")


def _as_csv(result: Comparison) -> str:
    """A row for each image; a PSNR that is infinite, or an SSIM that is undefined, is left empty."""
    records = [row.record() for row in result.images]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
