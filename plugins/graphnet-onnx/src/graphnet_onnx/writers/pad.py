"""Writers of paddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphnet_onnx.writing import Nodes, OnnxWriter, Port

_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pads_of(sides: Sequence[int]) -> list[int]:
    """The pads of an operator for sides in torch's order: those before each axis, then those after it.

    >>> pads_of([1, 2, 3, 4])  # left, right, top, bottom
    [3, 1, 4, 2]
    """
    return [*reversed(sides[0::2]), *reversed(sides[1::2])]


def write_border(to: Nodes, x: Port, sides: Sequence[int], mode: str, *, value: float = 0.0) -> str:
    """Add a border to an image (N, C, ...); `sides` are in torch's order."""
    return to.pad(x, pads_of(sides), _MODES[mode], value=value)


class WritePad(OnnxWriter):
    """Pad."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return write_border(to, x, layer.padding, layer.mode)


class WriteConstantPad(OnnxWriter):
    """Pad with one value."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return write_border(to, x, layer.padding, layer.mode, value=layer.value)


WRITERS: Mapping[str, type[OnnxWriter]] = {
    **{f"constant_pad{axes}d": WriteConstantPad for axes in (1, 2, 3)},
    **{
        f"{mode}_pad{axes}d": WritePad
        for mode in ("reflection", "replication", "circular")
        for axes in (1, 2, 3)
    },
}
