"""Writers of attention: over channels, and scaled dot-product attention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from graphnet_onnx.writing import Nodes, OnnxWriter, Port


class WriteSimplifiedChannelAttention(OnnxWriter):
    """The mean of each channel, a 1x1 Conv, and the product with x."""

    def write(self, layer: Any, to: Nodes, x: Port, weight: Port, bias: Port) -> str:
        gate = to.add("Conv", to.mean(x, [2, 3]), weight, bias)
        return to.add("Mul", x, gate)


class WriteTransposedAttention(OnnxWriter):
    """Matrix products between the channels of each head."""

    def write(self, layer: Any, to: Nodes, qkv: Port, temperature: Port) -> str:
        channels = qkv.size(1) // 3
        per_head = channels // layer.num_heads
        rows = to.reshape(qkv, (0, 3, layer.num_heads, per_head, -1))
        parts = to.split(rows, 3, axis=1)
        q, k, v = (to.add("Squeeze", part, to.integers([1])) for part in parts)
        q_norm, k_norm = (
            to.add("Max", to.reduce("ReduceL2", part, [3]), to.number(1e-12)) for part in (q, k)
        )
        norms = to.add("Mul", q_norm, to.transpose(k_norm, (0, 1, 3, 2)))
        cosine = to.add("Div", to.add("MatMul", q, to.transpose(k, (0, 1, 3, 2))), norms)
        attention = to.add("Softmax", to.add("Mul", cosine, temperature), axis=-1)
        y = to.add("MatMul", attention, v)
        shape = [to.sizes(qkv, 0, 1), to.integers([channels]), to.sizes(qkv, 2, 4)]
        return to.add("Reshape", y, to.add("Concat", *shape, axis=0))


class WriteAttention(OnnxWriter):
    """Matrix products and a Softmax in each head; with causal, minus infinity at later keys."""

    def write(self, layer: Any, to: Nodes, q: Port, k: Port, v: Port) -> str:
        heads = layer.num_heads
        query, key, value = (to.reshape(x, (0, 0, heads, x.size(2) // heads)) for x in (q, k, v))
        query, value = (to.transpose(x, (0, 2, 1, 3)) for x in (query, value))
        scale = to.number(1.0 / math.sqrt(q.size(2) // heads))
        product = to.add("MatMul", query, to.transpose(key, (0, 2, 3, 1)))
        product = to.add("Mul", product, scale)
        if layer.causal:
            sizes = to.add("Concat", to.sizes(q, 1, 2), to.sizes(k, 1, 2), axis=0)
            hidden = to.add("Expand", to.constant(torch.tensor(-math.inf, dtype=to.dtype)), sizes)
            above = to.add("Trilu", hidden, to.constant(torch.tensor(1)), upper=1)
            product = to.add("Add", product, above)
        y = to.add("MatMul", to.add("Softmax", product, axis=-1), value)
        return to.reshape(to.transpose(y, (0, 2, 1, 3)), (0, 0, v.size(2)))


WRITERS: Mapping[str, type[OnnxWriter]] = {
    "simplified_channel_attention": WriteSimplifiedChannelAttention,
    "transposed_attention": WriteTransposedAttention,
    "attention": WriteAttention,
}
