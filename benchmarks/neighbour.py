"""Time commands beside a program that keeps a processor busy: `python -m benchmarks.neighbour`.

`graphnet denoise` of 30 small images and the first steps of a training run alone and beside a busy process,
in turn, with one thread and with two. Medians of whole processes, and their ratios. A process that waits for
its threads by spinning would lose much more than the processor time that the neighbour takes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

BUSY = "while True: pass"
TRAINING = """
model: {model}
data: {{train: {pairs}}}
loss: mse
optimizer: {{sgd: {{lr: 1.0}}}}
epochs: 10
batch_size: 16
device: cpu
executor: eager
"""
MODEL = Path(__file__).parents[1] / "examples" / "denoisers" / "unet-denoiser.yaml"


@contextmanager
def neighbour() -> Iterator[None]:
    """A process of one thread that is always busy."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def prepare(folder: Path) -> dict[str, Callable[[int], list[str]]]:
    """Write images and a training file; returns for each command its arguments in round N."""
    draw = np.random.default_rng(0)
    images = folder / "images"
    images.mkdir()
    for number in range(30):
        pixels = draw.integers(0, 256, (192, 192, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    pairs = draw.integers(0, 256, (160, 3, 64, 64), dtype=np.uint8)
    np.savez(folder / "pairs.npz", noisy=pairs, clean=pairs)
    training = folder / "train.yaml"
    training.write_text(TRAINING.format(model=MODEL, pairs=folder / "pairs.npz"))
    return {
        "denoise 30 images": lambda n: ["denoise", str(images), "-o", str(folder / f"out{n}")],
        "train 100 steps": lambda n: ["train", str(training), "--run", str(folder / f"run{n}")],
    }


def seconds(arguments: list[str], threads: int) -> float:
    """The wall time of a command."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "graphnet", *arguments], env=env, capture_output=True, check=True
    )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        commands, number = prepare(Path(name)), 0
        for title, arguments in commands.items():
            for threads in sorted({1, min(2, os.cpu_count() or 1)}):
                alone, beside = [], []
                for _ in range(given.rounds + 1):
                    alone.append(seconds(arguments(number), threads))
                    with neighbour():
                        beside.append(seconds(arguments(number + 1), threads))
                    number += 2
                a, b = (
                    statistics.median(alone[1:]),
                    statistics.median(beside[1:]),
                )  # the first fills caches
                print(
                    f"{title}, {threads} threads: {a:.2f} s alone, {b:.2f} s beside, {b / a:.2f}x"
                )


if __name__ == "__main__":
    main()
