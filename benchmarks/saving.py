"""What saving costs a training: `python -m benchmarks.saving [MODEL]`.

A training with Adam goes on while a thread writes each of its checkpoints. Blocks of steps with a checkpoint
at their start and blocks without one take turns. The difference of their median times is what a checkpoint
costs, shown as a share of 30 s, the time between two checkpoints if a training file does not say another.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from graphnet.sdk import default_registry
from graphnet.training import RunFolder, Saving, Steps, Trainer, read_job

MODEL = Path(__file__).parents[1] / "examples" / "denoisers" / "unet-denoiser.yaml"
TRAINING = """
model: {model}
data: {{train: {pairs}}}
loss: mse
optimizer: {{adam: {{lr: 0.001}}}}
epochs: {epochs}
batch_size: 16
log_every: {block}
device: cpu
executor: eager
checkpoints: {{every_s: 1.0e-9}}
"""
BLOCK = 10  # steps
EVERY_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, default=MODEL)
    parser.add_argument(
        "--blocks", type=int, default=40, help="with a checkpoint, and as many without"
    )
    given = parser.parse_args()
    console = Console(markup=False, highlight=False)
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pairs = draw.integers(0, 256, (16 * BLOCK, 3, 96, 96), dtype=np.uint8)
        np.savez(folder / "pairs.npz", noisy=pairs, clean=pairs)
        training = folder / "train.yaml"
        training.write_text(
            TRAINING.format(
                model=given.model.resolve(),
                pairs=folder / "pairs.npz",
                epochs=2 * given.blocks + 1,
                block=BLOCK,
            )
        )
        with RunFolder(folder / "run", resume=False) as run:
            with_one, without = times(
                Trainer(read_job(training, registry=default_registry()), folder=run), run, console
            )
            size = (folder / "run" / "checkpoint.safetensors").stat().st_size
    cost = statistics.median(with_one) - statistics.median(without)
    print(
        f"{BLOCK} steps with a checkpoint of {size / 1e6:.1f} MB {statistics.median(with_one):.3f} s, "
        f"without {statistics.median(without):.3f} s: it costs {cost:.3f} s, "
        f"{cost / EVERY_S:.2%} of a training that saves every {EVERY_S:.0f} s"
    )


def times(trainer: Trainer, run: RunFolder, console: Console) -> tuple[list[float], list[float]]:
    """The seconds of blocks with a checkpoint, and of blocks without one."""
    found: tuple[list[float], list[float]] = ([], [])
    number = 0
    with console.status("training"), Saving(trainer, run) as saving:
        start = time.perf_counter()
        for record in trainer.run():
            if not isinstance(record, Steps):
                continue
            now = time.perf_counter()
            if number:  # the first block compiles
                found[number % 2 == 0].append(now - start)
            number += 1
            start = time.perf_counter()
            if number % 2:
                saving.record(record)
    return found


if __name__ == "__main__":
    main()
