"""Measure a denoiser on photos with Gaussian noise, and compare it with published ones.

The noise is floating point and not clipped; an image gets the same noise in each measurement. graphnet
computes PSNR and SSIM, and scikit-image computes them again, as an independent check. The results are in
runs/quality: report.json and strip.png, a part of one image: noisy, denoised, clean, one row for each
strength of noise.

    python examples/quality.py cbsd68                            # the model that comes with graphnet denoise
    python examples/quality.py cbsd68 --model model.safetensors --std 15 25 50
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graphnet_denoise import metrics
from graphnet_denoise.gallery import WholeImages
from graphnet_denoise.models import MODELS
from graphnet_denoise.noise import parse_noise
from graphnet_denoise.restoring import Restorer, Settings
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

import graphnet as gn
from graphnet.errors import GraphnetError

FOLDER = Path("runs/quality")
SHOWN_SIZE = 160
_WIDE = 120  # characters, where there is no terminal
# Mean PSNR on CBSD68: Zhang et al. 2021 ("Plug-and-play image restoration", DRUNet), and Zamir et al. 2022.
PUBLISHED = {
    "CBM3D": {15: 33.52, 25: 30.71, 50: 27.38},
    "DnCNN": {15: 33.90, 25: 31.24, 50: 27.95},
    "DRUNet": {15: 34.30, 25: 31.69, 50: 28.51},
    "Restormer": {15: 34.40, 25: 31.79, 50: 28.60},
}


def main() -> int:
    """Measure the model at each strength, and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path, help="a folder of clean images")
    parser.add_argument(
        "--model", type=Path, default=MODELS["gaussian"], help="else the included one"
    )
    parser.add_argument(
        "--std", type=int, nargs="+", default=[15, 25, 50], help="strengths, in 255ths"
    )
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        restorer = Restorer.of(gn.load(options.model), Settings(gn.CompileOptions(device="cpu")))
        rows = [measure(restorer, options.images, std) for std in options.std]
    except GraphnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report = {"model": options.model.name, "images": options.images.name, "rows": rows}
    (FOLDER / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    draw(restorer, options.images, options.std)
    console = Console(width=None if sys.stdout.isatty() else _WIDE, markup=False)
    console.print(as_table(rows, f"{options.model.name} on {options.images}"))
    print(f"see {FOLDER}/report.json and strip.png")
    return 0


def gallery(images: Path, std: int) -> Any:
    """The images with noise of this strength."""
    return WholeImages(path=str(images), noise=parse_noise(f"gaussian:{std}")).load()


def measure(restorer: Restorer, images: Path, std: int) -> dict[str, Any]:
    """The means over the images, by graphnet and by scikit-image, and the largest difference of any image."""
    found: dict[str, list[float]] = {}
    noisy_images = gallery(images, std)
    seconds = 0.0
    for index in track(range(len(noisy_images)), description=f"noise {std}"):
        noisy, clean = (tensor[None] for tensor in noisy_images[index])
        started = time.perf_counter()
        denoised = restorer.restore(noisy)
        seconds += time.perf_counter() - started
        ours = {
            "noisy_db": metrics.psnr(noisy, clean),
            "psnr_db": metrics.psnr(denoised, clean),
            "ssim": metrics.ssim(denoised, clean),
        }
        for name, value in (ours | by_skimage(denoised, clean)).items():
            found.setdefault(name, []).append(value)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    apart = {
        f"{name}_apart": max(
            abs(a - b) for a, b in zip(found[name], found[f"skimage_{name}"], strict=True)
        )
        for name in ("psnr_db", "ssim")
    }
    return {"std": std, "images": len(noisy_images), **means, **apart, "seconds": seconds}


def by_skimage(denoised: Tensor, clean: Tensor) -> dict[str, float]:
    """The same numbers of scikit-image."""
    x, y = (tensor[0].permute(1, 2, 0).double().numpy() for tensor in (denoised, clean))
    return {
        "skimage_psnr_db": float(peak_signal_noise_ratio(y, x, data_range=1.0)),
        "skimage_ssim": float(
            structural_similarity(
                y,
                x,
                data_range=1.0,
                channel_axis=2,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
        ),
    }


def as_table(rows: list[dict[str, Any]], title: str) -> Table:
    """One row for each strength; published figures are those of CBSD68."""
    table = Table(title=Text(title), title_justify="left")
    columns = ("noise", "noisy, dB", "denoised, dB", "SSIM", "scikit-image: dB", "SSIM")
    for heading in (*columns, *PUBLISHED):
        table.add_column(heading, justify="right")
    for row in rows:
        values = [row["noisy_db"], row["psnr_db"], row["ssim"]]
        values += [row["skimage_psnr_db"], row["skimage_ssim"]]
        digits = (2, 2, 4, 2, 4)
        cells = [f"{value:.{d}f}" for value, d in zip(values, digits, strict=True)]
        published = [
            f"{known[row['std']]:.2f}" if row["std"] in known else ""
            for known in PUBLISHED.values()
        ]
        table.add_row(str(row["std"]), *cells, *published)
    return table


def draw(restorer: Restorer, images: Path, stds: list[int]) -> None:
    """The middle of the first image: a row of noisy, denoised and clean for each strength."""
    rows = []
    for std in stds:
        noisy, clean = (tensor[None] for tensor in gallery(images, std)[0])
        top, left = ((side - SHOWN_SIZE) // 2 for side in clean.shape[2:])
        row = torch.cat([noisy, restorer.restore(noisy), clean])
        part = row[:, :, max(top, 0) :, max(left, 0) :][:, :, :SHOWN_SIZE, :SHOWN_SIZE]
        rows.append(torch.cat(list(part), dim=2))
    pixels = torch.cat(rows, dim=1).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    Image.fromarray(pixels.numpy().repeat(2, 0).repeat(2, 1)).save(FOLDER / "strip.png")


if __name__ == "__main__":
    sys.exit(main())
