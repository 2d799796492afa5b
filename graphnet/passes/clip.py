"""Clip: scale all gradients down together where their global norm is too large.

Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", algorithm 1, as
torch.nn.utils.clip_grad_norm_: with norm = sqrt(sum of the squares of all gradients), each is multiplied
by min(1, max_norm / (norm + 1e-6)). The call that computes the factor reads every gradient, so the updates
wait until the whole reverse pass has run.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from graphnet.graph import Graph
from graphnet.passes.rewrite import multiplied, of_values
from graphnet.passes.shard_optimizer import norms_of_gradients
from graphnet.sdk import ALONE, Layer, Processes, norms

CLIP = "@clip"


class ClipFactor(Layer):
    """min(1, max_norm / (norm of all xs together + 1e-6)), 0-dim, in float32 or the widest of the xs."""

    max_norm: float

    def forward(self, *xs: Tensor) -> Tensor:
        factor: Tensor = self.max_norm / (torch.linalg.vector_norm(norms(xs, 2)) + 1e-6)
        return factor.clamp_max(1.0)


def clip(graph: Graph, *, max_norm: float, processes: Processes = ALONE) -> Graph:
    """Multiply the gradient of each parameter by the clip factor; `gradients` then names the products."""
    if not graph.gradients:
        return graph
    graph, names = norms_of_gradients(graph, "2", processes=processes)
    calls, values = dict(graph.calls), dict(graph.values)
    layer = ClipFactor(max_norm=max_norm)
    factor = of_values(names, layer, CLIP, f"{CLIP}:factor", "clip", calls=calls, values=values)
    clipped = multiplied(graph.gradients, factor, "clip", "clipped", calls=calls, values=values)
    return replace(graph, calls=calls, values=values, gradients=clipped)
