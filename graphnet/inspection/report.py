"""Report: the cost and the memory of each step of a plan, as data.

`breakdown` computes the data from a plan; the table, the JSON and the page are written from it.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from graphnet.graph import (
    Call,
    Cost,
    Kind,
    Machine,
    Network,
    Value,
    call_cost,
    compute_dtype,
    stated_network,
)
from graphnet.plan import Plan
from graphnet.sdk import Exchange, dtype_name


class Phase(StrEnum):
    """The part of a training step that a call belongs to."""

    FORWARD = "forward"
    RECOMPUTE = "recompute"
    REVERSE = "reverse"
    EXCHANGE = "exchange"
    UPDATE = "update"


_PHASES = {
    Kind.BACKWARD: Phase.REVERSE,
    Kind.ACCUMULATE: Phase.REVERSE,
    Kind.WAIT: Phase.EXCHANGE,
    Kind.SCALE: Phase.UPDATE,
    Kind.UPDATE: Phase.UPDATE,
}


def phase_of(call: Call) -> Phase:
    """Return the phase of a call.

    RECOMPUTE is for values that are computed a second time, EXCHANGE for what processes tell each other.
    """
    if isinstance(call.layer, Exchange):
        return Phase.EXCHANGE
    return Phase.RECOMPUTE if call.repeats else _PHASES.get(call.kind, Phase.FORWARD)


@dataclass(frozen=True, slots=True)
class Storage:
    """The memory of one value, which its views and the values that overwrite it share.

    Args:
        name: the value for which the memory was allocated.
        kind: the kind of that value.
        size_bytes: the size.
        first, last: the memory is in use from the step `first` to the step `last`; `first` is -1 for an
            argument of the plan.
        kept_for: the steps of the reverse pass that read it, if the forward pass computed it.
    """

    name: str
    kind: Kind
    size_bytes: int
    first: int
    last: int
    kept_for: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One step: its call, its cost, and the memory in use while it runs.

    Args:
        seconds: the least time that the machine's numbers allow; of an exchange, its time by the numbers of
            the network.
        alive_bytes: the memory in use, the temporary memory of the step included.
        work_bytes: the temporary memory of the step.
        frees: the values that are freed after the step.
        makes: the storages that the step allocates.
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
    """The sums over the steps of one phase, or over all steps."""

    steps: int
    cost: Cost
    seconds: float


@dataclass(frozen=True, slots=True)
class Timing:
    """The measured median seconds of each step, and of the whole eager function without a clock in it."""

    steps: tuple[float, ...]
    whole: float
    rounds: int


@dataclass(frozen=True)
class Breakdown:
    """The rows and storages of a plan, and the machine and network from whose numbers the times follow."""

    plan: Plan
    machine: Machine
    network: Network
    rows: tuple[Row, ...]
    storages: tuple[Storage, ...]

    def total(self, *phases: Phase) -> Total:
        """Return the sums over the steps of these phases; without arguments, over all steps."""
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
        """The first step at which the most memory is in use."""
        return max(range(len(self.rows)), key=lambda i: (self.rows[i].alive_bytes, -i), default=0)

    @property
    def peak_bytes(self) -> int:
        return max((row.alive_bytes for row in self.rows), default=0)

    def alive(self, step: int) -> tuple[Storage, ...]:
        """Return the storages that are in use during a step, the largest first."""
        found = [one for one in self.storages if one.first <= step <= one.last]
        return tuple(sorted(found, key=lambda one: (-one.size_bytes, one.first, one.name)))


def breakdown(plan: Plan, machine: Machine, network: Network | None = None) -> Breakdown:
    """Compute the cost and memory of each step of a plan.

    Args:
        plan: the plan.
        machine: the numbers from which the least times follow.
        network: those from which the times of exchanges between processes follow; None for stated numbers.
    """
    storages, network = _storages(plan), network or stated_network(plan.device)
    made: dict[int, list[Storage]] = {}
    for storage in storages:
        made.setdefault(storage.first, []).append(storage)
    rows = []
    for number, (step, alive_bytes) in enumerate(zip(plan.steps, plan.memory(), strict=True)):
        call, cost = step.call, call_cost(step.call, plan.values)
        if isinstance(call.layer, Exchange):
            seconds = network.seconds(call, plan.values)
        else:
            seconds = machine.seconds(cost, compute_dtype(call, plan.values))
        rows.append(
            Row(
                number=number,
                call=call,
                phase=phase_of(call),
                cost=cost,
                seconds=seconds,
                alive_bytes=alive_bytes,
                work_bytes=plan.memory_use.items[number].work_bytes,
                frees=step.frees,
                makes=tuple(made.get(number, ())),
            )
        )
    return Breakdown(plan, machine, network, tuple(rows), storages)


def _storages(plan: Plan) -> tuple[Storage, ...]:
    """Return the storages: those of the arguments, then the others in the order of the steps."""
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


def short_name(value: str, node: str) -> str:
    """Return a value's name without that of its node: ".y" for "enc.conv.y" of the node "enc.conv"."""
    return value.removeprefix(node) if value.startswith(f"{node}.") else value


def to_data(seen: Breakdown, *, timing: Timing | None = None) -> dict[str, Any]:
    """Return all numbers as plain data for JSON, in bytes, operations and seconds."""
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
    """Return the steps of the prelude, which computes the values that depend on weights alone."""
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
