"""Report: a step also returns values that it computes anyway: each loss, and the norm of all gradients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from graphnet.graph import Graph, Kind
from graphnet.passes.rewrite import of_values
from graphnet.passes.shard_optimizer import norms_of_gradients
from graphnet.sdk import ALONE, Layer, Processes, norms

_NORM = "@gradient_norm"


class GradientNorm(Layer):
    """The norm of all xs together, 0-dim, in float32 or the widest of the xs: sqrt(sum of all squares)."""

    def forward(self, *xs: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(norms(xs, 2))
        return norm


def report(graph: Graph, *, wanted: Collection[str], processes: Processes = ALONE) -> Graph:
    """Add outputs after the loss: each loss of the sum, in order, then the norm of the gradients.

    Args:
        graph: a graph with a reverse pass.
        wanted: "losses", "gradient_norm" or both. Without gradients there is no norm.
        processes: those that compute the step together.
    """
    xs: tuple[str, ...] = ()
    if "gradient_norm" in wanted and graph.gradients:
        graph, xs = norms_of_gradients(graph, "2", processes=processes)
    calls, values, outputs = dict(graph.calls), dict(graph.values), list(graph.outputs)
    if "losses" in wanted:
        outputs += [
            name
            for name, value in values.items()
            if value.kind is Kind.LOSS and value.port == "loss" and name == f"{value.node}.loss"
        ]
    if xs:
        norm = GradientNorm()
        outputs.append(of_values(xs, norm, _NORM, _NORM, "norm", calls=calls, values=values))
    return replace(graph, calls=calls, values=values, outputs=tuple(outputs))
