"""What is asked of a GPU beside the table: `python -m benchmarks.gpu kernels|training --json FILE`.

kernels: each layer of the paper's network, forward and reverse, beside what the GPU's measured bandwidth and
matrix ceiling allow. training: an epoch of 50,000 pairs, and how fast the paper's network learns, on pairs
sampled from the photos that scikit-image ships.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import graphnet as gn
from benchmarks.networks import PAPER
from benchmarks.timing import machine as facts
from benchmarks.timing import seconds
from examples.demo import copy_photos
from graphnet.config import read_job
from graphnet.cost import call_cost
from graphnet.discovery import default_registry
from graphnet.graph import Kind
from graphnet.measure import measure
from graphnet.program import set_up
from graphnet.train import Decided, Epoch, Trainer

_CONFIG = Path(__file__).parent.parent / "examples" / "denoisers" / "speedrun.yaml"
_REPEATS = 200


def main() -> int:
    """Measure a part, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("kernels", "training"))
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device = torch.device(options.device)
    found = kernels(device) if options.part == "kernels" else training(device)
    result = {"machine": facts(device), "measured": time.strftime("%Y-%m-%d %H:%M"), **found}
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0


@torch.no_grad()
def kernels(device: torch.device) -> dict[str, Any]:
    """Each step of the training plan alone, on its own tensors: its time, and the least by the roofline."""
    numbers = measure(device, say=print)
    rows = []
    for batch in (32, 512):
        plan = gn.load(PAPER.file).plan(
            (batch, 3, 32, 32),
            loss="mse",
            optimizer=gn.Adam(),
            device=device,
            precision="bfloat16",
        )
        for step in plan.steps:
            call = step.call
            if call.kind not in (Kind.LAYER, Kind.LOSS, Kind.BACKWARD):
                continue
            cost = call_cost(call, plan.values)
            arguments = [_drawn(arg, plan) for arg in call.args]
            function = getattr(call.layer, call.method)
            for _ in range(3):
                function(*arguments)
            taken = seconds(lambda f=function, a=arguments: f(*a), _REPEATS, device)  # type: ignore[misc]
            least = max(
                cost.bytes_moved / numbers.bandwidth, cost.flops / numbers.ceiling(torch.bfloat16)
            )
            rows.append(
                {
                    "batch": batch,
                    "call": call.name,
                    "kernel": call.title,
                    "us": 1e6 * taken,
                    "least_us": 1e6 * least,
                    "share": least / taken,
                }
            )
    return {"roofline": str(numbers), "rows": rows}


def _drawn(arg: Any, plan: Any) -> Any:
    """Random tensors for what stands in a call, in the strides that they are stored with."""
    if isinstance(arg, str):
        value = plan.values[arg]
        if value.initializer is not None:
            return set_up([value], seed=0)[arg]
        return torch.randn(value.spec.shape, device=value.spec.device).to(value.spec.dtype)
    return tuple(_drawn(one, plan) for one in arg) if isinstance(arg, tuple) else arg.value


def training(device: torch.device) -> dict[str, Any]:
    """The seconds of an epoch of 50,000 pairs, and of the recipe that learns fastest, and what they reach."""
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
            records = list(trainer.run())
            (epoch,) = (record for record in records if isinstance(record, Epoch))
            found[name] = {
                "seconds": epoch.elapsed_s,
                "steps": epoch.step,
                "psnr_db": epoch.metrics.get("psnr"),
                "events": [record.message for record in records if isinstance(record, Decided)],
                "executor": trainer.program.turns.record(),
            }
    return found


if __name__ == "__main__":
    raise SystemExit(main())
