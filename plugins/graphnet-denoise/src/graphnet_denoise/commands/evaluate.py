"""`graphnet evaluate`: measure how close a model's images are to the clean ones."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

import graphnet
from graphnet.cli import compile_options, make_options
from graphnet.errors import DataError, DescriptionError
from graphnet.sdk import DataSet, Gallery, Pairs, Stream, default_registry
from graphnet.system import write_text
from graphnet_denoise.commands.options import OF_PREDICTION, self_ensemble_option
from graphnet_denoise.gallery import NoisyGallery, WholeImages
from graphnet_denoise.noise import parse_noise
from graphnet_denoise.photos import Photos
from graphnet_denoise.restoring import Restorer
from graphnet_denoise.scoring import Comparison, compare

EVALUATION_PAIRS = 1000
"""How many pairs are sampled when DATA is a plain folder of photos."""

_EXAMPLE = '{"photos": {"path": "photos", "target": "clean", "pairs": 500}}'


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data")
@click.option(
    "--json", "report", metavar="FILE", type=click.Path(path_type=Path), help="Also write JSON."
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
@self_ensemble_option
@compile_options(*OF_PREDICTION, device="auto")
def evaluate(
    model: Path,
    data: str,
    report: Path | None,
    batch_size: int | None,
    noise: str | None,
    self_ensemble: bool,
    options: Mapping[str, object],
) -> None:
    """Compare the images that a trained MODEL (.safetensors) makes with the clean images of DATA.

    DATA is a file or folder of pairs, or a folder of photos (1000 noisy-clean pairs are sampled
    from it), or a data set as JSON: '{"photos": {"path": "photos", "target": "clean", "seed": 1}}'.
    With --noise it is a folder of clean images of any sizes. Noise is added in floating point and not
    clipped. An image gets the same noise in each measurement.

    PSNR (mean) is the mean of the images' PSNR, as papers quote it; PSNR (pooled) is the PSNR of
    the error over all pixels. The model's images are clamped to 0..1. A model for colour takes grey images as
    in `graphnet denoise`.
    """
    started = time.perf_counter()
    restorer = Restorer.of(
        graphnet.load(model), options=make_options(options), self_ensemble=self_ensemble
    )
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
    result = compare(restorer, pairs, batch_size=batch_size)
    elapsed_s = time.perf_counter() - started
    if report is not None:
        record: dict[str, Any] = {"model": str(model), "data": data, "noise": noise}
        record |= {"self_ensemble": self_ensemble}
        record |= {**result.record(), "elapsed_s": elapsed_s}
        write_text(report, json.dumps(record, indent=2, allow_nan=False) + "\n")
    with_noise = f" with {noise}" if noise else ""
    Console().print(as_table(result, title=f"{result.pairs} images of {data}{with_noise}"))


def open_data(data: str) -> DataSet:
    """Load the data set that `data` names: a path, or JSON {name: {field: value}}.

    From a folder of photos, noisy-clean pairs are sampled: scores against noisy targets say little.
    """
    if not data.lstrip().startswith("{"):
        dataset = default_registry().dataset(data)
        if isinstance(dataset, Photos):
            return dataclasses.replace(dataset, target="clean", pairs=EVALUATION_PAIRS)
        return dataset
    try:
        form = json.loads(data)
    except ValueError as error:
        raise DataError(
            f"DATA: expected a path, or JSON such as {_EXAMPLE}, found {data!r} ({error})."
        ) from error
    return default_registry().dataset(form)


def noisy_images(path: str, noise: str, restorer: Restorer) -> NoisyGallery:
    """Load the images at `path` with this noise, and with its level if the model takes it."""
    try:
        whole = WholeImages(path=path, noise=parse_noise(noise))
        gallery = whole.load()
        told = {gallery.channels + 1, 3 + 1}  # a colour model takes grey images too
        if restorer.model.input_channels in told:
            whole = dataclasses.replace(whole, noise_level_map=True)
    except DescriptionError as error:
        raise DataError(f"--noise {noise}: {error}") from error
    return NoisyGallery(whole, gallery.images)


def as_table(result: Comparison, *, title: str) -> Table:
    """Show the scores as rows, noisy beside denoised; the caption says which are left out of a mean."""
    noisy, denoised = result.noisy, result.denoised
    # Text, since a path in brackets would be read as markup.
    table = Table(title=Text(title), title_justify="left", caption_justify="left")
    table.add_column("")
    for heading in ("noisy", "denoised", "gain"):
        table.add_column(heading, justify="right")
    table.add_row("PSNR (mean of images), dB", *_cells(noisy.psnr_db, denoised.psnr_db, 2))
    table.add_row("PSNR (pooled), dB", *_cells(noisy.psnr_pooled_db, denoised.psnr_pooled_db, 2))
    if noisy.ssim is not None and denoised.ssim is not None:
        table.add_row("SSIM (Gaussian 11 x 11)", *_cells(noisy.ssim, denoised.ssim, 4))
    if result.exact:
        table.caption = (
            f"{result.exact} noisy images equal their target and are left out of the first row."
        )
    return table


def _cells(noisy: float, denoised: float, digits: int) -> list[str]:
    gain = 0.0 if denoised == noisy else denoised - noisy  # infinity less infinity is no number
    return [f"{noisy:.{digits}f}", f"{denoised:.{digits}f}", f"{gain:+.{digits}f}"]
