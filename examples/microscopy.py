"""Denoise microscopy images one by one, each with a network that sees only this noisy image.

FILE.npz holds `noisy` and `average`, uint8 or float (N, H, W): images of one exposure, and the averages of
many exposures, against which the results are measured. denoisers/microscopy-train.yaml trains each network.
The baselines are scikit-image's non-local means, wavelets and total variation, with parameters that are
calibrated on the noisy image alone (calibrate_denoiser, which is J-invariant). Exposures differ in gain and
offset, so PSNR is measured after the best affine fit of each image to its average. The results are in
runs/microscopy: report.json, and strip.png, a part of the first image: noisy, the best baseline, graphnet,
average.

    python examples/microscopy.py FILE.npz
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graphnet_denoise.images import as_unit
from graphnet_denoise.restoring import Restorer, Settings
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from skimage.restoration import (
    calibrate_denoiser,
    denoise_nl_means,
    denoise_tv_chambolle,
    denoise_wavelet,
    estimate_sigma,
)

import graphnet as gn
from graphnet.errors import DataError, GraphnetError
from graphnet.sdk import default_registry
from graphnet.training import Trainer, read_job

FOLDER = Path("runs/microscopy")
CONFIG = Path(__file__).parent / "denoisers" / "microscopy-train.yaml"
SHOWN_SIZE = 192
OURS = "graphnet"
_WIDE = 120  # characters, where there is no terminal
Pixels = NDArray[np.float32]


def main() -> int:
    """Denoise each image in all ways, and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="an .npz with noisy and average, (N, H, W)")
    parser.add_argument("--images", type=int, help="only so many, the first ones")
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a setting of the training, as for graphnet train",
    )
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        noisy, average = read(options.file)
        chosen = range(len(noisy))[: options.images]
        rows = []
        for i in track(chosen, description="images"):
            row, restored = measure(noisy[i], average[i], options.settings)
            rows.append(row)
            if i == chosen[0]:
                draw(noisy[i], average[i], row, restored)
            print(f"image {i}: {said(row)}", flush=True)
    except GraphnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report(rows, options.file)
    return 0


def read(file: Path) -> tuple[Pixels, Pixels]:
    """Noisy images and averages in 0..1. Raises DataError for a file without them."""
    try:
        with np.load(file) as arrays:
            noisy, average = (arrays[name] for name in ("noisy", "average"))
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{file}: expected an .npz with noisy and average; {error}") from error
    if noisy.ndim != 3 or noisy.shape != average.shape:
        raise DataError(
            f"{file}: expected noisy and average as (N, H, W), found {noisy.shape} and {average.shape}"
        )
    noisy, average = (
        as_unit(pixels.astype(np.float32) if pixels.dtype.kind == "f" else pixels)
        for pixels in (noisy, average)
    )
    return noisy, average


def psnr(image: Pixels, average: Pixels) -> float:
    """PSNR in dB, for a peak of 1, of the affine function of the image that comes closest to the average."""
    x, y = (pixels.astype(np.float64).ravel() for pixels in (image, average))
    x, y = x - x.mean(), y - y.mean()
    gain = (x @ y) / (x @ x)
    return float(-10 * np.log10(np.mean((gain * x - y) ** 2)))


def measure(
    noisy: Pixels, average: Pixels, settings: list[str]
) -> tuple[dict[str, float], dict[str, Pixels]]:
    """The PSNR of each way to denoise an image, the seconds of the training, and the images."""
    restored = {"noisy": noisy}
    for name, (denoiser, grid) in others(noisy).items():
        restored[name] = calibrate_denoiser(noisy, denoiser, grid)(noisy)
    started = time.perf_counter()
    restored[OURS] = by_network(noisy, settings)
    seconds = time.perf_counter() - started
    row = {name: psnr(image, average) for name, image in restored.items()}
    return row | {"seconds": seconds}, restored


def others(noisy: Pixels) -> Mapping[str, tuple[Callable[..., Pixels], dict[str, Any]]]:
    """scikit-image's denoisers, and what their parameters are chosen from; sigma is its estimate."""
    sigma = estimate_sigma(noisy)
    return {
        "non-local means": (
            functools.partial(denoise_nl_means, fast_mode=True),
            {
                "h": np.array([0.6, 0.9, 1.2, 1.6, 2.0, 2.5]) * sigma,
                "sigma": [0.0, sigma],
                "patch_size": [5, 7],
                "patch_distance": [6],
            },
        ),
        "wavelets": (
            functools.partial(denoise_wavelet, rescale_sigma=True),
            {
                "sigma": np.arange(0.4, 3.1, 0.2) * sigma,
                "wavelet": ["db1", "db2", "sym4"],
                "method": ["BayesShrink", "VisuShrink"],
            },
        ),
        "total variation": (
            functools.partial(denoise_tv_chambolle, max_num_iter=200),
            {"weight": np.arange(0.3, 6.0, 0.3) * sigma},
        ),
    }


def by_network(noisy: Pixels, settings: list[str]) -> Pixels:
    """The image by a network that is trained on it alone; the mean over its flips and turns."""
    with tempfile.TemporaryDirectory() as folder:
        file, weights = Path(folder) / "image.npz", Path(folder) / "model.safetensors"
        np.savez(file, noisy=noisy[None, None])
        own = [f"data.train.patches.path={file}", *settings]
        trainer = Trainer(read_job(CONFIG, settings=own, registry=default_registry()))
        for _ in trainer.run():
            pass
        trainer.program.save(str(weights))
        restorer = Restorer.of(gn.load(weights), Settings(self_ensemble=True))
    return restorer.restore(torch.from_numpy(noisy)[None, None])[0, 0].numpy()


def said(row: Mapping[str, float]) -> str:
    """The numbers of an image in words."""
    decibels = ", ".join(f"{name} {value:.2f}" for name, value in row.items() if name != "seconds")
    return f"{decibels} dB, {row['seconds']:.0f} s"


def report(rows: list[dict[str, float]], file: Path) -> None:
    """Print the means over the images, and write them with everything else to report.json."""
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    best = best_of(means)
    found = {
        "file": file.name,
        "images": len(rows),
        "mean": means,
        "best_other": best,
        "rows": rows,
    }
    (FOLDER / "report.json").write_text(json.dumps(found, indent=2) + "\n")
    title = Text(f"{len(rows)} images of {file.name}: mean PSNR, dB")
    table = Table(title=title, title_justify="left")
    for name in means:
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:.2f}" for value in means.values()))
    Console(width=None if sys.stdout.isatty() else _WIDE, markup=False).print(table)
    print(
        f"{means[OURS] - means[best]:+.2f} dB against {best}. See {FOLDER}/report.json and strip.png"
    )


def best_of(row: Mapping[str, float]) -> str:
    """The best of scikit-image's."""
    return max(
        (name for name in row if name not in ("noisy", OURS, "seconds")), key=lambda n: row[n]
    )


def draw(
    noisy: Pixels, average: Pixels, row: Mapping[str, float], restored: Mapping[str, Pixels]
) -> None:
    """The middle of an image: noisy, the best of the others, graphnet's, average; all of one brightness."""
    shown = [noisy, restored[best_of(row)], restored[OURS], average]
    top, left = ((side - SHOWN_SIZE) // 2 for side in noisy.shape)
    low, high = np.percentile(average, [0.5, 99.8])
    parts = []
    for image in shown:
        x = (image - image.mean()) / (image.std() + 1e-12) * average.std() + average.mean()
        part = x[max(top, 0) :, max(left, 0) :][:SHOWN_SIZE, :SHOWN_SIZE]
        parts.append(np.clip((part - low) / (high - low), 0, 1) ** 0.6)
    pixels = np.round(np.concatenate(parts, axis=1) * 255).astype(np.uint8)
    Image.fromarray(pixels.repeat(2, 0).repeat(2, 1)).save(FOLDER / "strip.png")


if __name__ == "__main__":
    sys.exit(main())
