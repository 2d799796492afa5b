"""How the layers that make a network take any size are written as ONNX operators."""

from __future__ import annotations

from typing import Any

import torch
from graphnet_onnx import Nodes, OnnxWriter, Port


class WritePadToMultiple(OnnxWriter):
    """For each axis of n rows, the n' rows of the padded image are gathered by their numbers.

    With the period p = max(1, 2 (n - 1)) of a mirrored axis, row i shows (n - 1) - |(n - 1) - i mod p|.
    """

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        y: Port | str = x
        for axis in (2, 3):
            length = to.add("Squeeze", to.sizes(x, axis, axis + 1))
            missing = to.add("Mod", to.add("Sub", _whole(to, 0), length), _whole(to, layer.divisor))
            padded = to.add("Add", length, missing)
            last = to.add("Sub", length, _whole(to, 1))
            period = to.add("Max", _whole(to, 1), to.add("Add", last, last))
            rows = to.add("Range", _whole(to, 0), padded, _whole(to, 1))
            rows = to.add("Mod", rows, period)
            shown = to.add("Sub", last, to.add("Abs", to.add("Sub", last, rows)))
            y = to.add("Gather", y, shown, axis=axis)
        return str(y)


class WriteCropTo(OnnxWriter):
    """Slice, up to the sizes of the other image."""

    def write(self, layer: Any, to: Nodes, x: Port, like: Port) -> str:
        zeros, axes = to.integers([0, 0]), to.integers([2, 3])
        return to.add("Slice", x, zeros, to.sizes(like, 2, 4), axes)


def _whole(to: Nodes, number: int) -> str:
    """One whole number without axes."""
    return to.constant(torch.tensor(number))
