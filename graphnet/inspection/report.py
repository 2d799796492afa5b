"""Breakdown: what each step of a plan costs, holds in memory, and keeps for the reverse pass.

`breakdown` reads it all off a plan, as inert data that the table, the JSON and the page are written from.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import torch

from graphnet.graph import Call, Cost, Kind, Machine, Value, call_cost, compute_dtype
from graphnet.plan import Plan
from graphnet.sdk import dtype_name


class Phase(StrEnum):
    """What a step is for."""

    FORWARD = "forward"
    RECOMPUTE = "recompute"
    REVERSE = "reverse"
    UPDATE = "update"


_PHASES = {
    Kind.BACKWARD: Phase.REVERSE,
    Kind.ACCUMULATE: Phase.REVERSE,
    Kind.SCALE: Phase.UPDATE,
    Kind.UPDATE: Phase.UPDATE,
}


def phase_of(call: Call) -> Phase:
    """The phase that a call belongs to; what is computed a second time has its own."""
    return Phase.RECOMPUTE if call.repeats else _PHASES.get(call.kind, Phase.FORWARD)


@dataclass(frozen=True, slots=True)
class Storage:
    """Memory that a value lives in, with the views of it and what is written over it.

    `name` is the value that it was allocated for. It is alive during the steps `first` to `last`; an
    argument of the plan during all of them. `kept_for` are the steps of the reverse pass that read it,
    where an earlier phase made it.
    """

    name: str
    kind: Kind
    size_bytes: int
    first: int
    last: int
    kept_for: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One step: its call, what that takes, and the bytes alive while it runs.

    `seconds` is the least time by the machine's numbers, `makes` are the storages that it allocates,
    `work_bytes` is what it holds on the way to them.
    """

    number: int
    call: Call
    phase: Phase
    cost: Cost
    seconds: float
    alive_bytes: int
    work_bytes: int
    frees: tuple[str, ...]
    makes: tuple[Storage, ...]


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over the steps of one phase, or of all."""

    steps: int
    cost: Cost
    seconds: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Measured: median seconds of each step, and of the whole eager function without a clock in it."""

    steps: tuple[float, ...]
    whole: float
    rounds: int


@dataclass(frozen=True)
class Breakdown:
    """A plan taken apart: a row for each step, every storage, and the machine it is judged by."""

    plan: Plan
    machine: Machine
    rows: tuple[Row, ...]
    storages: tuple[Storage, ...]

    def total(self, *phases: Phase) -> Total:
        """The sums over the steps of these phases; of all steps where none is named."""
        rows = [row for row in self.rows if not phases or row.phase in phases]
        return Total(
            len(rows),
            sum((row.cost for row in rows), Cost()),
            sum(row.seconds for row in rows),
        )

    @functools.cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The phases that have steps."""
        present = {row.phase for row in self.rows}
        return tuple(phase for phase in Phase if phase in present)

    @functools.cached_property
    def peak_step(self) -> int:
        """The first step at which most bytes are alive."""
        return max(range(len(self.rows)), key=lambda i: (self.rows[i].alive_bytes, -i), default=0)

    @property
    def peak_bytes(self) -> int:
        return max((row.alive_bytes for row in self.rows), default=0)

    def alive(self, step: int) -> tuple[Storage, ...]:
        """The storages alive during a step, largest first."""
        found = [one for one in self.storages if one.first <= step <= one.last]
        return tuple(sorted(found, key=lambda one: (-one.size_bytes, one.first, one.name)))


def breakdown(plan: Plan, machine: Machine) -> Breakdown:
    """Take a plan apart."""
    storages = _storages(plan)
    made: dict[int, list[Storage]] = {}
    for storage in storages:
        made.setdefault(storage.first, []).append(storage)
    rows = []
    for number, (step, alive_bytes) in enumerate(zip(plan.steps, plan.memory(), strict=True)):
        cost = call_cost(step.call, plan.values)
        rows.append(
            Row(
                number=number,
                call=step.call,
                phase=phase_of(step.call),
                cost=cost,
                seconds=machine.seconds(cost, compute_dtype(step.call, plan.values)),
                alive_bytes=alive_bytes,
                work_bytes=plan.memory_use.items[number].work_bytes,
                frees=step.frees,
                makes=tuple(made.get(number, ())),
            )
        )
    return Breakdown(plan, machine, tuple(rows), storages)


def _storages(plan: Plan) -> tuple[Storage, ...]:
    """Arguments first, then in the order in which steps make them."""
    use, end = plan.memory_use, len(plan.steps) - 1
    readers: dict[int, dict[int, None]] = {}
    for number, (step, one) in enumerate(zip(plan.steps, use.items, strict=True)):
        if phase_of(step.call) in (Phase.REVERSE, Phase.RECOMPUTE):
            for storage in one.reads:
                readers.setdefault(storage, {})[number] = None
    arguments = [use.storages.number[name] for name in plan.arguments]
    found = []
    for storage in (*arguments, *(storage for one in use.items for storage in one.makes)):
        name, first = use.storages.names[storage], use.lifetimes.first[storage]
        found.append(
            Storage(
                name=name,
                kind=plan.values[name].kind,
                size_bytes=use.storages.sizes[storage],
                first=first,
                last=min(use.lifetimes.end[storage], end),
                kept_for=tuple(readers.get(storage, ())) if _is_early(plan, first) else (),
            )
        )
    return tuple(found)


def _is_early(plan: Plan, step: int) -> bool:
    return step >= 0 and phase_of(plan.steps[step].call) is Phase.FORWARD


def device_of(plan: Plan) -> torch.device:
    """The device that a plan runs on."""
    return next((value.spec.device for value in plan.values.values()), torch.device("cpu"))


def short_name(value: str, node: str) -> str:
    """A value's name as its own node's row shows it: ".y" for "enc.conv.y"."""
    return value.removeprefix(node) if value.startswith(f"{node}.") else value


def to_data(seen: Breakdown, *, timing: Timing | None = None) -> dict[str, Any]:
    """Everything as plain data, for JSON: bytes, operations and seconds as they are."""
    steps = [_row(seen, row) for row in seen.rows]
    for step, elapsed in zip(steps, timing.steps if timing else (), strict=False):
        step["measured_s"] = elapsed
    phases = {str(phase): _total(seen.total(phase)) for phase in seen.phases}
    return {
        "steps": steps,
        "storages": [
            {
                "name": one.name,
                "kind": str(one.kind),
                "bytes": one.size_bytes,
                "first": one.first,
                "last": one.last,
                "kept_for": list(one.kept_for),
            }
            for one in seen.storages
        ],
        "measured": asdict(timing) if timing else None,
        "totals": {**phases, "total": _total(seen.total())},
        "peak": {
            "bytes": seen.peak_bytes,
            "step": seen.peak_step,
            "alive": [one.name for one in seen.alive(seen.peak_step)],
        },
        "machine": asdict(seen.machine),
        "prelude": _prelude(seen),
        "passes": [asdict(change) for change in seen.plan.changes],
    }


def _prelude(seen: Breakdown) -> list[dict[str, Any]]:
    """The steps of what is computed ahead."""
    if seen.plan.prelude is None:
        return []
    early = breakdown(seen.plan.prelude, seen.machine)
    return [_row(early, row) for row in early.rows]


def _row(seen: Breakdown, row: Row) -> dict[str, Any]:
    call, values = row.call, seen.plan.values
    return {
        "step": row.number,
        "call": call.name,
        "node": call.node,
        "title": call.title,
        "kind": str(call.kind),
        "phase": str(row.phase),
        "definition": type(call.layer).__name__,
        "method": call.function,
        "where": call.where,
        "reads": list(dict.fromkeys(call.reads())),
        "makes": [_value(values[name]) for name in call.makes()],
        "writes": dict(call.writes),
        "bytes_read": row.cost.bytes_read,
        "bytes_written": row.cost.bytes_written,
        "flops": row.cost.flops,
        "alive_bytes": row.alive_bytes,
        "at_least_s": row.seconds,
        "frees": list(row.frees),
        "kept_for": {one.name: list(one.kept_for) for one in row.makes if one.kept_for},
    }


def _value(value: Value) -> dict[str, Any]:
    return {
        "name": value.name,
        "shape": list(value.spec.shape),
        "dtype": dtype_name(value.spec.dtype),
        "layout": None if value.layout is None else [list(block) for block in value.layout],
        "view_of": value.view_of,
    }


def _total(total: Total) -> dict[str, Any]:
    return {
        "steps": total.steps,
        "bytes_read": total.cost.bytes_read,
        "bytes_written": total.cost.bytes_written,
        "flops": total.cost.flops,
        "at_least_s": total.seconds,
    }
