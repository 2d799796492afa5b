"""Time commands beside a program that keeps a processor busy: `python -m benchmarks.neighbour`.

`graphnet denoise` of 30 small images and the first steps of a training run alone and beside a busy process,
in turn, with each number of threads. Medians of whole processes, and their ratios. A process that waits for
its threads by spinning would lose much more than the processor time that the neighbour takes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

BUSY = "while True: pass"
TRAINING = """
model: {model}
data: {{train: {pairs}}}
loss: mse
optimizer: {{sgd: {{lr: 0.001}}}}
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


def elapsed_s(arguments: list[str], threads: int) -> float:
    """The wall time of a command."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "graphnet", *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    elapsed = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed:\n{done.stderr}")
    return elapsed


def spread(times: list[float]) -> str:
    """The median, and the least and the largest."""
    return f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    cores = os.cpu_count() or 1
    print(f"{platform.machine()}, {cores} cores, torch {version('torch')}, {given.rounds} rounds")
    print("| command | threads | alone | beside a busy process | ratio |")
    print("|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        numbers = itertools.count()
        for title, arguments in prepare(Path(name)).items():
            for threads in range(1, cores + 1):
                elapsed_s(arguments(next(numbers)), threads)  # fills the caches
                alone_s, beside_s = [], []
                for _ in range(given.rounds):
                    alone_s.append(elapsed_s(arguments(next(numbers)), threads))
                    with neighbour():
                        beside_s.append(elapsed_s(arguments(next(numbers)), threads))
                ratio = statistics.median(beside_s) / statistics.median(alone_s)
                cells = (title, str(threads), spread(alone_s), spread(beside_s), f"{ratio:.2f}")
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
