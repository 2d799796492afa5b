"""Time the steps of training files on eager and on Inductor's plan: `python -m benchmarks.recipes`.

A recipe should choose the executor `auto` where Inductor's plan is faster: the ratio is above 1. The batches
are random numbers of the shapes that the file states, so no data is needed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import graphnet as gn
from benchmarks.timing import Timing, interleave
from graphnet.description import read_file
from graphnet.training.config import read_fields

FOLDER = Path(__file__).parents[1] / "examples" / "denoisers"
CPU = torch.device("cpu")
EXECUTORS = ("eager", "inductor")


def step_of(file: Path, executor: str) -> Callable[[], Tensor]:
    """A step of a training file on patches of random numbers, whose loss takes the target only."""
    config, updates, options = read_fields(read_file(file)[0])
    assert isinstance(config.model, str)
    assert isinstance(config.data.train, dict)
    model = gn.load(file.parent / config.model)
    size = config.data.train["patches"]["size"]
    shape = (config.batch_size, model.input_channels or 3, size, size)
    program = model.compile(
        shape,
        loss=config.loss,
        optimizer=config.optimizer,
        options=replace(options, device=CPU),
        executor=executor,
        seed=1,
        **updates,
    )
    draw = torch.Generator().manual_seed(1)
    batch = program.pack(*(torch.rand(shape, generator=draw) for _ in range(2)))
    return lambda: program.step_packed(*batch)


def measure(file: Path, budget_s: float) -> tuple[dict[str, Timing], float]:
    """The times of a step by executor, and the seconds until Inductor's plan has made its first step."""
    steps, first_s = {}, 0.0
    for executor in EXECUTORS:
        steps[executor] = step_of(file, executor)
        started = time.perf_counter()
        steps[executor]()
        first_s = time.perf_counter() - started
    return interleave(steps, device=CPU, budget_s=budget_s), first_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", default="dncnn,unet", help="some, separated by commas")
    parser.add_argument("--seconds", type=float, default=40.0, help="of rounds for each")
    given = parser.parse_args()
    print("| recipe | eager | inductor | eager / inductor | Inductor's first step |")
    print("|---|---:|---:|---:|---:|")
    for recipe in given.recipes.split(","):
        timings, first_s = measure(FOLDER / f"{recipe}-train.yaml", given.seconds)
        eager, inductor = (timings[executor] for executor in EXECUTORS)
        print(
            f"| {recipe}-train | {eager.median_ms:.1f} ms | {inductor.median_ms:.1f} ms "
            f"| {eager.ratio_to(inductor):.3f} | {first_s:.0f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
