"""Loss scale: in float16 the reverse pass computes the gradients of a larger loss, so that none vanish.

float16 has nothing between 0 and 6e-8. What reaches the optimizers is divided by the scale again, in the
dtype of the parameters. The scale follows what fits (Micikevicius et al. 2018, "Mixed precision training",
section 3.2), by the numbers of torch.amp.GradScaler: a step with a gradient that is not finite updates no
parameter and halves the scale, 2000 good ones in a row double it. Scale and counts are slots on the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from graphnet.graph import Arg, Call, Graph, Kind, Value, flatten
from graphnet.passes.differentiate import differentiate
from graphnet.passes.rewrite import multiplied, norms, write
from graphnet.sdk import (
    Constant,
    Definition,
    IfFinite,
    Layer,
    MultiTensorKernel,
    Optimizer,
    Spec,
    Times,
)

# Slots: the scale, and the counts of updates and of good steps since the scale changed. Whether all
# gradients of a step are finite is a value of it.
SCALE, DONE, GOOD, FINITE = "@loss:scale", "@loss:updates", "@loss:good_steps", "@loss:finite"
_INVERSE, _START = "@loss:inverse", "@loss:start"
_INITIAL = 2.0**16
_INTERVAL = 2000
_NODE = "@loss"


class AllFinite(Layer):
    """Whether no x holds a NaN or an infinity: 0-dim bool."""

    def forward(self, *xs: Tensor) -> Tensor:
        return norms(xs, math.inf).isfinite().all()


class Inverse(Layer):
    """1 / x."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reciprocal()


class FollowFit(Definition):
    """Halves the scale where gradients were too large for it, doubles it after `interval` good steps.

    No further than float32 goes. `done` counts the updates that were not skipped.
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
    """The reverse pass of the loss times `share` and the scale, which becomes a slot."""
    (loss,) = graph.outputs
    calls, values = dict(graph.calls), dict(graph.values)
    spec = values[loss].spec
    values[SCALE] = _slot(SCALE, spec, _INITIAL, "scale")
    if share != 1.0:
        values[_START] = Value(_START, spec, Kind.SCALE)
        calls[_START] = _scalar(_START, Times(factor=share), SCALE, "share")
    start = SCALE if share == 1.0 else _START
    return differentiate(replace(graph, calls=calls, values=values), start=start)


def unscale(graph: Graph) -> Graph:
    """Divide the gradients of parameters by the scale, and let it follow whether they are all finite."""
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
    calls[FINITE] = _scalar(FINITE, AllFinite(), tuple(gradients.values()), "all finite")
    args = (SCALE, GOOD, DONE, FINITE)
    follow = write(values, FollowFit(), "scale", args, (SCALE, GOOD, DONE), _NODE)
    calls[follow.name] = follow
    return replace(graph, calls=calls, values=values, gradients=gradients)


def skip(graph: Graph) -> Graph:
    """Let no optimizer write anything in a step with a gradient that is not finite."""
    calls = {
        name: _guarded(call) if _optimizes(call) else call for name, call in graph.calls.items()
    }
    return replace(graph, calls=calls)


def skipped(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    """Whether a gradient was not finite in a step between these values of a plan's slots.

    Such a step updates nothing, and so says little of what the plan computes. In a plan that only adds up
    gradients (passes/accumulate.py), the slots are then no longer finite.
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
