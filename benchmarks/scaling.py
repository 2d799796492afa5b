"""The step model beside measured steps: `python -m benchmarks.scaling [--rows a512,b] [--processes 1,2]`.

Each process has one thread and its part of the batch; values travel by gloo over loopback. For each network
and number of processes it prints the measured time of a training step, the time that the step model predicts
(graphnet.inspection.predict_step), and how much of the exchanges is hidden, predicted and measured. The model
gets the times of the calls of a step without exchanges, measured while all processes run, and the numbers of
the network, measured by `measure_network`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

import graphnet as gn
from benchmarks.ddp import CPU, ROWS, exchanges, interleaved
from benchmarks.graphnet_side import optimizer
from benchmarks.timing import Run
from benchmarks.workloads import WORKLOADS, Workload
from graphnet.graph import Call, Network, predicted_seconds
from graphnet.inspection import measure_network, predict_step, time_steps
from graphnet.model import SINGLE, Joined
from graphnet.plan import Plan

_ROUNDS = 25
_NONE = Network("no network", latency_s=1e-9, bandwidth=1e15)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default=",".join(ROWS), help="networks: " + ", ".join(ROWS))
    parser.add_argument("--processes", default="1,2", help="numbers of processes")
    parser.add_argument("--shard", action="store_true", help="divide the optimizer's states")
    parser.add_argument("--bucket", help="bytes of gradients that are sent at once, e.g. 1MiB")
    options = parser.parse_args()
    rows = options.rows.split(",")
    if unknown := set(rows) - set(ROWS):
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}. Known: {', '.join(ROWS)}")
    if "RANK" not in os.environ:
        return max(map(_start, map(int, options.processes.split(","))))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    joined = gn.join_processes()
    console = Console(quiet=joined.rank > 0, markup=False, width=110)
    network = measure_network(joined, CPU) if joined.count > 1 else _NONE
    console.print(f"\n{joined.count} processes" if joined.count == 1 else f"\n{network}")
    table = Table(
        "network", "measured", "predicted", "ratio", "exchanges", "hidden: predicted", "measured"
    )
    for row in rows:
        workload = next(one for one in WORKLOADS if one.name == ROWS[row])
        table.add_row(
            *compare(workload, joined, network, shard=options.shard, bucket=options.bucket)
        )
    console.print(table)
    torch.distributed.destroy_process_group()
    return 0


def _start(count: int) -> int:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command += [str(count), "-m", "--", "benchmarks.scaling", *sys.argv[1:]]
    return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode


def compare(
    workload: Workload,
    joined: Joined,
    network: Network,
    *,
    shard: bool = False,
    bucket: str | None = None,
) -> tuple[str, ...]:
    """The cells of a row: the measured and the predicted time of a step, and of its exchanges."""
    x, target = (images[joined.part(len(images))] for images in workload.images(CPU))

    def program(processes: Joined) -> gn.Program:
        return workload.network.model().compile(
            tuple(x.shape),
            loss="mse",
            optimizer=optimizer(workload.network),
            device=CPU,
            processes=processes,
            shard="optimizer" if shard else None,
            bucket=bucket,
        )

    alone, together = program(SINGLE), program(joined)
    joined.greatest(0)  # all processes time at the same time
    predicted = predict_step(together.plan, _seconds(alone.plan, together.plan), network)
    packed = together.pack(x, target)
    runs: dict[str, Run] = {
        "alone": lambda: alone.step_packed(*packed),
        "together": lambda: together.step_packed(*packed),
        "exchanges": exchanges(together.plan),
    }
    times = interleaved(runs, joined, Console(quiet=joined.rank > 0, markup=False), rounds=_ROUNDS)
    measured = {name: 1e-3 * statistics.median(all_ms) for name, all_ms in times.items()}
    ratio = predicted.seconds / measured["together"]
    sent = measured["exchanges"]
    cells = [str(workload), _ms(measured["together"]), _ms(predicted.seconds), f"{ratio:.2f}"]
    if joined.count == 1:
        return (*cells, "", "", "")
    shown = measured["together"] - measured["alone"]
    hidden = f"{100 * predicted.hidden:.0f} %", f"{100 * (1 - shown / sent):.0f} %"
    return (*cells, f"{_ms(predicted.exchanging_s)}, {_ms(sent)}", *hidden)


def _seconds(plan: Plan, together: Plan) -> Callable[[Call], float]:
    """The time of each call of the plan `together`, as measured in the plan of one process."""
    timing = time_steps(plan)
    scale = timing.whole / sum(timing.steps)  # the clock takes time too
    known = {
        _key(step.call): scale * seconds
        for step, seconds in zip(plan.steps, timing.steps, strict=True)
    }

    def seconds_of(call: Call) -> float:
        found = known.get(_key(call))
        return predicted_seconds(call, together.values) if found is None else found

    return seconds_of


def _key(call: Call) -> object:
    """What a call has in common with the same call in the plan of one process, whose name may differ."""
    return call.node, call.function, call.port, call.title


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"


if __name__ == "__main__":
    sys.exit(main())
