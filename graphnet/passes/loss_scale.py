"""Loss scale: in float16 the reverse pass computes the gradients of a larger loss, so that none vanish.

float16 has nothing between 0 and 6e-8. What reaches the optimizers is divided by the scale again, in the
dtype of the parameters. The scale follows what fits (Micikevicius et al. 2018, "Mixed precision training",
section 3.2), by the numbers of torch.amp.GradScaler: a step with a gradient that is not finite updates no
parameter and halves the scale, 2000 good ones in a row double it. Scale and counts are slots on the device.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from graphnet.calls import IfFinite
from graphnet.definition import Definition
from graphnet.graph import Arg, Call, Graph, Kind, Value, flatten
from graphnet.layer import Layer
from graphnet.multitensor import MultiTensorKernel
from graphnet.optim import Optimizer
from graphnet.passes.clip import multiplied, norms
from graphnet.passes.update import write
from graphnet.spec import Constant, Spec

SCALE, GOOD, DONE = "@loss:scale", "@loss:good_steps", "@loss:updates"
_FINITE, _INVERSE = "@loss:finite", "@loss:inverse"
_INITIAL = 2.0**16
_INTERVAL = 2000
_NODE = "@loss"


class ScaledLoss(Layer):
    """The loss itself; its gradient is grad_y times the scale."""

    nondifferentiable: ClassVar[tuple[str, ...]] = ("scale",)

    def forward(self, loss: Tensor, scale: Tensor) -> Tensor:
        return loss.clone()

    def backward(self, grad_y: Tensor, scale: Tensor) -> tuple[Tensor, None]:
        return grad_y * scale, None


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


def scale_loss(graph: Graph) -> Graph:
    """Put the scale behind the loss, for the reverse pass to begin with."""
    (loss,) = graph.outputs
    spec = graph.values[loss].spec
    scaled = f"{loss}:scaled"
    call = Call(
        scaled, Kind.LOSS, ScaledLoss(), "forward", (loss, SCALE), (scaled,), "scale", _NODE
    )
    values = {
        **graph.values,
        SCALE: _slot(SCALE, spec, _INITIAL),
        scaled: Value(scaled, spec, Kind.LOSS),
    }
    return replace(graph, calls={**graph.calls, scaled: call}, values=values, outputs=(scaled,))


def unscale(graph: Graph) -> Graph:
    """Divide the gradients of parameters by the scale, and let it follow whether they are all finite."""
    if not graph.gradients:
        return graph
    calls, values = dict(graph.calls), dict(graph.values)
    scalar = values[SCALE].spec
    for name, dtype in ((GOOD, torch.int32), (DONE, torch.int64)):
        values[name] = _slot(name, replace(scalar, dtype=dtype), 0)
    values[_INVERSE] = Value(_INVERSE, scalar, Kind.SCALE)
    values[_FINITE] = Value(_FINITE, replace(scalar, dtype=torch.bool), Kind.SCALE)
    calls[_INVERSE] = _scalar(_INVERSE, Inverse(), SCALE)
    gradients = multiplied(
        graph.gradients, _INVERSE, "unscale", "unscaled", calls=calls, values=values
    )
    calls[_FINITE] = _scalar(_FINITE, AllFinite(), tuple(gradients.values()))
    args = (SCALE, GOOD, DONE, _FINITE)
    follow = write(values, FollowFit(), "scale", args, (SCALE, GOOD, DONE), _NODE)
    calls[follow.name] = follow
    return replace(graph, calls=calls, values=values, gradients=gradients)


def skip(graph: Graph) -> Graph:
    """Let no optimizer write anything in a step with a gradient that is not finite."""
    calls = {
        name: _guarded(call) if _optimizes(call) else call for name, call in graph.calls.items()
    }
    return replace(graph, calls=calls)


def _optimizes(call: Call) -> bool:
    rule = call.layer.rule if isinstance(call.layer, MultiTensorKernel) else call.layer
    return isinstance(rule, Optimizer)


def _guarded(call: Call) -> Call:
    slots = set(call.writes.values())
    written = tuple(i for i, arg in enumerate(call.args) if slots & set(flatten((arg,))))
    rule = IfFinite(rule=call.layer, method=call.method, written=written)
    title = f"{call.title}, if finite"
    return replace(call, layer=rule, method="update", args=(_FINITE, *call.args), title=title)


def _scalar(name: str, layer: Layer, read: Arg) -> Call:
    return Call(name, Kind.SCALE, layer, "forward", (read,), (name,), type(layer).__name__, _NODE)


def _slot(name: str, spec: Spec, fill: float) -> Value:
    return Value(name, spec, Kind.STATE, initializer=Constant(fill))
