"""Readers of operators that rearrange, resize, pad or reduce."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from graphnet_onnx.operators.convolution import sides_of
from graphnet_onnx.operators.reading import Node, OperatorReader, Unreadable

_UPSAMPLING = {
    "nearest": ("nearest_upsampling1d", "nearest_upsampling", "nearest_upsampling3d"),
    "linear": ("linear_upsampling", "bilinear_upsampling", "trilinear_upsampling"),
}
_PADDINGS = {
    "constant": "constant_pad",
    "reflect": "reflection_pad",
    "edge": "replication_pad",
    "wrap": "circular_pad",
}


def concat(node: Node) -> str:
    """Concat -> concat."""
    return node.add("concat", *node.values(), dim=node.attributes["axis"])


def split(node: Node) -> tuple[str, ...]:
    """Split -> split, once for each part except the last."""
    axis, parts = node.attributes.get("axis", 0), len(node.proto.output)
    sizes = node.integers(1, "split")
    if sizes is None:
        total = node.size(axis)
        each = -(-total // parts)
        sizes = [each] * (parts - 1) + [total - each * (parts - 1)]
    if min(sizes) < 1 or parts == 1:
        raise Unreadable(f"expected two parts or more, each with elements, found sizes {sizes}")
    found: list[str] = []
    rest = node.value()
    for size in sizes[:-1]:
        first = node.add("split", rest, size=size, dim=axis)
        found.append(first)
        rest = f"{first}.rest"
    return (*found, rest)


def slice_axes(node: Node) -> str:
    """Slice -> a slice for each axis."""
    starts, ends = node.integers(1, "starts"), node.integers(2, "ends")
    assert starts is not None  # ONNX demands both
    assert ends is not None
    axes = node.integers(3, "axes") or list(range(len(starts)))
    steps = node.integers(4, "steps") or [1] * len(starts)
    if min(steps) < 1:
        raise Unreadable(f"only steps of at least 1 have a layer, found {steps}")
    part = node.value()
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        last = end if abs(end) < _FAR else None
        part = node.add("slice", part, dim=axis, start=start, end=last, step=step)
    return part


_FAR = 2**31 - 1  # ends from here on stand for the end of the axis


def flatten(node: Node) -> str:
    """Flatten -> flatten."""
    axes = len(node.shape())
    axis = node.attributes.get("axis", 1)
    axis = axis + axes if axis < 0 else axis
    if not 0 < axis < axes:
        raise Unreadable(f"expected an axis after the first and before the end, found {axis}")
    image = node.value()
    if axis > 1:
        image = node.add("flatten", image, start_dim=0, end_dim=axis - 1)
    return node.add("flatten", image, start_dim=1)


def reshape(node: Node) -> str:
    """Reshape -> reshape, where the batch stays."""
    return _reshaped(node, [int(n) for n in node.constant(1).reshape(-1)])


def _reshaped(node: Node, wanted: Sequence[int]) -> str:
    shape = node.shape()
    zero = bool(node.attributes.get("allowzero", 0))
    batch = shape[0] if shape else None
    if zero and 0 in wanted:
        raise Unreadable("a size of 0 has no layer")
    sizes = [
        shape[axis] if size == 0 and axis < len(shape) else size for axis, size in enumerate(wanted)
    ]
    rest = [-1 if size is None else size for size in sizes[1:]]
    others = list(shape[1:])
    if not sizes:
        raise Unreadable("a tensor without axes has no layer")
    stays = wanted[0] == 0 or (sizes[0] is not None and sizes[0] == batch)
    if wanted[0] == -1 and None not in others and -1 not in rest:
        stays = math.prod(rest) == math.prod(n for n in others if n is not None)
    if not stays or rest.count(-1) > 1 or 0 in rest:
        raise Unreadable(
            f"only the axes after the batch can get another shape: found {shape} to {list(wanted)}"
        )
    return node.add("reshape", shape=rest)


def squeeze(node: Node) -> str:
    """Squeeze -> reshape, where the batch stays."""
    shape = node.shape()
    axes = node.integers(1, "axes")
    chosen = {a % len(shape) for a in axes} if axes is not None else None
    if chosen is None:
        raise Unreadable("expected the axes to take away")
    return _kept(node, [size for axis, size in enumerate(shape) if axis not in chosen], 0 in chosen)


def unsqueeze(node: Node) -> str:
    """Unsqueeze -> reshape, where the batch stays."""
    shape = list(node.shape())
    axes = node.integers(1, "axes") or []
    total = len(shape) + len(axes)
    chosen = {axis % total for axis in axes}
    sizes = iter(shape)
    return _kept(node, [1 if i in chosen else next(sizes) for i in range(total)], 0 in chosen)


def _kept(node: Node, sizes: Sequence[int | None], batch: bool) -> str:
    rest = [-1 if size is None else size for size in sizes[1:]]
    if batch or rest.count(-1) > 1 or not node.shape():
        raise Unreadable("only axes after the batch, all but one of known sizes, have a layer")
    return node.add("reshape", shape=rest)


def transpose(node: Node) -> str:
    """Transpose -> permute."""
    order = node.attributes.get("perm") or list(reversed(range(len(node.shape()))))
    return node.add("permute", dims=list(order))


def reduce_mean(node: Node) -> str:
    """ReduceMean -> mean."""
    axes = node.integers(1, "axes")
    if not axes:
        if node.attributes.get("noop_with_empty_axes", 0):
            return node.value()
        axes = list(range(len(node.shape())))
    return node.add("mean", dim=axes, keepdim=bool(node.attributes.get("keepdims", 1)))


def pad(node: Node) -> str:
    """Pad -> constant_pad, reflection_pad, replication_pad or circular_pad."""
    axes, spatial = len(node.shape()), node.spatial()
    mode = node.attributes.get("mode", "constant")
    given = node.integers(1, "pads") or []
    chosen = [int(a) % axes for a in node.constant(3)] if node.has(3) else list(range(axes))
    before, after = [0] * axes, [0] * axes
    for i, axis in enumerate(chosen):
        before[axis], after[axis] = given[i], given[i + len(chosen)]
    if any((*before[:2], *after[:2])) or min((*before, *after)) < 0:
        raise Unreadable(f"only borders of spatial axes, of 0 or more, have a layer, found {given}")
    value = node.optional(2)
    fields: dict[str, Any] = {}
    if mode == "constant":
        fill = float(value) if value is not None else float(node.attributes.get("value", 0.0))
        fields = {"value": fill}
    sides = sides_of([*before[2:], *after[2:]])
    return node.add(f"{_PADDINGS[mode]}{spatial}d", padding=sides, **fields)


def depth_to_space(node: Node) -> str:
    """DepthToSpace in the order CRD -> pixel_shuffle."""
    if node.attributes.get("mode", "DCR") != "CRD":
        raise Unreadable("mode 'DCR' has no layer, only 'CRD'")
    return node.add("pixel_shuffle", upscale_factor=node.attributes["blocksize"])


def resize(node: Node) -> str:
    """Resize and Upsample -> nearest, linear, bilinear or trilinear upsampling."""
    old = node.proto.op_type == "Upsample" or node.reading.opset < 11
    node.only(antialias=0, exclude_outside=0, keep_aspect_ratio_policy="stretch")
    axes, mode = node.spatial(), node.attributes.get("mode", "nearest")
    if mode not in _UPSAMPLING:
        raise Unreadable(f"mode {mode!r} has no layer, only {', '.join(_UPSAMPLING)}")
    scales = _scales(node, 1 if old else 2, axes)
    where = node.attributes.get(
        "coordinate_transformation_mode", "asymmetric" if old else "half_pixel"
    )
    if mode == "nearest":
        rounding = node.attributes.get("nearest_mode", "floor" if old else "round_prefer_floor")
        repeats = (where, rounding) in (
            ("asymmetric", "floor"),
            ("half_pixel", "round_prefer_floor"),
            ("half_pixel", "round_prefer_ceil"),
        )
        if not repeats or any(scale != int(scale) or scale < 1 for scale in scales):
            raise Unreadable(
                f"only repeated pixels have a layer, found scales {scales}, {where}, {rounding}"
            )
        return node.add(_UPSAMPLING[mode][axes - 1], scale_factor=[int(s) for s in scales])
    if where not in ("half_pixel", "align_corners"):
        raise Unreadable(f"only half_pixel and align_corners have a layer, found {where}")
    align = where == "align_corners"
    for axis, scale in enumerate(scales, start=2):
        if align and scale != int(scale) and (node.size(axis) * scale) % 1:
            raise Unreadable(
                f"align_corners with {node.size(axis)} times {scale} pixels: programs differ in the distance "
                f"of the pixels where the product is no whole number"
            )
    return node.add(_UPSAMPLING[mode][axes - 1], scale_factor=scales, align_corners=align)


def _scales(node: Node, index: int, axes: int) -> list[float]:
    """The scales of the spatial axes."""
    chosen = [a % (axes + 2) for a in node.attributes.get("axes", range(axes + 2))]
    given: list[float] = []
    if node.has(index) and node.shape(index) != (0,):
        given = [float(s) for s in node.constant(index)]
    elif "scales" in node.attributes:
        given = [float(s) for s in node.attributes["scales"]]
    elif node.has(index + 1):
        sizes = [int(n) for n in node.constant(index + 1)]
        given = [size / node.size(axis) for size, axis in zip(sizes, chosen, strict=True)]
        for size, axis, scale in zip(sizes, chosen, given, strict=True):
            if math.floor(node.size(axis) * scale) != size:
                raise Unreadable(f"no scale makes {size} of {node.size(axis)} pixels")
    scales = dict(zip(chosen, given, strict=True))
    if any(scales.get(axis, 1.0) != 1.0 for axis in (0, 1)):
        raise Unreadable(f"only spatial axes can be resized, found scales {given}")
    return [scales.get(axis, 1.0) for axis in range(2, axes + 2)]


READERS: Mapping[str, OperatorReader] = {
    "Concat": concat,
    "Split": split,
    "Slice": slice_axes,
    "Flatten": flatten,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "ReduceMean": reduce_mean,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "Resize": resize,
    "Upsample": resize,
}
