"""Training on 1 to 4,096 GPUs, by the step model alone: `python -m benchmarks.projection [--draw FILE]`.

The times of calls follow from stated numbers of a GPU, and those of exchanges from stated numbers of a
network (graphnet.graph: STATED, STATED_NETWORKS): nothing here is measured. It prints, for a U-Net and for a
Restormer of 102 M parameters, the time of a step and the efficiency, the time of a step on one GPU divided by
that on N:
- weak: each GPU has the same batch, so N GPUs train on N times as many images,
- strong: all GPUs together have the batch of eight, so each has less to do.
With --draw it writes a chart of the efficiencies.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import graphnet as gn
from benchmarks.networks import UNET
from graphnet.description import ModelDescription, UpdateSettings, expand, losses_for, parse
from graphnet.graph import (
    Call,
    Cost,
    Kind,
    Machine,
    Network,
    call_cost,
    compute_dtype,
    stated_machine,
    stated_network,
)
from graphnet.inspection import StepTime, predict_step
from graphnet.passes import MicroBatches
from graphnet.plan import Plan, forward_graph, training_plan
from graphnet.sdk import Processes, default_registry

GPU = torch.device("cuda")
COUNTS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
PLANNED = 8  # the number of processes for which plans are made; only sizes of shards depend on it
_HERE = Path(__file__).parent
_RESTORMER = _HERE.parent / "examples" / "denoisers" / "restormer.yaml"


@dataclass(frozen=True)
class Trained:
    """A network and the shape of the batch of one GPU."""

    title: str
    description: ModelDescription
    shape: tuple[int, int, int, int]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draw", type=Path, help="write the chart to this file")
    options = parser.parse_args()
    console = Console(markup=False, width=110)
    machine, network = stated_machine(GPU), stated_network(GPU)
    console.print(f"{machine}\n{network}")
    trained = (
        Trained("a residual U-Net", gn.load(UNET.file).description, (64, 3, 128, 128)),
        Trained("a Restormer", restormer(width=96, blocks=(4, 6, 6, 8)), (8, 3, 128, 128)),
    )
    curves: dict[str, list[float]] = {}
    for one in trained:
        plans = {shard: plan_of(one, shard=shard) for shard in (False, True)}
        console.print(f"\n{one.title}, {one.shape} a GPU, bfloat16: {memory(plans)}")
        table = Table(
            "GPUs", *(f"{kind}, ms" for kind in _KINDS), *(f"{kind}, %" for kind in _KINDS)
        )
        times = {
            kind: [time_of(plans, kind, n, machine, network) for n in COUNTS] for kind in _KINDS
        }
        shares = {kind: efficiency(kind, times) for kind in _KINDS}
        for i, count in enumerate(COUNTS):
            cells = [f"{1e3 * times[kind][i].seconds:.1f}" for kind in _KINDS]
            table.add_row(str(count), *cells, *(f"{100 * shares[kind][i]:.0f}" for kind in _KINDS))
        console.print(table)
        for kind in ("weak", "strong"):
            last = times[kind][-1]
            console.print(
                f"{kind}, {COUNTS[-1]} GPUs: {1e3 * last.computing_s:.1f} ms computing, "
                f"{1e3 * last.exchanging_s:.1f} ms exchanging, of which {100 * last.hidden:.0f} % is hidden"
            )
        curves |= {f"{one.title}, {kind}": shares[kind] for kind in _KINDS}
    if options.draw is not None:
        draw(curves, options.draw)
    return 0


_KINDS = ("weak", "weak, divided", "strong", "strong, divided")


def restormer(*, width: int, blocks: tuple[int, int, int, int]) -> ModelDescription:
    """A Restormer of a width, with so many blocks at each level (Zamir et al. 2022, figure 2)."""
    data: dict[str, Any] = gn.load(_RESTORMER).description.to_data()
    widths = [width * 2**level for level in range(4)]

    def level(number: int, channels: int, count: int) -> list[dict[str, Any]]:
        fields = {
            "channels": channels,
            "thrice": 3 * channels,
            "heads": 2**number,
            "hidden": 2 * int(2.66 * channels),
        }
        return [{"transformer": fields} for _ in range(count)]

    conv = {"kernel_size": 3, "padding": 1, "bias": False}
    layers: list[dict[str, Any]] = [{"conv2d": {"out_channels": width, **conv}}]
    for number in range(3):
        layers += level(number, widths[number], blocks[number])
        layers[-1]["id"] = f"level{number}"
        layers.append({"down": {"half": widths[number] // 2}})
    layers += level(3, widths[3], blocks[3])
    for number in reversed(range(3)):
        up = f"up{number}"
        layers.append({"id": up, "up": {"twice": 4 * widths[number]}})
        layers.append({"concat": {}, "inputs": [up, f"level{number}"]})
        if number:
            narrow = {"out_channels": widths[number], "kernel_size": 1, "bias": False}
            layers.append({"conv2d": narrow})
        layers += level(number, widths[max(number, 1)], blocks[number])
    layers.append({"id": "residual", "conv2d": {"out_channels": 3, **conv}})
    layers.append({"add": {}, "inputs": ["$input", "residual"]})
    return parse({**data, "layers": layers})


def plan_of(trained: Trained, *, shard: bool) -> Plan:
    """The plan of a step of several processes; it is only looked at, and runs nowhere."""
    registry = default_registry()
    network = expand(trained.description, registry)
    options = gn.CompileOptions(device="cpu", kernels="aten", precision="bfloat16")
    graph = forward_graph(network, [trained.shape], options)
    return training_plan(
        graph,
        registry,
        options,
        losses=losses_for("l1", graph.output_names, registry),
        updates=UpdateSettings(optimizer=gn.AdamW(lr=1e-3), shard="optimizer" if shard else None),
        parts=MicroBatches(1, PLANNED),
        processes=Processes(PLANNED, ("all",)),
    )


def time_of(
    plans: Mapping[bool, Plan], kind: str, count: int, machine: Machine, network: Network
) -> StepTime:
    """The predicted time of a step on so many GPUs."""
    plan = plans["divided" in kind]
    batch = PLANNED / count if kind.startswith("strong") else 1.0
    return predict_step(plan, _seconds(plan, machine, batch, count), network, count=count)


def _seconds(plan: Plan, machine: Machine, batch: float, count: int) -> Callable[[Call], float]:
    """The time of a call for a share of the plan's batch; updates of shards take less on more GPUs."""

    def seconds(call: Call) -> float:
        cost, share = call_cost(call, plan.values), 1.0
        if call.kind in (Kind.LAYER, Kind.LOSS, Kind.BACKWARD):
            share = batch
        elif any(plan.values[name].sharding for name in call.reads()):
            share = PLANNED / count
        scaled = Cost(*(int(share * n) for n in (cost.flops, cost.bytes_read, cost.bytes_written)))
        return machine.seconds(scaled, compute_dtype(call, plan.values))

    return seconds


def efficiency(kind: str, times: Mapping[str, list[StepTime]]) -> list[float]:
    """How much of the speed of one GPU remains, or in strong scaling of eight; 1 is as good as can be."""
    strong = kind.startswith("strong")
    works = [PLANNED / count if strong else 1.0 for count in COUNTS]
    first = times["strong"][COUNTS.index(PLANNED)] if strong else times["weak"][0]
    return [
        first.seconds * work / one.seconds for work, one in zip(works, times[kind], strict=True)
    ]


def memory(plans: Mapping[bool, Plan]) -> str:
    """The parameters, and the bytes of the optimizer's states without and with shards."""
    plan = plans[False]
    parameters = sum(plan.values[name].spec.numel for name in plan.of(Kind.PARAMETER))
    states = sum(plan.values[name].spec.size_bytes for name in plan.of(Kind.STATE))
    return f"{parameters / 1e6:.1f} M parameters, {states / 2**20:.0f} MiB of states, 1/N of them divided"


def draw(curves: Mapping[str, list[float]], path: Path) -> None:
    """Write a chart of efficiencies by the number of GPUs."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    colors = {"a residual U-Net": "#2f6fb5", "a Restormer": "#c2571a"}
    for side, kind in zip(axes, ("weak", "strong"), strict=True):
        for name, shares in curves.items():
            title, _, what = name.partition(", ")
            if not what.startswith(kind):
                continue
            divided = "divided" in what
            label = f"{title}{', states divided' if divided else ''}"
            first = COUNTS.index(PLANNED) if kind == "strong" else 0
            side.plot(
                COUNTS[first:],
                [100 * share for share in shares[first:]],
                "--" if divided else "-",
                color=colors[title],
                label=label,
            )
        side.set_xscale("log", base=2)
        side.set_xticks([1, 8, 64, 512, 4096], ["1", "8", "64", "512", "4,096"])
        side.set_xlabel("GPUs")
        side.grid(alpha=0.3)
        side.set_ylim(0, 105)
    axes[0].set_title("the same batch for each GPU")
    axes[1].set_title("one batch for all: that of eight GPUs")
    axes[0].set_ylabel("efficiency, %")
    axes[0].legend(loc="lower left")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
