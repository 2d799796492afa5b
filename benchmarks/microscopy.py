"""Learn from noisy microscopy images alone: `python -m benchmarks.microscopy FILE.npz --careamics PYTHON`.

FILE.npz holds `noisy` and `average`, uint8 (N, H, W): images of one exposure, and the averages of many
exposures. The noisy ones become a folder of TIFFs of 16 bits, and nothing else is known. graphnet (`learn`,
then `denoise`) and CAREamics (its Noise2Void, in the environment of the Python that is given) get the same
minutes for training. The table shows the mean PSNR in dB after the best affine fit of each result to its
average, the seconds of everything, and the memory of the largest process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from benchmarks import processes

Pixels = NDArray[Any]
_SIDE = Path(__file__).with_name("careamics_side.py")


def run(commands: list[list[str]]) -> tuple[float, float]:
    """Run commands one after the other; return their seconds, and the GiB of the largest process."""
    found = [processes.run(command, quiet=True) for command in commands]
    return sum(seconds for seconds, _ in found), max(gib for _, gib in found)


def write_tiffs(folder: Path, images: Pixels) -> None:
    """Write images as a camera of 12 bits with an offset does."""
    folder.mkdir()
    for number, image in enumerate(images):
        tifffile.imwrite(folder / f"cell_{number:02}.tif", image.astype(np.uint16) * 16 + 100)


def read_tiffs(folder: Path) -> list[Pixels]:
    """Read the images of a folder in the order of their names."""
    return [tifffile.imread(file).astype(np.float64) for file in sorted(folder.glob("*.tif"))]


def mean_psnr(images: Sequence[Pixels], averages: Pixels) -> float:
    """The mean PSNR of images, after an affine fit of each to its average in 0..255."""
    found = []
    for image, average in zip(images, averages, strict=True):
        gain, offset = np.polyfit(image.ravel(), average.ravel(), 1)
        found.append(10 * np.log10(255**2 / np.mean((gain * image + offset - average) ** 2)))
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0, help="of training")
    parser.add_argument("--careamics", type=Path, help="the Python of an environment that has it")
    given = parser.parse_args()
    graphnet = [sys.executable, "-m", "graphnet"]
    minutes = f"{given.minutes:g}"
    with np.load(given.file) as arrays:
        exposures, averages = (arrays[name].astype(np.float64) for name in ("noisy", "average"))
    with tempfile.TemporaryDirectory() as folder:
        work, noisy = Path(folder), str(Path(folder) / "noisy")
        write_tiffs(Path(noisy), exposures)
        model, results, side = (
            str(work / name) for name in ("run/model.safetensors", "graphnet", "CAREamics")
        )
        learn = [*graphnet, "learn", noisy, "--minutes", minutes, "--run", str(work / "run")]
        contenders = {"graphnet": [learn, [*graphnet, "denoise", model, noisy, "-o", results]]}
        if given.careamics:
            other = [str(given.careamics), str(_SIDE), noisy, side, minutes, str(work / "other")]
            contenders["CAREamics"] = [other]
        print(f"noisy: {mean_psnr(exposures, averages):.2f} dB")
        print("| contender | PSNR | s in all | GiB |")
        print("|---|---:|---:|---:|")
        for name, commands in contenders.items():
            seconds, gibibytes = run(commands)
            psnr = mean_psnr(read_tiffs(work / name), averages)
            print(f"| {name} | {psnr:.2f} | {seconds:.0f} | {gibibytes:.2f} |", flush=True)


if __name__ == "__main__":
    main()
