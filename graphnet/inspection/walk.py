"""Walk: run a plan step by step on the reference executor, and look at its values after each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from graphnet.errors import InputError
from graphnet.executors import Reference, prepare
from graphnet.graph import CAST, Call, Kind
from graphnet.model import set_up
from graphnet.plan import Plan, Step


def complete(plan: Plan, tensors: Mapping[str, Tensor], *, seed: int = 0) -> dict[str, Tensor]:
    """Return all arguments of a plan by name: the given tensors, and initial values for the others.

    Missing parameters and states are drawn from `seed`; casts of parameters are computed; missing scalars,
    such as the learning rate, are 0.

    Raises:
        InputError: an input or target is missing, or a tensor has another shape than the plan expects.
    """
    found = dict(tensors)
    for name in plan.arguments:
        value = plan.values[name]
        if name not in found and value.kind is Kind.INPUT:
            raise InputError(f"{value.label}: must be given, as {value.spec}")
        if name not in found and value.kind is Kind.SCALAR:
            found[name] = torch.zeros((), dtype=value.spec.dtype, device=value.spec.device)
        elif name in found and tuple(found[name].shape) != value.spec.shape:
            raise InputError(
                f"{value.label}: expected {value.spec}, got {tuple(found[name].shape)}"
            )
    ahead = plan.of(Kind.PRELUDE)
    fresh = [plan.values[name] for name in plan.arguments if name not in (*found, *ahead)]
    found.update(set_up([value for value in fresh if value.role != CAST], seed=seed))
    casts = [value for value in fresh if value.role == CAST]
    found.update({value.name: found[value.of].to(value.spec.dtype) for value in casts})
    if plan.prelude is not None and not found.keys() >= set(ahead):
        weights = complete(plan.prelude, {n: found[n] for n in plan.prelude.slots})
        made = prepare(plan.prelude, "reference")(*weights.values())
        found = dict(zip(plan.prelude.outputs, made, strict=True)) | found
    return {name: found[name] for name in plan.arguments}


def walk(plan: Plan, tensors: Mapping[str, Tensor]) -> Iterator[tuple[Step, dict[str, Tensor]]]:
    """Run a plan on the reference executor; after each step, yield the step and the values in memory by name.

    The values that the step read are still in memory. Updates write copies, not the given tensors.
    Raises LayerError if a layer's code fails.
    """
    steps = [replace(step, call=step.call.pure()) for step in plan.steps]
    written = {slot for step in steps for slot in step.call.writes.values()}
    values = {name: t.clone() if name in written else t for name, t in tensors.items()}
    for step in steps:
        execute(plan, step.call, values)
        yield step, values
        for name in step.frees:
            del values[name]


@torch.no_grad()
def execute(plan: Plan, call: Call, values: dict[str, Tensor]) -> None:
    """Run one call of a plan: read its arguments from `values`, and put its results there."""
    Reference().prepare(plan).execute(call, values)
