"""Report: a step also returns what it computes on the way: each loss, and the norm of all gradients."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from graphnet.graph import Call, Graph, Kind, Value
from graphnet.passes.rewrite import norms
from graphnet.sdk import Accumulate, Layer, Spec, WeightedSum

_NORM = "@gradient_norm"


class GradientNorm(Layer):
    """The norm of all xs together, 0-dim, in float32 or the widest of the xs: sqrt(sum of all squares)."""

    def forward(self, *xs: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(norms(xs, 2))
        return norm


def report(graph: Graph, *, wanted: Collection[str]) -> Graph:
    """Add outputs behind the loss: each loss of the sum, in order, then the norm of the gradients.

    Args:
        graph: a graph with a reverse pass.
        wanted: "losses", "gradient_norm" or both. Without gradients there is no norm.
    """
    calls, values, outputs = dict(graph.calls), dict(graph.values), list(graph.outputs)
    if "losses" in wanted:
        outputs += [
            str(call.results[0])
            for call in graph.calls.values()
            if call.kind is Kind.LOSS and not isinstance(call.layer, (Accumulate, WeightedSum))
        ]
    gradients = tuple(graph.gradients.values())
    if "gradient_norm" in wanted and gradients:
        first = values[gradients[0]].spec
        dtypes = (values[name].spec.dtype for name in gradients)
        dtype = functools.reduce(torch.promote_types, dtypes, torch.float32)
        values[_NORM] = Value(_NORM, Spec((), dtype, first.device), Kind.SCALE)
        calls[_NORM] = Call(
            _NORM, Kind.SCALE, GradientNorm(), "forward", (gradients,), (_NORM,), "norm", _NORM
        )
        outputs.append(_NORM)
    return replace(graph, calls=calls, values=values, outputs=tuple(outputs))
