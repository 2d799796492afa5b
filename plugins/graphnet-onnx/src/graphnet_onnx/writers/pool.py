"""Writers of pooling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from graphnet_onnx.writers.pad import write_border
from graphnet_onnx.writing import Input, Nodes, OnnxWriter, Port


class WriteMaxPool(OnnxWriter):
    """MaxPool, after a Pad if the last windows end too far beyond the image for MaxPool alone."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        ceil_mode, behind = _ends(layer, x)
        image: Input = x
        before = list(layer.padding)
        if any(end >= size for end, size in zip(behind, layer.kernel_size, strict=True)):
            pairs = zip(reversed(before), reversed(behind), strict=True)
            sides = [side for pair in pairs for side in pair]
            image = write_border(to, x, sides, "zeros", value=-math.inf)
            before = behind = [0] * len(before)
        return to.add(
            "MaxPool",
            image,
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.steps),
            dilations=list(layer.dilation),
            pads=[*before, *behind],
            ceil_mode=ceil_mode,
        )


class WriteAvgPool(OnnxWriter):
    """AveragePool, after a Pad if the padding counts but the rest of the last windows does not."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        ceil_mode, behind = _ends(layer, x)
        image: Input = x
        before, counts = list(layer.padding), layer.count_include_pad
        if counts and behind != before:
            sides = [side for pad in reversed(before) for side in (pad, pad)]
            image = write_border(to, x, sides, "zeros")
            behind = [max(0, end - pad) for end, pad in zip(behind, before, strict=True)]
            before, counts = [0] * len(before), False
        return to.add(
            "AveragePool",
            image,
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.steps),
            pads=[*before, *behind],
            ceil_mode=ceil_mode,
            count_include_pad=int(counts),
        )


def _ends(layer: Any, x: Port) -> tuple[int, list[int]]:
    """Return ceil_mode, and the padding after each axis.

    Programs treat the last window of ceil_mode differently, so if the sizes are known, the padding replaces
    ceil_mode.
    """
    if not layer.ceil_mode:
        return 0, list(layer.padding)
    if None in x.shape[2:]:
        return 1, list(layer.padding)
    sizes = [x.size(axis) for axis in range(2, x.ndim)]
    counts = layer.size((1, 1, *sizes))
    axes = zip(sizes, counts, layer.windows.spans, layer.steps, layer.padding, strict=True)
    return 0, [max(pad, (count - 1) * step + span - n - pad) for n, count, span, step, pad in axes]


class WriteGlobalAvgPool(OnnxWriter):
    """GlobalAveragePool."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add("GlobalAveragePool", x)


class _WriteAdaptive(OnnxWriter):
    """One window for an axis is a reduction; for more, each window is cut out and reduced."""

    reduction: ClassVar[str]

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        y: Input = x
        for axis, count in reversed(list(enumerate(layer.output_size, start=2))):
            if count is None:
                continue
            if count == 1:
                y = self.reduced(to, y, axis)
                continue
            n = x.size(axis)
            parts = [
                self.reduced(to, to.slice(y, axis, i * n // count, -(-(i + 1) * n // count)), axis)
                for i in range(count)
            ]
            y = to.add("Concat", *parts, axis=axis)
        return to.add("Identity", x) if y is x else str(y)

    def reduced(self, to: Nodes, x: Input, axis: int) -> str:
        """x with size 1 on the axis."""
        return to.reduce(self.reduction, x, [axis])


class WriteAdaptiveAvgPool(_WriteAdaptive):
    """ReduceMean of each window."""

    reduction: ClassVar[str] = "ReduceMean"


class WriteAdaptiveMaxPool(_WriteAdaptive):
    """ReduceMax of each window."""

    reduction: ClassVar[str] = "ReduceMax"


WRITERS: Mapping[str, type[OnnxWriter]] = {
    "global_avg_pool": WriteGlobalAvgPool,
    **{f"max_pool{axes}d": WriteMaxPool for axes in (1, 2, 3)},
    **{f"avg_pool{axes}d": WriteAvgPool for axes in (1, 2, 3)},
    **{f"adaptive_avg_pool{axes}d": WriteAdaptiveAvgPool for axes in (1, 2, 3)},
    **{f"adaptive_max_pool{axes}d": WriteAdaptiveMaxPool for axes in (1, 2, 3)},
}
