"""Compare denoisers on real pairs of photographs: `python -m benchmarks.photos FOLDER`.

FOLDER holds pairs: `NAME_real.JPG`, one exposure, and `NAME_mean.JPG`, the mean of many. The included model
of graphnet-denoise is compared with BM3D (`pip install bm3d`; left out, and said, if it is not there), which
gets scikit-image's estimate of the noise's deviation, and with scikit-image's denoisers, whose parameters
`calibrate_denoiser` sets for each image. The table shows the mean PSNR of the images, in dB, the mean gain,
and the gain of the image with the least.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graphnet_denoise.models import MODELS
from graphnet_denoise.restoring import Restorer
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from skimage import restoration

import graphnet as gn

Pixels = NDArray[np.float32]
"""(H, W, 3) in 0..1."""
Denoiser = Callable[[Pixels], Pixels]

_REAL, _MEAN = "_real", "_mean"
_SKIMAGE: Any = restoration  # without types


def read_pairs(folder: Path) -> list[tuple[str, Pixels, Pixels]]:
    """The pairs of a folder: a name, the noisy and the clean photograph."""
    files = sorted(folder.glob(f"*{_REAL}.*"))
    if not files:
        raise SystemExit(f"error: {folder}: expected files such as NAME{_REAL}.JPG, found none")
    return [
        (file.stem, _read(file), _read(file.with_name(file.name.replace(_REAL, _MEAN))))
        for file in files
    ]


def _read(file: Path) -> Pixels:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)


def by_model(file: Path) -> Denoiser:
    """The denoiser of a model file."""
    restorer = Restorer.of(gn.load(file))

    def denoise(noisy: Pixels) -> Pixels:
        restored = restorer.restore(torch.from_numpy(noisy).permute(2, 0, 1)[None])
        return restored[0].permute(1, 2, 0).numpy()

    return denoise


def by_bm3d() -> Denoiser | None:
    """BM3D for colour (Dabov et al. 2007) with an estimated deviation; None if the package is not there."""
    try:
        package = importlib.import_module("bm3d")
    except ImportError:
        return None

    def denoise(noisy: Pixels) -> Pixels:
        sigma = _SKIMAGE.estimate_sigma(noisy, channel_axis=-1, average_sigmas=True)
        return np.asarray(package.bm3d_rgb(noisy, sigma), np.float32)

    return denoise


def by_skimage() -> Mapping[str, Denoiser]:
    """scikit-image's denoisers; each is calibrated on the noisy image alone (Batson & Royer 2019)."""

    def calibrated(
        denoiser: Callable[..., Any], grid: Callable[[float], dict[str, Any]]
    ) -> Denoiser:
        def denoise(noisy: Pixels) -> Pixels:
            sigma = _SKIMAGE.estimate_sigma(noisy, channel_axis=-1, average_sigmas=True)
            part = noisy[:256, :256]  # calibration takes minutes for a whole photograph
            best = _SKIMAGE.calibrate_denoiser(part, denoiser, grid(sigma), extra_output=True)[1]
            parameters = best[0][int(np.argmin(best[1]))]
            return np.asarray(denoiser(noisy, **parameters), np.float32)

        return denoise

    return {
        "non-local means": calibrated(
            functools.partial(
                _SKIMAGE.denoise_nl_means, fast_mode=True, channel_axis=-1, patch_distance=6
            ),
            lambda sigma: {"h": np.array([0.6, 0.9, 1.2, 1.6, 2.5]) * sigma, "patch_size": [5, 7]},
        ),
        "wavelets": calibrated(
            functools.partial(_SKIMAGE.denoise_wavelet, rescale_sigma=True, channel_axis=-1),
            lambda sigma: {
                "sigma": np.array([0.5, 0.8, 1.2, 2.0, 3.0]) * sigma,
                "wavelet": ["db2", "sym4"],
                "convert2ycbcr": [True],
            },
        ),
        "total variation": calibrated(
            functools.partial(_SKIMAGE.denoise_tv_chambolle, channel_axis=-1),
            lambda sigma: {"weight": np.array([0.3, 0.6, 1.0, 1.5, 2.5]) * sigma},
        ),
    }


def psnr(image: Pixels, clean: Pixels) -> float:
    """PSNR in dB of an image, rounded to 8 bits as in a file."""
    rounded = np.rint(np.clip(image, 0, 1) * 255) / 255
    return float(-10 * np.log10(np.mean((rounded - clean.astype(np.float64)) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the pairs")
    parser.add_argument(
        "--model", type=Path, default=MODELS["camera"], help="by default the included one"
    )
    parser.add_argument("--only", help="some of the denoisers, separated by commas")
    parser.add_argument("--json", type=Path, help="also write the numbers of each image")
    given = parser.parse_args()
    pairs = read_pairs(given.folder)
    denoisers: dict[str, Denoiser] = {"graphnet": by_model(given.model)}
    bm3d = by_bm3d()
    if bm3d is None:
        print("BM3D is left out: its package is missing (pip install bm3d)")
    else:
        denoisers["BM3D"] = bm3d
    denoisers |= by_skimage()
    if given.only:
        denoisers = {name: denoisers[name] for name in given.only.split(",")}
    before = np.array([psnr(noisy, clean) for _, noisy, clean in pairs])
    record: dict[str, Any] = {"noisy": before.tolist()}
    print(f"{len(pairs)} pairs, noisy {before.mean():.2f} dB")
    print("| denoiser | PSNR | mean gain | least gain | s an image |")
    print("|---|---:|---:|---:|---:|")
    for name, denoise in denoisers.items():
        started = time.perf_counter()
        after = np.array(
            [psnr(denoise(noisy), clean) for _, noisy, clean in track(pairs, name, transient=True)]
        )
        seconds = (time.perf_counter() - started) / len(pairs)
        gain = after - before
        print(
            f"| {name} | {after.mean():.2f} | {gain.mean():+.2f} | {gain.min():+.2f} | {seconds:.1f} |",
            flush=True,
        )
        record[name] = after.tolist()
    if given.json:
        given.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
