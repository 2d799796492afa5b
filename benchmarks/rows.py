"""Rows: the lines of the table, each a question put to what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from benchmarks.workloads import WORKLOADS, Saving, Workload


@dataclass(frozen=True)
class Row:
    """graphnet's best in one precision against torch's best.

    In a bfloat16 row torch's best is its fastest setting of any precision; in a float32 row all compute
    in float32. With a `saving`, graphnet runs with that.
    """

    name: str
    workload: Workload
    precision: str
    saving: Saving | None = None

    @property
    def opponents(self) -> tuple[str, ...]:
        """The precisions that torch and JAX may compute in."""
        both = self.workload.precisions
        return both if self.precision == "bfloat16" else ("float32",)


_SHORT = {"float32": "fp32", "bfloat16": "bf16"}
OVERHEAD = "d-overhead"
START = "a32-start"
ROWS = tuple(
    Row(f"{workload.name}{suffix}-{_SHORT[precision]}", workload, precision, saving)
    for workload in WORKLOADS
    for saving, suffix in (
        (None, ""),
        *((saving, f"-{saving.name}") for saving in workload.savings),
    )
    for precision in workload.precisions
)
NAMES = (*(row.name for row in ROWS), OVERHEAD, START)


def on(device: torch.device) -> tuple[str, ...]:
    """The rows that are measured on a device."""
    elsewhere = {row.name for row in ROWS if device.type not in row.workload.devices}
    return tuple(name for name in NAMES if name not in elsewhere)


def describe(name: str) -> str:
    """One line about a row."""
    if name == OVERHEAD:
        return (
            "200 tiny layers: the generated step minus a handwritten function with the same calls"
        )
    if name == START:
        return "the paper's network: from process start to the first step and to steady state"
    row = next(row for row in ROWS if row.name == name)
    saving = f", {row.saving}" if row.saving else ""
    return f"{row.workload}, {row.precision}{saving}"


def needed(rows: Iterable[Row]) -> dict[Workload, tuple[str, ...]]:
    """Workload -> the precisions to be measured for these rows."""
    found: dict[Workload, set[str]] = {}
    for row in rows:
        found.setdefault(row.workload, set()).update((row.precision, *row.opponents))
    return {
        workload: tuple(p for p in workload.precisions if p in precisions)
        for workload, precisions in found.items()
    }
