"""Writers of upsampling without parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graphnet_onnx.writing import CannotExport, Nodes, OnnxWriter, Port


class WriteNearest(OnnxWriter):
    """Resize in the mode "nearest"."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        scales = [1.0, 1.0, *map(float, layer.scale_factor)]
        return to.add(
            "Resize",
            x,
            None,
            to.constant(torch.tensor(scales)),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )


class WriteLinear(OnnxWriter):
    """Resize in the mode "linear"."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        if layer.align_corners:
            return self.aligned(layer, to, x)
        scales = [1.0, 1.0]
        scales += [_scale(x, axis, factor) for axis, factor in enumerate(layer.scale_factor, 2)]
        return to.add(
            "Resize",
            x,
            None,
            to.constant(torch.tensor(scales)),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )

    def aligned(self, layer: Any, to: Nodes, x: Port) -> str:
        """With align_corners: by whole scales, or else by sizes, since programs differ in other scales."""
        whole = all(factor == int(factor) for factor in layer.scale_factor)
        scales = to.constant(torch.tensor([1.0, 1.0, *layer.scale_factor])) if whole else None
        sizes = None
        if scales is None:
            # The first two axes have the sizes of x, which may be free.
            known = layer.size((1, 1, *(x.size(axis) for axis in range(2, x.ndim))))
            sizes = to.add("Concat", to.sizes(x, 0, 2), to.integers(known), axis=0)
        return to.add(
            "Resize",
            x,
            None,
            scales,
            sizes,
            mode="linear",
            coordinate_transformation_mode="align_corners",
        )


def _scale(x: Port, axis: int, factor: float) -> float:
    """The scale of one axis for Resize, which holds it in float32.

    An axis that keeps its size is not interpolated, so its scale is 1. Raises CannotExport if the size of the
    output differs, or may differ where the size is free.
    """
    n = x.shape[axis]
    single = float(np.float32(factor))
    if n is None:
        # n factor rounds down to n for an n above 1 only where 1 < factor < 1.5.
        if single != factor or 1 < factor < 1.5:
            raise CannotExport(
                f"scale_factor {factor} on axis {axis}, whose size is free: ONNX holds scales in float32 and "
                f"interpolates also where a size does not change, so some sizes would give other results. "
                f"{x.remedy(axis)}"
            )
        return factor
    size = math.floor(n * factor)
    if size == n:
        return 1.0
    if math.floor(np.float32(n) * np.float32(factor)) != size:
        raise CannotExport(
            f"scale_factor {factor} makes {size} of {n} pixels, but ONNX holds scales in float32, where the "
            f"product rounds to another size"
        )
    return factor


WRITERS: Mapping[str, type[OnnxWriter]] = {
    "nearest_upsampling1d": WriteNearest,
    "nearest_upsampling": WriteNearest,
    "nearest_upsampling3d": WriteNearest,
    "linear_upsampling": WriteLinear,
    "bilinear_upsampling": WriteLinear,
    "trilinear_upsampling": WriteLinear,
}
