"""Scaled dot-product attention with heads, forward and backward.

Axes: N batch, T queries, S keys and values, h heads, d features of one head.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Layer, Precision


class Attention(Layer):
    """Means of the values, weighted by how well queries and keys agree (Vaswani et al. 2017, eq. 1).

    In each head, with scale = 1 / sqrt(d):
        P = scale q k^T;  A = softmax of P over the keys;  y = A v.
    With causal, query t sees the keys 0 to t only. With g the gradient of y:
        dv = A^T g;  dA = g v^T;  dP = A (dA - sum over the keys of A dA);
        dq = scale dP k;  dk = scale dP^T q.
    The same as torch.nn.functional.scaled_dot_product_attention of the heads. The linear layers around it
    are other layers.

    q: (N, T, h d), k: (N, S, h d), v: (N, S, h e), y: (N, T, h e); h = num_heads. Any floating dtype; A is
    computed in float32 at least. Backward keeps q, k, v and A (N, h, T, S).

    Raises:
        GraphError: q, k and v do not have such shapes, or num_heads does not divide their features.

    >>> one = torch.ones(1, 2, 4)
    >>> Attention(num_heads=2).forward(one, one, one)[0].shape
    torch.Size([1, 2, 4])
    """

    saves: ClassVar[tuple[str, ...]] = ("attention",)
    precision: ClassVar[Precision] = "compute"
    num_heads: PositiveInt
    causal: bool = False

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[tuple[int, ...]]]]:
        """Samples for the conformance kit, which cannot guess shapes that fit the heads."""
        return [
            (cls(num_heads=2), [(2, 3, 4), (2, 5, 4), (2, 5, 6)]),
            (cls(num_heads=2, causal=True), [(2, 4, 4)] * 3),
            (cls(num_heads=1, causal=True), [(1, 2, 3), (1, 4, 3), (1, 4, 2)]),
        ]

    def heads(self, x: Tensor) -> Tensor:
        """View (N, T, h d) as (N, h, T, d)."""
        n, t, features = x.shape
        return x.reshape(n, t, self.num_heads, features // self.num_heads).transpose(1, 2)

    def check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Raise GraphError unless the shapes fit each other and the heads."""
        shapes = [tuple(x.shape) for x in (q, k, v)]
        fits = all(len(shape) == 3 and shape[2] % self.num_heads == 0 for shape in shapes)
        if not fits or (q.shape[0], k.shape[:2], q.shape[2]) != (
            k.shape[0],
            v.shape[:2],
            k.shape[2],
        ):
            raise GraphError(
                f"expected q N x T x D, k N x S x D and v N x S x E, with D and E multiples of num_heads "
                f"({self.num_heads}), got {', '.join('x'.join(map(str, s)) for s in shapes)}"
            )

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.check(q, k, v)
        query, key, value = map(self.heads, (q, k, v))
        wide = torch.promote_types(q.dtype, torch.float32)
        product = (query @ key.mT).to(wide) * (1.0 / math.sqrt(query.shape[3]))
        if self.causal:
            seen = torch.ones(product.shape[2:], dtype=torch.bool, device=q.device).tril()
            product = product.masked_fill(~seen, -math.inf)
        attention = product.softmax(3)
        return merged(attention.to(value.dtype) @ value), attention

    def backward(
        self, grad_y: Tensor, q: Tensor, k: Tensor, v: Tensor, attention: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        g, query, key, value = map(self.heads, (grad_y, q, k, v))
        grad_attention = (g @ value.mT).to(attention.dtype)
        weighted = attention * grad_attention
        grad_product = weighted - attention * weighted.sum(3, keepdim=True)
        grad_product = (grad_product * (1.0 / math.sqrt(query.shape[3]))).to(query.dtype)
        return (
            merged(grad_product @ key),
            merged(grad_product.mT @ query),
            merged(attention.to(g.dtype).mT @ g),
        )


def merged(x: Tensor) -> Tensor:
    """Bring heads (N, h, T, d) back into the features (N, T, h d)."""
    return x.transpose(1, 2).flatten(2)
