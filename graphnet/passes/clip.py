"""Clip: scale all gradients down together where their global norm is too large.

Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", algorithm 1, as
torch.nn.utils.clip_grad_norm_: with norm = sqrt(sum of the squares of all gradients), each is multiplied
by min(1, max_norm / (norm + 1e-6)). The factor is a node that reads every gradient, so the updates wait
for the whole reverse pass.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from graphnet.calls import Scaled
from graphnet.graph import Call, Graph, Kind, Value
from graphnet.layer import Layer
from graphnet.passes.update import node_of
from graphnet.spec import Spec

CLIP = "@clip"


class ClipFactor(Layer):
    """min(1, max_norm / (norm of all xs together + 1e-6)), 0-dim, in float32 or the widest of the xs."""

    max_norm: float

    def forward(self, *xs: Tensor) -> Tensor:
        factor: Tensor = self.max_norm / (torch.linalg.vector_norm(norms(xs, 2)) + 1e-6)
        return factor.clamp_max(1.0)


def norms(xs: tuple[Tensor, ...], order: float) -> Tensor:
    """The norm of each x, in float32 or the widest of their dtypes: (number of xs,)."""
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in xs), torch.float32)
    return torch.stack(torch._foreach_norm(xs, order, dtype))


def clip(graph: Graph, *, max_norm: float) -> Graph:
    """Put the factor and a product with it between the gradients of the parameters and what reads them."""
    if not graph.gradients:
        return graph
    calls, values = dict(graph.calls), dict(graph.values)
    gradients = tuple(graph.gradients.values())
    first = values[gradients[0]].spec
    dtypes = (values[name].spec.dtype for name in gradients)
    dtype = functools.reduce(torch.promote_types, dtypes, torch.float32)
    factor = f"{CLIP}:factor"
    values[factor] = Value(factor, Spec((), dtype, first.device), Kind.SCALE)
    layer = ClipFactor(max_norm=max_norm)
    calls[CLIP] = Call(CLIP, Kind.SCALE, layer, "forward", (gradients,), (factor,), "clip", CLIP)
    clipped = multiplied(graph.gradients, factor, "clip", "clipped", calls=calls, values=values)
    return replace(graph, calls=calls, values=values, gradients=clipped)


def multiplied(
    gradients: Mapping[str, str],
    factor: str,
    title: str,
    result: str,
    *,
    calls: dict[str, Call],
    values: dict[str, Value],
) -> dict[str, str]:
    """A product with a factor behind the gradient of each parameter; returns what to read instead."""
    found: dict[str, str] = {}
    for parameter, gradient in gradients.items():
        call = f"{parameter}:{title}"
        name = found[parameter] = f"{parameter}:{result}"
        values[name] = Value(name, values[gradient].spec, Kind.SCALE)
        calls[call] = Call(
            name=call,
            kind=Kind.SCALE,
            layer=Scaled(),
            method="forward",
            args=(gradient, factor),
            results=(name,),
            title=title,
            node=node_of(parameter),
        )
    return found
