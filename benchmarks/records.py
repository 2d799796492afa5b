"""Records: what a row of the table says, as plain data for JSON.

Times are milliseconds, memory is MB of 10^6 bytes. `ratio` is best_torch_ms / graphnet_ms: above 1 graphnet
is faster. None stands where something was not measured or could not be.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import first_step, graphnet_side, overhead
from benchmarks.measure import Effort, Measured, Say, peak_bytes, reason
from benchmarks.rows import OVERHEAD, START, Row
from benchmarks.timing import Timing
from benchmarks.workloads import Side, Task, Unavailable
from graphnet.graph import Machine, call_cost, compute_dtype
from graphnet.plan import Plan, Tiling

Record = dict[str, Any]
_PLAIN = "torch: eager, float32"
_LOSS_TOLERANCE = 0.01
_MOST_ERROR = 0.03  # of the mean difference of the losses: a larger one says nothing
_START_ROUNDS = 3


class Recorder:
    """Makes records of one workload; peaks and losses that several rows ask for are measured once."""

    def __init__(
        self,
        measured: Measured,
        *,
        device: torch.device,
        machine: Machine,
        effort: Effort,
        say: Say,
    ) -> None:
        self.measured = measured
        self.device = device
        self.machine = machine
        self.effort = effort
        self.say = say
        self.peaks: dict[str, float | None] = {}
        self.losses: dict[str, list[float]] = {}
        self.problems: dict[str, str] = {}

    def record(self, row: Row) -> Record:
        """The record of a row."""
        mine = self.measured.fastest(Side.GRAPHNET, (row.precision,), row.saving)
        torch_best = self.measured.fastest(Side.TORCH, row.opponents)
        jax = self.measured.fastest(Side.JAX, row.opponents)
        plain = self.measured.timings.get(_PLAIN)
        eager = self.eager(row)
        # On a GPU these processes have memory of their own; on CPUs they would take each other's time.
        with ThreadPoolExecutor(4 if self.device.type == "cuda" else 1) as pool:
            list(pool.map(self.peak, dict.fromkeys((mine, torch_best, plain, eager))))
        record: Record = {
            "row": row.name,
            "what": str(row.workload),
            "precision": row.precision,
            **_times("graphnet", mine),
            **_times("best_torch", torch_best),
            "ratio": _ratio(torch_best, mine),
            "plain_torch_ms": plain and plain.median_ms,
            "plain_ratio": _ratio(plain, mine),
            "jax_ms": jax and jax.median_ms,
            "peak_mb": self.peak(mine),
            "best_torch_peak_mb": self.peak(torch_best),
            "plain_torch_peak_mb": self.peak(plain),
        }
        record["peak_ratio"] = _share(record["peak_mb"], record["best_torch_peak_mb"])
        record |= self.predicted(row, eager) | self.loss(row)
        if row.saving:
            whole = self.measured.fastest(Side.GRAPHNET, (row.precision,))
            record["time_for_memory"] = _ratio(mine, whole)
        record["contenders"] = [
            {
                "name": name,
                "ms": timing.median_ms,
                "spread_ms": timing.spread_ms,
                "rounds": len(timing.rounds_ms),
            }
            for name, timing in sorted(
                self.measured.timings.items(), key=lambda item: item[1].median_ms
            )
        ]
        record["unavailable"] = {**self.measured.unavailable, **self.problems}
        return record

    def peak(self, timing: Timing | None) -> float | None:
        """The peak of a contender in MB, measured in a process of its own."""
        if timing is None:
            return None
        if timing.name not in self.peaks:
            self.say(f"{self.measured.workload.name}: memory of {timing.name}")
            try:
                found = peak_bytes(self.measured.workload, timing.name, self.device)
                self.peaks[timing.name] = found / 1e6
            except Unavailable as error:
                self.peaks[timing.name] = None
                self.problems[f"memory of {timing.name}"] = str(error)
        return self.peaks[timing.name]

    def eager(self, row: Row) -> Timing | None:
        """That of graphnet's eager executor."""
        found = (
            timing
            for name, timing in self.measured.timings.items()
            if (one := self.measured.contenders[name]).side is Side.GRAPHNET
            and (one.precision, one.saving) == (row.precision, row.saving)
            and one.setting.startswith("eager")
        )
        return next(found, None)

    def predicted(self, row: Row, eager: Timing | None) -> Record:
        """What the plan says: its peak, to be compared with the eager executor's, and the roofline."""
        if eager is None:
            return {"predicted_peak_mb": None, "eager_peak_mb": None, "roofline_ms": None}
        saving = row.saving or graphnet_side.NONE
        made = graphnet_side.planned(row.workload, row.precision, self.device, saving=saving)
        plan, runs = (made.plan, made.count) if isinstance(made, Tiling) else (made, 1)
        measured = self.peak(eager)
        predicted = made.peak_bytes / 1e6
        return {
            "predicted_peak_mb": predicted,
            "eager_peak_mb": measured,
            "prediction_error": measured and predicted / measured - 1.0,
            "roofline_ms": runs * roofline_ms(plan, self.machine),
        }

    def loss(self, row: Row) -> Record:
        """In bfloat16: the loss after some steps beside float32's, and whether it is as low.

        The loss in bfloat16 may be higher by 1 %, or by two standard errors of the difference, of at most
        3 %.
        """
        steps = self.effort.loss_steps
        if row.precision != "bfloat16" or row.workload.task is not Task.TRAIN or not steps:
            return {}
        both = {p: self.measured.fastest(Side.GRAPHNET, (p,)) for p in ("float32", "bfloat16")}
        found: dict[str, list[float]] = {}
        for precision, timing in both.items():
            if timing is None:
                return {}
            if timing.name not in self.losses:
                contender = self.measured.contenders[timing.name]
                self.say(f"{timing.name}: the loss after {steps} steps")
                self.losses[timing.name] = graphnet_side.loss_after(
                    row.workload,
                    contender.setting,
                    precision,
                    self.device,
                    steps=steps,
                    runs=self.effort.loss_runs,
                )
            found[precision] = self.losses[timing.name]
        pairs = zip(found["float32"], found["bfloat16"], strict=True)
        difference, error = _relative_difference([lowered / exact - 1 for exact, lowered in pairs])
        return {
            "loss_steps": steps,
            "loss_float32": statistics.fmean(found["float32"]),
            "loss_bfloat16": statistics.fmean(found["bfloat16"]),
            "loss_difference": difference,
            "loss_error": error,
            "counts": difference <= max(_LOSS_TOLERANCE, 2 * error) and error <= _MOST_ERROR,
        }


def _relative_difference(runs: Sequence[float]) -> tuple[float, float]:
    """The mean of differences, and its standard error."""
    error = statistics.stdev(runs) / math.sqrt(len(runs)) if len(runs) > 1 else 0.0
    return statistics.fmean(runs), error


def roofline_ms(plan: Plan, machine: Machine) -> float:
    """The time below which no step of a plan can be: bytes over bandwidth, or operations over ceiling."""
    total = 0.0
    for step in plan.steps:
        cost = call_cost(step.call, plan.values)
        ceiling = machine.ceiling(compute_dtype(step.call, plan.values))
        total += max(cost.bytes_moved / machine.bandwidth, cost.flops / ceiling)
    return 1e3 * total


def overhead_record(device: torch.device, effort: Effort) -> Record:
    """The record of what generated code costs; the opponent is the handwritten step."""
    found = overhead.measure(device, budget_s=effort.budget_s)
    return {
        "row": OVERHEAD,
        "what": f"{overhead.LAYERS} tiny layers, generated and handwritten step",
        "precision": "float32",
        "graphnet_ms": found.generated_ms,
        "graphnet": "eager, aten kernels",
        "best_torch_ms": found.handwritten_ms,
        "best_torch": "handwritten, the same operators",
        "ratio": found.handwritten_ms / found.generated_ms,
        "overhead_us_per_layer": found.per_layer_us,
        "rounds": found.rounds,
        "unavailable": {},
    }


def start_record(effort: Effort, say: Say) -> Record:
    """The record of the start: graphnet's eager executor and plain torch, the others beside them."""
    rounds = _START_ROUNDS if effort.compiled else 1
    starts, unavailable = first_step.measure(rounds=rounds, compiled=effort.compiled, say=say)
    mine, theirs = (
        next(start for start in starts if start.name == f"{side}: eager")
        for side in ("graphnet", "torch")
    )
    return {
        "row": START,
        "what": "process start to the first training step of the paper's network",
        "precision": "float32",
        "graphnet_ms": 1e3 * mine.first_s,
        "graphnet": "eager",
        "best_torch_ms": 1e3 * theirs.first_s,
        "best_torch": "eager",
        "ratio": theirs.first_s / mine.first_s,
        "later_s": mine.first_s - theirs.first_s,
        "starts": [asdict(start) for start in starts],
        "unavailable": unavailable,
    }


def guarded(name: str, make: Callable[[], Record]) -> Record:
    """The record of a row, or one that says why there is none."""
    try:
        return make()
    except Exception as error:  # one row that fails must not take the others with it
        return {
            "row": name,
            "graphnet_ms": None,
            "best_torch_ms": None,
            "ratio": None,
            "unavailable": {name: reason(error)},
        }


def _times(side: str, timing: Timing | None) -> Record:
    if timing is None:
        return {f"{side}_ms": None, side: None}
    return {f"{side}_ms": timing.median_ms, side: timing.name.partition(": ")[2]}


def _ratio(theirs: Timing | None, mine: Timing | None) -> float | None:
    return theirs.median_ms / mine.median_ms if theirs and mine else None


def _share(mine: float | None, theirs: float | None) -> float | None:
    return mine / theirs if mine and theirs else None
