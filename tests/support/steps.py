"""Graphs of whole training steps, and their runs on tensors from a fixed seed."""

from __future__ import annotations

import torch
from torch import Tensor

from graphnet.builtin import MSE, SGD
from graphnet.description import LossTerm, ModelDescription, UpdateSettings, expand
from graphnet.executors import prepare
from graphnet.graph import Call, Graph, Kind, aliases, build
from graphnet.model import set_up
from graphnet.passes import (
    attach_loss,
    block_layout,
    choose,
    common_subexpressions,
    dead_code,
    differentiate,
    mixed_precision,
    overwritable,
    plain_calls,
    recompute,
    substitute,
    update,
)
from graphnet.passes.recompute import Recomputed
from graphnet.plan import Plan
from graphnet.sdk import Registry, Run, Spec

SHAPE = (2, 4, 4, 4)


def step_graph(
    description: ModelDescription,
    registry: Registry,
    *,
    kernels: str = "auto",
    shape: tuple[int, ...] = SHAPE,
    dtype: torch.dtype = torch.float64,
    compute: str | None = None,
) -> Graph:
    """A training step with SGD, before recomputing and working in place."""
    inputs = [Spec(shape, dtype)] * len(description.inputs)
    graph = build(expand(description, registry), inputs=inputs, dtype=dtype)
    graph = attach_loss(graph, {"output": [LossTerm(MSE(), "mse")]})
    if compute is not None:
        graph = mixed_precision(graph, compute=compute)
    chosen = choose(registry, kernels)
    plain = plain_calls(graph, kernels=chosen, registry=registry)
    graph = substitute(graph, kernels=chosen, registry=registry, plain=plain)
    graph = block_layout(graph, packed_inputs=True)
    graph = update(differentiate(graph), updates=UpdateSettings(optimizer=SGD(lr=0.1)))
    return common_subexpressions(dead_code(graph))


def one_second(call: Call) -> float:
    """Every call takes as long as any other."""
    return 1.0


def recomputed(graph: Graph, memory_bytes: int) -> Recomputed:
    """The graph within a budget, for the in-place pass to follow."""
    fits = overwritable(aliases(graph))
    return recompute(graph, memory_bytes=memory_bytes, seconds=one_second, overwrites=fits)


def tensors(plan: Plan, *, seed: int = 0) -> dict[str, Tensor]:
    """Everything that the plan's function takes, drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    made = set_up([plan.values[n] for n in plan.of(Kind.CONSTANT) + plan.slots], seed=seed)
    for name in plan.inputs:
        spec = plan.values[name].spec
        made[name] = torch.rand(spec.shape, generator=generator, dtype=spec.dtype)
    for name in plan.of(Kind.SCALAR):
        dtype = plan.values[name].spec.dtype
        made[name] = torch.tensor(0.1 if dtype.is_floating_point else 3, dtype=dtype)
    return made


def run(plan: Plan, executor: str) -> dict[str, Tensor]:
    """The loss, and the slots after a step by "eager" or "reference", by name."""
    return run_by(prepare(plan, executor), plan)


def run_by(prepared: Run, plan: Plan) -> dict[str, Tensor]:
    """The loss, and the slots after one step of a prepared plan, by name."""
    values = tensors(plan)
    with torch.no_grad():
        (loss,) = prepared(*(values[name] for name in plan.arguments))
    return {"loss": loss, **{name: values[name] for name in plan.slots}}
