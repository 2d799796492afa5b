"""Loss scale: in float16 the reverse pass starts from a multiple of the loss, so no gradient becomes 0.

float16 has no numbers between 0 and 6e-8. Before the updates each gradient is divided by the scale, in the
dtype of its parameter. The scale adapts itself (Micikevicius et al. 2018, "Mixed precision training",
section 3.2) with the numbers of torch.amp.GradScaler: a step with a gradient that is not finite updates no
parameter and halves the scale; 2000 good steps in a row double it. Scale and counts are slots on the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from graphnet.graph import Arg, Call, Graph, Kind, Value, flatten
from graphnet.passes.differentiate import differentiate
from graphnet.passes.rewrite import multiplied, write
from graphnet.passes.shard_optimizer import norms_of_gradients
from graphnet.sdk import (
    ALONE,
    Constant,
    Definition,
    IfFinite,
    Layer,
    MultiTensorKernel,
    Optimizer,
    Processes,
    Spec,
    Times,
    norms,
)

# Slots: the scale, the number of updates, and the number of good steps since the scale changed.
# FINITE is a value of each step: whether all its gradients are finite.
SCALE, DONE, GOOD, FINITE = "@loss:scale", "@loss:updates", "@loss:good_steps", "@loss:finite"
_INVERSE, _START = "@loss:inverse", "@loss:start"
_INITIAL = 2.0**16
_INTERVAL = 2000
_NODE = "@loss"


class AllFinite(Layer):
    """Whether all elements of all xs are finite: 0-dim bool."""

    def forward(self, *xs: Tensor) -> Tensor:
        return norms(xs, math.inf).isfinite().all()


class Inverse(Layer):
    """1 / x."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reciprocal()


class FollowFit(Definition):
    """Halve the scale after a gradient that is not finite; double it after `interval` good steps.

    The scale stays finite in float32. `done` counts the updates that were not skipped.
    """

    interval: int = _INTERVAL

    def update(self, scale: Tensor, good: Tensor, done: Tensor, finite: Tensor) -> None:
        row = torch.where(finite, good + 1, 0)
        grown = torch.where(row == self.interval, scale * 2.0, scale)
        grown = torch.where(grown.isfinite(), grown, scale)
        scale.copy_(torch.where(finite, grown, scale * 0.5))
        good.copy_(row % self.interval)
        done.add_(finite)


def differentiate_scaled(graph: Graph, *, share: float = 1.0) -> Graph:
    """Add the reverse pass of loss * share * scale; the scale is a new slot."""
    (loss,) = graph.outputs
    calls, values = dict(graph.calls), dict(graph.values)
    spec = values[loss].spec
    values[SCALE] = _slot(SCALE, spec, _INITIAL, "scale")
    if share != 1.0:
        values[_START] = Value(_START, spec, Kind.SCALE)
        calls[_START] = _scalar(_START, Times(factor=share), SCALE, "share")
    start = SCALE if share == 1.0 else _START
    return differentiate(replace(graph, calls=calls, values=values), start=start)


def unscale(graph: Graph, *, processes: Processes = ALONE) -> Graph:
    """Divide the gradients by the scale, and update the scale by whether all of them are finite."""
    if not graph.gradients:
        return graph
    calls, values = dict(graph.calls), dict(graph.values)
    scalar = values[SCALE].spec
    values[GOOD] = _slot(GOOD, replace(scalar, dtype=torch.int32), 0, "good steps")
    values[DONE] = _slot(DONE, replace(scalar, dtype=torch.int64), 0, "updates done")
    values[_INVERSE] = Value(_INVERSE, scalar, Kind.SCALE)
    values[FINITE] = Value(FINITE, replace(scalar, dtype=torch.bool), Kind.SCALE)
    calls[_INVERSE] = _scalar(_INVERSE, Inverse(), SCALE, "inverse")
    gradients = multiplied(
        graph.gradients, _INVERSE, "unscale", "unscaled", calls=calls, values=values
    )
    graph = replace(graph, calls=calls, values=values, gradients=gradients)
    graph, names = norms_of_gradients(graph, "inf", processes=processes)
    calls, values = dict(graph.calls), dict(graph.values)
    calls[FINITE] = _scalar(FINITE, AllFinite(), names, "all finite")
    args = (SCALE, GOOD, DONE, FINITE)
    follow = write(values, FollowFit(), "scale", args, (SCALE, GOOD, DONE), _NODE)
    calls[follow.name] = follow
    return replace(graph, calls=calls, values=values)


def skip(graph: Graph) -> Graph:
    """Let the optimizers write only in steps in which all gradients are finite."""
    calls = {
        name: _guarded(call) if _optimizes(call) else call for name, call in graph.calls.items()
    }
    return replace(graph, calls=calls)


def skipped(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    """Whether a step updated nothing because a gradient was not finite.

    In a plan that only adds up gradients (passes/accumulate.py), the slots are not finite after such a step.

    Args:
        before: the plan's slots by name, before the step.
        after: the same slots after the step.
    """
    if DONE in before:
        return torch.equal(before[DONE], after[DONE])
    return SCALE in before and not all(bool(after[slot].isfinite().all()) for slot in before)


def _optimizes(call: Call) -> bool:
    rule = call.layer.rule if isinstance(call.layer, MultiTensorKernel) else call.layer
    return isinstance(rule, Optimizer)


def _guarded(call: Call) -> Call:
    title = f"{call.title}, if finite"
    if isinstance(call.layer, MultiTensorKernel) and call.layer.skips:
        return replace(call, args=(*call.args, FINITE), title=title)
    slots = set(call.writes.values())
    written = tuple(i for i, arg in enumerate(call.args) if slots & set(flatten((arg,))))
    rule = IfFinite(rule=call.layer, method=call.method, written=written)
    return replace(call, layer=rule, method="update", args=(FINITE, *call.args), title=title)


def _scalar(name: str, layer: Layer, read: Arg, title: str) -> Call:
    return Call(name, Kind.SCALE, layer, "forward", (read,), (name,), title, _NODE)


def _slot(name: str, spec: Spec, fill: float, role: str) -> Value:
    return Value(name, spec, Kind.STATE, initializer=Constant(fill), role=role)
