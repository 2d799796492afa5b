"""Report: a step also returns values that it computes anyway: each loss, and the norm of all gradients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from graphnet.graph import Graph, Kind
from graphnet.passes.rewrite import norms, of_gradients
from graphnet.sdk import Layer

_NORM = "@gradient_norm"


class GradientNorm(Layer):
    """The norm of all xs together, 0-dim, in float32 or the widest of the xs: sqrt(sum of all squares)."""

    def forward(self, *xs: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(norms(xs, 2))
        return norm


def report(graph: Graph, *, wanted: Collection[str]) -> Graph:
    """Add outputs after the loss: each loss of the sum, in order, then the norm of the gradients.

    Args:
        graph: a graph with a reverse pass.
        wanted: "losses", "gradient_norm" or both. Without gradients there is no norm.
    """
    calls, values, outputs = dict(graph.calls), dict(graph.values), list(graph.outputs)
    if "losses" in wanted:
        outputs += [
            name
            for name, value in values.items()
            if value.kind is Kind.LOSS and value.port == "loss" and name == f"{value.node}.loss"
        ]
    if "gradient_norm" in wanted and graph.gradients:
        norm = GradientNorm()
        outputs.append(of_gradients(graph, norm, _NORM, _NORM, "norm", calls=calls, values=values))
    return replace(graph, calls=calls, values=values, outputs=tuple(outputs))
