"""Inductor faults: graphs for which Inductor makes wrong code, and how graphnet avoids it (torch 2.13).

- The indices of a maximum over more than 25 pixels are wrong if Inductor keeps the image with its rows and
  columns swapped (pytorch issue 197434): such images are put in order before.
- Inductor takes two products with a softmax between them for attention, whatever the axis of the softmax and
  the order of the keys' axes (196468, 195320): graphs that have both are compiled without that rewrite.

The gradients of averages over windows that reach beyond the image are a third fault (198119): no kernel of
graphnet uses that operator. tests/executors/test_inductor_faults.py holds a model for each.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

CORRECTIONS = 1
"""Incremented with each fault that is avoided: the cache may hold plans with that fault."""

_MAX_POOLS = ("max_pool2d_with_indices", "max_pool3d_with_indices")
_SOFTMAX = frozenset({"_softmax", "exp"})
_PRODUCTS = frozenset({"bmm", "baddbmm"})


def put_in_order(graph: GraphModule) -> None:
    """Give each image of which a maximum is taken its rows in order, or its channels last."""
    from torch._inductor import inductor_prims

    for node in list(graph.graph.nodes):
        if _operator(node) not in _MAX_POOLS:
            continue
        image = node.args[0]
        x: Tensor = image.meta["val"]
        last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        strides = torch.empty(x.shape, device="meta", memory_format=layout).stride()
        with graph.graph.inserting_before(node):
            ordered = graph.graph.call_function(
                inductor_prims.force_stride_order, (image, list(strides))
            )
        ordered.meta["val"] = x.new_empty_strided(x.shape, strides)
        node.replace_input_with(image, ordered)
    graph.recompile()


def settings(graph: GraphModule) -> AbstractContextManager[None]:
    """The settings of Inductor with which a graph is compiled right."""
    names = {_operator(node) for node in graph.graph.nodes}
    may_be_attention = not (names.isdisjoint(_SOFTMAX) or names.isdisjoint(_PRODUCTS))
    changes = {"pattern_matcher": False} if may_be_attention else {}
    patched: AbstractContextManager[None] = torch._inductor.config.patch(changes)
    return patched


def _operator(node: Node) -> str:
    """The name of a torch operator, such as bmm of aten.bmm.default; an empty text for other nodes."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return ""
    return node.target._schema.name.partition("::")[2]
