"""Run: measure the rows asked for, workload by workload, into one object for JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks import contenders, records
from benchmarks.measure import Effort, Say, measure
from benchmarks.records import Record, Recorder
from benchmarks.rows import OVERHEAD, ROWS, START, Row, needed
from benchmarks.timing import machine as facts
from benchmarks.timing import settle
from graphnet.graph import Machine, machine_data
from graphnet.inspection import measure as measure_machine

Result = dict[str, Any]
# Seconds on two CPU cores, for the estimate.
_COMPILE_S, _WARM_S, _PROCESS_S, _LOSS_S, _START_S = 5.0, 0.5, 6.0, 60.0, 180.0


def run(
    names: Sequence[str],
    *,
    device: torch.device,
    effort: Effort,
    say: Say,
) -> Iterator[Result]:
    """Measure rows by name, and yield the result so far after each; `say` is told what is going on.

    A result has `machine`, `roofline` (the numbers behind roofline_ms), `started`, `elapsed_s`, `rows`.
    """
    started, clock = time.strftime("%Y-%m-%d %H:%M"), time.perf_counter()
    settle(device)
    numbers = measure_machine(device, say=say)
    found: list[Record] = []
    for record in _records(names, device=device, effort=effort, say=say, machine=numbers):
        found.append(record)
        yield {
            "machine": facts(device),
            "roofline": machine_data(numbers),
            "started": started,
            "elapsed_s": round(time.perf_counter() - clock, 1),
            "rows": found,
        }


def _records(
    names: Sequence[str], *, device: torch.device, effort: Effort, say: Say, machine: Machine
) -> Iterator[Record]:
    rows = [row for row in ROWS if row.name in names]
    for workload, precisions in needed(rows).items():
        measured = measure(workload, precisions, device=device, effort=effort, say=say)
        recorder = Recorder(measured, device=device, machine=machine, effort=effort, say=say)
        for row in rows:
            if row.workload is workload:
                yield records.guarded(row.name, partial(recorder.record, row))
    if OVERHEAD in names:
        say("the overhead of generated code")
        yield records.guarded(OVERHEAD, partial(records.overhead_record, device, effort))
    if START in names:
        yield records.guarded(START, partial(records.start_record, effort, say))


def estimate_s(names: Sequence[str], *, device: torch.device, effort: Effort) -> float:
    """About how long the rows take on two CPU cores, in seconds."""
    rows = [row for row in ROWS if row.name in names]
    total = sum(_workload_s(workload.name, rows, device, effort) for workload in needed(rows))
    total += effort.budget_s if OVERHEAD in names else 0.0
    return total + (_START_S if START in names and effort.compiled else 0.0)


def _workload_s(name: str, rows: Sequence[Row], device: torch.device, effort: Effort) -> float:
    mine = [row for row in rows if row.workload.name == name]
    (precisions,) = needed(mine).values()
    found = [c for c in contenders.of(mine[0].workload, device) if c.precision in precisions]
    compiled = sum(c.compiled for c in found) if effort.compiled else 0
    lowered = "bfloat16" in precisions and name.endswith("train") and effort.loss_steps
    return (
        compiled * _COMPILE_S
        + len(found) * _WARM_S
        + 1.5 * effort.budget_s
        + (1 + 2 * len(mine)) * _PROCESS_S
        + (_LOSS_S if lowered else 0.0)
    )
