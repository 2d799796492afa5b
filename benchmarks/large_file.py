"""An image larger than memory: `python -m benchmarks.large_file FOLDER`.

A grey TIFF of 40,000 x 40,000 pixels of 16 bits is written into FOLDER, which needs 7 GB, and `graphnet
denoise` denoises it in tiles, from file to file. Then the time and the most memory of that process are
printed, and the difference between its result and parts of the image that are denoised whole: a part is much
higher or wider than a tile, so it crosses the seams between tiles. FOLDER is made, and stays.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import numpy as np
import tifffile
from graphnet_denoise import denoise
from numpy.typing import NDArray
from rich.progress import track

from benchmarks import processes

MODEL: Final = "gaussian"
ROWS = 1_000  # of the image, made at a time
MARGIN = 512  # pixels around a part, farther than the network sees
SIGMA = 2_000  # of 65,535
PARTS = ((7_000, 1_000), (1_000, 7_000))  # heights and widths


def write_image(file: Path, side: int) -> None:
    """Write waves of many lengths with noise, some rows at a time."""
    image = tifffile.memmap(file, shape=(side, side), dtype=np.uint16, bigtiff=True)
    random = np.random.default_rng(0)
    x = np.arange(side, dtype=np.float32)
    for top in track(range(0, side, ROWS), "writing the image", transient=True):
        y = np.arange(top, min(top + ROWS, side), dtype=np.float32)[:, None]
        clean = 32_768 + 12_000 * (np.sin(x / 7) * np.cos(y / 11) + np.sin((x + y) / 301))
        noisy = clean + SIGMA * random.standard_normal(clean.shape, dtype=np.float32)
        image[top : top + ROWS] = noisy.clip(0, 65_535).astype(np.uint16)
        image.flush()


def difference(
    image: NDArray[np.uint16], result: NDArray[np.uint16], height: int, width: int
) -> tuple[int, float]:
    """A part's largest difference from the whole computation, and the share of pixels that differ at all."""
    rows, columns = (
        _middle(side, part) for side, part in zip(image.shape, (height, width), strict=True)
    )
    around = [slice(max(0, one.start - MARGIN), one.stop + MARGIN) for one in (rows, columns)]
    whole = denoise(
        np.array(image[*around]), "YX", noise=MODEL, value_range=(0, 65_535), memory="100%"
    )
    inside = [
        slice(one.start - wide.start, one.stop - wide.start)
        for one, wide in zip((rows, columns), around, strict=True)
    ]
    apart = np.abs(whole[*inside].astype(np.int64) - result[rows, columns])
    return int(apart.max()), float((apart > 0).mean())


def _middle(side: int, part: int) -> slice:
    start = (side - part) // 2 // 64 * 64  # where the network's own grid has a line
    return slice(start, start + part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--side", type=int, default=40_000, help="pixels of the image's height and width"
    )
    parser.add_argument("--memory", help="of graphnet denoise; its default without it")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    image, result = given.folder / "image.tif", given.folder / "result.tif"
    write_image(image, given.side)
    command = [sys.executable, "-m", "graphnet", "denoise", str(image), "--overwrite"]
    command += ["--noise", MODEL, "-o", str(result)]
    command += [] if given.memory is None else ["--memory", given.memory]
    seconds, gib = processes.run(command)
    megapixels = given.side**2 / 1e6
    print(
        f"{megapixels:,.0f} megapixels: {seconds:,.0f} s, {seconds / megapixels:.3f} s each, "
        f"{gib:.2f} GiB at most"
    )
    noisy, clean = (tifffile.memmap(file, mode="r") for file in (image, result))
    for part in PARTS:
        height, width = (min(length, given.side) for length in part)
        apart, share = difference(noisy, clean, height, width)
        print(
            f"{height:,} x {width:,} pixels in the middle, beside the same part denoised whole: "
            f"they differ by at most {apart} of 65,535, at {100 * share:.3f} % of the pixels"
        )


if __name__ == "__main__":
    main()
