"""Readers of operators on sequences: recurrent ones, tables of vectors, and attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from graphnet_onnx.operators.reading import Node, OperatorReader, Unreadable


def gather(node: Node) -> str:
    """Gather of rows of a constant -> embedding."""
    table = node.constant(0)
    if table.ndim != 2 or node.attributes.get("axis", 0) != 0 or not table.is_floating_point():
        raise Unreadable("only rows of a constant table of numbers can be gathered")
    rows, features = table.shape
    return node.add(
        "embedding",
        node.value(1),
        weights={"weight": table},
        num_embeddings=rows,
        embedding_dim=features,
    )


def lstm(node: Node) -> tuple[str, ...]:
    """LSTM -> lstm, with the axes in the layer's order before and after it."""
    node.only(activations=["Sigmoid", "Tanh", "Tanh"], input_forget=0, clip=None)
    if node.has(6) or node.has(7):
        raise Unreadable("an initial cell and peepholes have no layer")
    node.unused(2)
    return _recurrent(node, "lstm", (0, 2, 3, 1))


def gru(node: Node) -> tuple[str, ...]:
    """GRU -> gru, with the axes in the layer's order before and after it."""
    node.only(activations=["Sigmoid", "Tanh"], clip=None)
    if not node.attributes.get("linear_before_reset", 0):
        raise Unreadable(
            "linear_before_reset 0 has no layer: it resets the state before the product"
        )
    return _recurrent(node, "gru", (1, 0, 2))


def _recurrent(node: Node, layer: str, order: Sequence[int]) -> tuple[str, ...]:
    """Add the layer, and what makes Y and Y_h of its output; `order` are its gates among ONNX's."""
    node.only(direction="forward")
    if node.has(4) or node.has(5):
        raise Unreadable("lengths of sequences and an initial state have no layer")
    first = node.attributes.get("layout", 0) == 0  # whether time comes before the batch
    hidden = node.constant(2).shape[2]

    def gates(tensor: torch.Tensor) -> torch.Tensor:
        parts = tensor.chunk(len(order), 0)
        return torch.cat([parts[i] for i in order], 0)

    weights: dict[str, torch.Tensor | None] = {
        "weight_ih_l0": gates(node.constant(1)[0]),
        "weight_hh_l0": gates(node.constant(2)[0]),
    }
    biases = node.optional(3)
    if biases is not None:
        of_input, of_state = biases[0].chunk(2, 0)
        weights |= {"bias_ih_l0": gates(of_input), "bias_hh_l0": gates(of_state)}
    x = node.add("permute", dims=[1, 0, 2]) if first else node.value()
    y = node.add(layer, x, weights=weights, hidden_size=hidden, bias=biases is not None)
    used = [bool(name and node.reading.uses.get(name)) for name in node.proto.output]
    whole = last = y
    if used[0]:  # Y has an axis for the directions
        whole = node.add("permute", y, dims=[1, 0, 2]) if first else y
        whole = node.add("reshape", whole, shape=[1, -1, hidden] if first else [-1, 1, hidden])
    if used[1:2] == [True]:
        steps = node.size(0 if first else 1)
        if steps > 1:
            last = f"{node.add('split', y, size=steps - 1, dim=1)}.rest"
        last = node.add("permute", last, dims=[1, 0, 2]) if first else last
    return whole, last


def attention(node: Node) -> str:
    """Attention of sequences N x T x features -> attention."""
    if any(node.has(index) for index in range(3, len(node.proto.input))):
        raise Unreadable("masks and keys of earlier steps have no layer")
    node.unused(1, 2, 3)
    node.only(softcap=0.0, scale=None, qk_matmul_output_mode=0, softmax_precision=None)
    if any(len(node.shape(index)) != 3 for index in range(3)):
        raise Unreadable("expected inputs N x T x features")
    heads: Any = node.attributes.get("q_num_heads")
    node.only(kv_num_heads=heads)
    causal = bool(node.attributes.get("is_causal", 0))
    return node.add("attention", *node.values(), num_heads=heads, causal=causal)


READERS: Mapping[str, OperatorReader] = {
    "Gather": gather,
    "LSTM": lstm,
    "GRU": gru,
    "Attention": attention,
}
