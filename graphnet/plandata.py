"""Plandata: a plan taken apart as plain data, for JSON and for the page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from graphnet.breakdown import Breakdown, Row, Timing, Total, breakdown
from graphnet.graph import Value
from graphnet.machine import dtype_name


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
        "method": call.method,
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
