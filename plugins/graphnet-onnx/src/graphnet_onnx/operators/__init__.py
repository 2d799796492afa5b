"""Operators: ONNX nodes become layers of a description, operator by operator, with their weights."""

from __future__ import annotations

from collections.abc import Mapping

from graphnet_onnx.operators import convolution, elementwise, norm, pool, sequence, shapes
from graphnet_onnx.operators.reading import Node, OperatorReader, Reading, Unreadable
from graphnet_onnx.operators.walk import read_nodes

READERS: Mapping[str, OperatorReader] = {
    name: reader
    for family in (elementwise, convolution, pool, norm, shapes, sequence)
    for name, reader in family.READERS.items()
}
"""The name of an operator -> the function that makes layers of a node."""

__all__ = ["READERS", "Node", "OperatorReader", "Reading", "Unreadable", "read_nodes"]
