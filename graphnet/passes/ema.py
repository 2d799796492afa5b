"""EMA: keep an exponential moving average of each trained parameter in a slot beside it.

After each update average += (1 - d) (parameter - average), with d = min(decay, (1 + t) / (10 + t)) in
update t = 0, 1, ... The average starts from the initial weights. It follows the parameter fast at first, and
slowly when t is large (the warm-up of TensorFlow's ExponentialMovingAverage; Polyak & Juditsky 1992).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from graphnet.graph import STEP, Call, Graph, Kind, Value
from graphnet.passes.rewrite import beside, scalar, write
from graphnet.sdk import Follow, Layer, Spec, StateSpec

EMA = "@ema"  # the name of an optimizer's state has no "@", so the two cannot be equal


class FollowRate(Layer):
    """1 - min(decay, (1 + step) / (10 + step)): the rate of this update, 0-dim float64."""

    decay: float

    def forward(self, step: Tensor) -> Tensor:
        t = step.to(torch.float64)
        return 1.0 - ((1.0 + t) / (10.0 + t)).clamp_max(self.decay)


def ema(graph: Graph, *, decay: float, counter: str = STEP) -> Graph:
    """Add an average to each parameter that is updated: a slot, and a call after the update.

    `counter` is the scalar that counts updates.
    """
    calls, values = dict(graph.calls), dict(graph.values)
    rate = f"{EMA}:rate"
    for parameter in graph.gradients:
        spec = values[parameter].spec
        if rate not in values:
            step = scalar(values, counter, replace(spec, dtype=torch.int64))
            values[rate] = Value(rate, Spec((), torch.float64, spec.device), Kind.SCALE)
            layer = FollowRate(decay=decay)
            calls[rate] = Call(rate, Kind.SCALE, layer, "forward", (step,), (rate,), "ema", EMA)
        slot = beside(values, parameter, EMA, StateSpec(spec.shape))
        args = (slot, f"{parameter}:next", rate)
        calls[f"{slot}:update"] = write(
            values, Follow(), "ema", args, (slot,), values[parameter].node
        )
    return replace(graph, calls=calls, values=values)
