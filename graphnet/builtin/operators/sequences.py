"""Rows of the operators on features: linear, embedding, norms of the last axes, attention."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from graphnet.builtin.operators.table import row_of
from graphnet.sdk import Node, Operand, Row, alike, is_float

ROWS: dict[str, Row] = {}
_row = partial(row_of, ROWS)


@_row("aten.linear.default")
def linear(input: Operand, weight: Operand, bias: Operand | None) -> Node | None:
    fields = {
        "in_features": weight.shape[1],
        "out_features": weight.shape[0],
        "bias": bias is not None,
    }
    return Node("linear", (input,), fields, {"weight": weight, "bias": bias})


@_row("aten.matmul.default")
def matmul(self: Operand, other: Operand) -> Node | None:
    if not alike(self, other) or min(len(self.shape), len(other.shape)) < 2:
        return None
    return Node("matmul", (self, other))


@_row("aten.bmm.default")
def bmm(self: Operand, mat2: Operand) -> Node | None:
    return Node("matmul", (self, mat2)) if alike(self, mat2) else None


@_row("aten.embedding.default")
def embedding(weight: Operand, indices: Operand, padding_idx: int) -> Node | None:
    rows, width = weight.shape
    fields = {"num_embeddings": rows, "embedding_dim": width}
    if padding_idx >= 0:
        fields["padding_idx"] = padding_idx
    return Node("embedding", (indices,), fields, {"weight": weight})


@_row("aten.layer_norm.default")
def layer_norm(
    input: Operand,
    normalized_shape: Any,
    weight: Operand | None,
    bias: Operand | None,
    eps: float,
    cudnn_enable: bool,
) -> Node | None:
    if not is_float(input) or (weight is None and bias is not None):
        return None
    fields = {
        "normalized_shape": tuple(normalized_shape),
        "eps": eps,
        "elementwise_affine": weight is not None,
        "bias": bias is not None,
    }
    return Node("layer_norm", (input,), fields, {"weight": weight, "bias": bias})


@_row("aten.rms_norm.default")
def rms_norm(
    input: Operand, normalized_shape: Any, weight: Operand | None, eps: float | None
) -> Node | None:
    fields = {
        "normalized_shape": tuple(normalized_shape),
        "eps": eps,
        "elementwise_affine": weight is not None,
    }
    return Node("rms_norm", (input,), fields, {"weight": weight})


@_row("aten.scaled_dot_product_attention.default")
def scaled_dot_product_attention(
    query: Operand,
    key: Operand,
    value: Operand,
    is_causal: bool,
    scale: float | None,
) -> Node | None:
    """The layer has the heads in the features: (N, T, h d) in the place of (N, h, T, d)."""
    heads, depth = query.shape[1:4:2] if len(query.shape) == 4 else (None, None)
    if not isinstance(heads, int) or not isinstance(depth, int):
        return None
    plain = scale is None or math.isclose(scale, depth**-0.5, rel_tol=1e-15)
    given = (query, key, value)
    if not plain or not all(alike(query, x) and x.shape[1] == heads for x in given):
        return None
    width = value.shape[3]
    if not isinstance(width, int):
        return None
    joined = tuple(
        Node("flatten", (Node("permute", (x,), {"dims": _SWAP}),), {"start_dim": 2}) for x in given
    )
    attention = Node("attention", joined, {"num_heads": heads, "causal": is_causal})
    split = Node("reshape", (attention,), {"shape": (-1, heads, width)})
    return Node("permute", (split,), {"dims": _SWAP})


_SWAP = (0, 2, 1, 3)
