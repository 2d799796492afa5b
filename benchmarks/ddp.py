"""Training in two processes beside torch's DistributedDataParallel: `python -m benchmarks.ddp [--rows b,c]`.

Each process has one thread and half of each batch; gradients travel by gloo over loopback. Opponents are DDP
in eager mode and compiled, each in N C H W and channels_last, with static graphs and gradients as views of
its buckets. For each network it prints
- the largest relative difference of the losses of 50 steps, from the same weights, beside DDP in eager mode;
  and that of torch in one process on the whole batch beside DDP, which rounding alone makes,
- the time of a training step, all contenders interleaved, and the best of DDP's divided by the best of ours,
- how much of the communication our fastest executor hides: 1 - (step - step without communication) / the
  communication alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import graphnet as gn
from benchmarks.graphnet_side import optimizer
from benchmarks.measure import reason
from benchmarks.networks import Network
from benchmarks.timing import Run
from benchmarks.torch_side import Setting, optimizer_of
from benchmarks.workloads import WORKLOADS, Workload
from graphnet.graph import Kind
from graphnet.model import SINGLE, Joined
from graphnet.plan import Plan
from graphnet.sdk import Exchange

CPU = torch.device("cpu")
STEPS = 50
ROWS = {name.partition("-")[0]: name for name in ("a512-train", "b-train", "c-train")}
_WARM_UP = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default=",".join(ROWS), help="networks: " + ", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=15, help="how often each contender is timed")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    rows = options.rows.split(",")
    if unknown := set(rows) - set(ROWS):
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}. Known: {', '.join(ROWS)}")
    if "RANK" not in os.environ:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(options.processes), "-m", "--", "benchmarks.ddp"]
        return subprocess.run([*command, *sys.argv[1:]]).returncode
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    joined = gn.join_processes()
    console = Console(quiet=joined.rank > 0, markup=False)
    for row in rows:
        workload = next(one for one in WORKLOADS if one.name == ROWS[row])
        measure(workload, joined, console, rounds=options.rounds)
    torch.distributed.destroy_process_group()
    return 0


def measure(workload: Workload, joined: Joined, console: Console, *, rounds: int) -> None:
    """Print the losses' difference, the times and the share of communication that is hidden."""
    whole = workload.images(CPU)
    x, target = (images[joined.part(len(images))] for images in whole)
    console.print(f"\n{workload.network.title}, {workload.shape}, {joined.count} processes")
    for dtype in (torch.float32, torch.float64):
        ours, theirs = _losses(workload.network, joined, x.to(dtype), target.to(dtype))
        torch_alone = _torch_losses(workload.network, *(images.to(dtype) for images in whole))
        console.print(
            f"losses of {STEPS} steps in {dtype}: relative difference to DDP {_apart(ours, theirs):.1e}; "
            f"of torch in one process {_apart(torch_alone, theirs):.1e}"
        )
    contenders: dict[str, Run] = {}
    for executor in ("eager", "inductor"):
        contenders[f"graphnet: {executor}"] = _step_of(
            workload.network, joined, executor, x, target
        )
    contenders["graphnet: eager, no communication"] = _step_of(
        workload.network, SINGLE, "eager", x, target
    )
    contenders["communication alone"] = exchanges(
        _program(workload.network, joined, "eager", x).plan
    )
    for mode in ("eager", "compile"):
        for last in (False, True):
            setting = Setting(mode, last, "float32")
            contenders[f"DDP: {setting}"] = _ddp_step(workload.network, setting, x, target)
    times = interleaved(contenders, joined, console, rounds=rounds)
    table = Table("contender", "ms a step")
    for name, all_ms in times.items():
        table.add_row(name, f"{statistics.median(all_ms):.2f}")
    console.print(table)
    mine = _best(times, "graphnet", without="no comm")
    best = _best(times, "DDP")
    ratio = statistics.median(b / a for a, b in zip(times[mine], times[best], strict=True))
    console.print(f"{best} / {mine}: {ratio:.2f}")
    step, alone, sent = (
        statistics.median(times[name])
        for name in (
            "graphnet: eager",
            "graphnet: eager, no communication",
            "communication alone",
        )
    )
    hidden = 1 - (step - alone) / sent
    console.print(f"hidden communication, eager: {100 * hidden:.0f} % of {sent:.2f} ms")


def _best(times: Mapping[str, list[float]], side: str, *, without: str = "-") -> str:
    names = [name for name in times if name.startswith(side) and without not in name]
    return min(names, key=lambda name: statistics.median(times[name]))


def _program(network: Network, joined: Joined, executor: str, x: Tensor) -> gn.Program:
    made = gn.Model.load(network.file).compile(
        tuple(x.shape),
        loss="mse",
        optimizer=optimizer(network),
        device=CPU,
        precision=str(x.dtype).removeprefix("torch."),
        executor=executor,
        processes=joined,
    )
    names = made.plan.of(Kind.PARAMETER)
    for name, parameter in zip(names, network.module().parameters(), strict=True):
        made.weights[name].copy_(parameter.detach())
    return made


def _step_of(network: Network, joined: Joined, executor: str, x: Tensor, target: Tensor) -> Run:
    made = _program(network, joined, executor, x)
    packed = made.pack(x, target)
    return lambda: made.step_packed(*packed)


def exchanges(plan: Plan) -> Run:
    """All exchanges of a step, one after the other."""
    wait = torch.ops._c10d_functional.wait_tensor
    calls = [step.call for step in plan.steps if isinstance(step.call.layer, Exchange)]
    given = [[torch.zeros(plan.values[n].spec.shape) for n in call.reads()] for call in calls]

    def run() -> None:
        for call, tensors in zip(calls, given, strict=True):
            wait(call.layer.forward(*tensors))  # type: ignore[attr-defined]

    return run


def _ddp_step(network: Network, setting: Setting, x: Tensor, target: Tensor) -> Run:
    plain = network.module().to(x.dtype).to(memory_format=setting.memory_format).train()  # type: ignore[call-overload]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # it does not broadcast buffers, which is to be named otherwise
        module = DistributedDataParallel(
            plain, gradient_as_bucket_view=True, static_graph=True, broadcast_buffers=False
        )
    rule = optimizer_of(network, module)
    x, target = (one.to(memory_format=setting.memory_format) for one in (x, target))
    run: Callable[[Tensor], Tensor] = torch.compile(module) if setting.mode == "compile" else module

    def step() -> Tensor:
        rule.zero_grad(set_to_none=True)
        loss = nn.functional.mse_loss(run(x), target)
        loss.backward()  # type: ignore[no-untyped-call]
        rule.step()
        return loss.detach()

    return step


def _apart(found: Sequence[float], expected: Sequence[float]) -> float:
    """The largest relative difference."""
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


def _torch_losses(network: Network, x: Tensor, target: Tensor) -> list[float]:
    """The losses of torch in one process."""
    module = network.module().to(x.dtype).train()
    rule, losses = optimizer_of(network, module), list[float]()
    for _ in range(STEPS):
        rule.zero_grad(set_to_none=True)
        loss = nn.functional.mse_loss(module(x), target)
        loss.backward()  # type: ignore[no-untyped-call]
        rule.step()
        losses.append(float(loss.detach()))
    return losses


def _losses(
    network: Network, joined: Joined, x: Tensor, target: Tensor
) -> tuple[list[float], list[float]]:
    """The losses of the whole batch in both."""
    made = _program(network, joined, "eager", x)
    ours = [float(made.step(x, target)) for _ in range(STEPS)]
    step = _ddp_step(network, Setting("eager", False, "float32"), x, target)
    theirs = []
    for _ in range(STEPS):
        loss = step()
        assert isinstance(loss, Tensor)
        torch.distributed.all_reduce(loss)
        theirs.append(float(loss) / joined.count)
    return ours, theirs


def interleaved(
    contenders: Mapping[str, Run], joined: Joined, console: Console, *, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each contender in every round; all processes run the same calls."""
    ready: dict[str, Run] = {}
    repeats: dict[str, int] = {}
    for name, run in contenders.items():
        failed = ""
        try:
            for _ in range(_WARM_UP):
                run()
        except Exception as error:  # torch's compiler may not take the network
            failed = reason(error)
        if any(joined.texts(failed)):
            console.print(f"{name} cannot run here: {failed}")
            continue
        started = time.perf_counter()
        run()
        took_us = int(1e6 * (time.perf_counter() - started))
        (slowest_us,) = joined.greatest(took_us)
        ready[name], repeats[name] = run, max(1, 100_000 // max(1, slowest_us))
    times: dict[str, list[float]] = {name: [] for name in ready}
    names = list(ready)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            torch.distributed.barrier()
            started = time.perf_counter()
            for _ in range(repeats[name]):
                ready[name]()
            took_s = time.perf_counter() - started
            (slowest_us,) = joined.greatest(int(1e6 * took_s))
            times[name].append(1e-3 * slowest_us / repeats[name])
    return times


if __name__ == "__main__":
    sys.exit(main())
