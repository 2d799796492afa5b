"""Fits: a plan that needs more memory than its device has is refused before anything is allocated."""

from __future__ import annotations

from graphnet.errors import MemoryBudgetError
from graphnet.plan import Plan
from graphnet.system import bytes_text, device_memory

_NAMED = 3  # of the largest values
_MARGIN = 0.95  # of the memory, since some of the rest does not depend on the batch


def fitting(plan: Plan) -> Plan:
    """Return a plan; raise MemoryBudgetError if its predicted peak is more than the memory of its device."""
    device = next(iter(plan.values.values())).spec.device
    limit = device_memory(device)
    if limit is None or plan.peak_bytes <= limit:
        return plan
    largest = sorted(plan.values.values(), key=lambda value: -value.spec.size_bytes)[:_NAMED]
    named = ", ".join(
        f"{value.label} ({value.spec}, {bytes_text(value.spec.size_bytes)})" for value in largest
    )
    has = f"device {device} has" if device.type == "cuda" else "machine has"
    raise MemoryBudgetError(
        f"the plan needs {bytes_text(plan.peak_bytes)} at its peak, and the {has} {bytes_text(limit)}. "
        f"Its largest values: {named}. {_advice(plan, limit)}"
    )


def _advice(plan: Plan, limit: int) -> str:
    """Say what would fit."""
    weights = sum(plan.values[name].spec.size_bytes for name in plan.slots)
    if weights > limit:
        return (
            f"The weights and the optimizer's states alone take {bytes_text(weights)}: make layers narrower, "
            f"or choose another optimizer."
        )
    batch = max((plan.values[name].spec.shape[:1] or (1,))[0] for name in plan.inputs)
    per_sample = max(1, (plan.peak_bytes - weights) // max(1, batch))
    if (fits := int(_MARGIN * (limit - weights) / per_sample)) >= 1:
        return (
            f"A batch of about {fits} would fit. A memory budget (memory='{limit >> 31 or 1}GiB') recomputes "
            f"values in training, and predicts images in tiles."
        )
    return (
        f"Even one sample does not fit. Take smaller images, or set a memory budget "
        f"(memory='{limit >> 31 or 1}GiB'), with which images are predicted in tiles."
    )
