"""What is asked of a GPU beside the table: `python -m benchmarks.gpu kernels|training --json FILE`.

kernels: the steps of the paper's network in bfloat16, beside what the GPU's measured bandwidth and matrix
ceiling allow: with mse, for which a whole chain of layers may be one kernel, and with l1, for which each
layer has its own. training: an epoch of 50,000 pairs, and how fast the paper's network learns, on pairs
sampled from the photos that scikit-image ships.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import graphnet as gn
from benchmarks.networks import PAPER
from benchmarks.timing import machine as facts
from benchmarks.timing import seconds, settle
from examples.demo import copy_photos
from graphnet.executors import CUDARecording
from graphnet.graph import CAST, Call, Kind, Machine, call_cost, positional
from graphnet.inspection import measure
from graphnet.model import set_up
from graphnet.plan import Plan
from graphnet.sdk import default_registry
from graphnet.training import Decided, Epoch, Trainer, read_job

_CONFIG = Path(__file__).parent.parent / "examples" / "denoisers" / "speedrun.yaml"
_REPEATS = 20


def main() -> int:
    """Measure a part, and write what there is after each piece of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("kernels", "training"))
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device = torch.device(options.device)
    settle(device)
    parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "kernels": lambda: kernels(device, measure(device, say=print, dtypes=(torch.bfloat16,))),
        "training": lambda: training(device),
    }
    about = {"machine": facts(device), "measured": time.strftime("%Y-%m-%d %H:%M")}
    for found in parts[options.part]():
        options.json.write_text(json.dumps({**about, **found}, indent=1) + "\n")
    print(options.json.read_text())
    return 0


def kernels(
    device: torch.device, machine: Machine, *, batches: tuple[int, ...] = (32, 4096, 512)
) -> Iterator[dict[str, Any]]:
    """Each step of some training plans alone: its time, and the least by the roofline; after each plan."""
    rows: list[dict[str, Any]] = []
    for batch, loss in product(batches, ("mse", "l1")):
        plan = gn.load(PAPER.file).plan(
            (batch, 3, 32, 32),
            loss=loss,
            optimizer=gn.Adam(),
            device=device,
            precision="bfloat16",
        )
        rows += [
            {"batch": batch, "loss": loss, **_timed(step.call, plan, device, machine)}
            for step in plan.steps
            if step.call.kind in (Kind.LAYER, Kind.LOSS, Kind.BACKWARD) and _works(step.call, plan)
        ]
        yield {"roofline": str(machine), "rows": rows}


def _works(call: Call, plan: Plan) -> bool:
    """Whether a call does anything: the cast of what is in its dtype does not."""
    cost = call_cost(call, plan.values)
    return cost.bytes_moved > 0 or cost.flops > 0


@torch.no_grad()
def _timed(call: Call, plan: Plan, device: torch.device, machine: Machine) -> dict[str, Any]:
    """A call on random tensors of its own, one after the other."""
    given = [_drawn(argument, plan) for argument in call.args]

    def repeat() -> tuple[Tensor, ...]:
        for _ in range(_REPEATS):
            positional(call.layer, call.function, given)
        return ()

    repeat()  # compiled, and warm
    if device.type == "cuda":  # Python takes longer to launch most of them than they run
        repeat = CUDARecording(repeat, device=device).replay
        for _ in range(2):  # the first replays take the graph to the device
            repeat()
    taken = seconds(repeat, 10, device) / _REPEATS
    cost = call_cost(call, plan.values)
    ceiling = machine.ceiling(torch.bfloat16)
    least = max(cost.bytes_moved / machine.bandwidth, cost.flops / ceiling)
    return {
        "call": call.name,
        "kernel": call.title,
        "us": 1e6 * taken,
        "least_us": 1e6 * least,
        "share": least / taken,
    }


def _drawn(arg: Any, plan: Plan) -> Any:
    """Random tensors for what stands in a call, in the strides that they are stored with."""
    if isinstance(arg, str):
        value = plan.values[arg]
        if value.initializer is not None and value.role != CAST:
            return set_up([value], seed=0)[arg]
        return torch.randn(value.spec.shape, device=value.spec.device).to(value.spec.dtype)
    return tuple(_drawn(one, plan) for one in arg) if isinstance(arg, tuple) else arg.value


def training(device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield the seconds, the PSNR and the events of an epoch of 50,000 pairs, and of the speedrun's recipe.

    Each training runs twice from the same weights. The first run also compiles kernels and captures steps.
    """
    executor = "cudagraph" if device.type == "cuda" else "eager"
    with tempfile.TemporaryDirectory() as folder:
        train, held_out = copy_photos(Path(folder))
        found: dict[str, Any] = {}
        for name, more in {
            "an epoch of 50,000 pairs, batch 32, sgd": [
                *("batch_size=32", "data.train.photos.pairs=50000"),
                *('optimizer={"sgd":{"lr":10.0}}', "schedule=constant"),
            ],
            "the recipe of the speedrun": [],
        }.items():
            settings = [
                f"data.train.photos.path={train}",
                f'data.validation={{"photos":{{"path":"{held_out}","target":"clean","pairs":1000}}}}',
                *(f"device={device}", f"executor={executor}", "log_every=10000", *more),
            ]
            trainer = Trainer(read_job(_CONFIG, settings=settings, registry=default_registry()))
            start = {one: tensor.clone() for one, tensor in _changed(trainer).items()}
            records = list(trainer.run())
            (first,) = (record for record in records if isinstance(record, Epoch))
            for one, tensor in _changed(trainer).items():
                tensor.copy_(start[one])
            trainer.program.rewind(0)
            trainer.epochs_done = 0
            (epoch,) = (record for record in trainer.run() if isinstance(record, Epoch))
            found[name] = {
                "seconds": epoch.elapsed_s - first.elapsed_s,
                "seconds_with_capture": first.elapsed_s,
                "steps": epoch.step,
                "psnr_db": epoch.metrics.get("psnr"),
                "events": [record.message for record in records if isinstance(record, Decided)],
                "executor": trainer.program.accumulation.record(),
            }
            yield found


def _changed(trainer: Trainer) -> dict[str, Tensor]:
    """What steps change."""
    return {**trainer.program.weights.own, **trainer.program.optimizer_state}


if __name__ == "__main__":
    raise SystemExit(main())
