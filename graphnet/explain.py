"""Explain: a plan as a table that people read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphnet.graph import Kind, flatten
from graphnet.layer import Layer

if TYPE_CHECKING:  # a plan explains itself through this module
    from graphnet.plan import Plan


def explain(plan: Plan) -> str:
    """One line a step: what runs, what it makes, the bytes alive, what it frees and what it keeps."""
    kept = kept_for_reverse(plan)
    rows: list[Sequence[str]] = [
        ("step", "node", "what", "makes", "alive", "reads", "frees", "keeps for reverse")
    ]
    for number, (step, alive) in enumerate(zip(plan.steps, plan.memory(), strict=True)):
        call = step.call
        made = [plan.values[name].spec for name in call.makes() if name not in call.writes]
        rows.append(
            (
                str(number),
                call.node,
                f"{call.title} {call.kind}"
                if call.kind not in (Kind.LAYER, Kind.LOSS)
                else call.title,
                ", ".join(str(spec) for spec in made)
                or f"writes {', '.join(call.writes.values())}",
                bytes_text(alive),
                " ".join(call.reads()),
                " ".join(step.frees) or "-",
                " ".join(kept.get(call.name, ())) or "-",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", summary(plan)])


def summary(plan: Plan) -> str:
    """The totals of a plan in one line."""
    parameters = [plan.values[name].spec for name in plan.of(Kind.PARAMETER)]
    states = [plan.values[name].spec for name in plan.of(Kind.STATE)]
    parts = [
        f"{len(plan.steps)} steps",
        f"{sum(spec.numel for spec in parameters):,} parameters in {len(parameters)} tensors",
    ]
    if states:
        parts.append(f"{bytes_text(sum(spec.size_bytes for spec in states))} of state")
    parts.append(f"peak {bytes_text(plan.peak_bytes)}")
    return ", ".join(parts)


def bytes_text(count: int) -> str:
    """
    >>> bytes_text(1536)
    '1.5 KiB'
    """
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def kept_for_reverse(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Forward call -> its arguments and results that a backward step still reads."""
    read_late = {
        name
        for step in plan.steps
        if step.call.kind is Kind.BACKWARD
        for name in flatten(step.call.args)
    }
    kept: dict[str, tuple[str, ...]] = {}
    for step in plan.steps:
        if step.call.kind in (Kind.LAYER, Kind.LOSS) and isinstance(step.call.layer, Layer):
            names = (*step.call.reads(), *step.call.makes())
            kept[step.call.name] = tuple(
                name
                for name in names
                if name in read_late and plan.values[name].kind not in (Kind.PARAMETER, Kind.INPUT)
            )
    return kept
