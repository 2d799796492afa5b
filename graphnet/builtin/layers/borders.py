"""Borders: the pixels that padding adds around an image, in torch's four modes, and the transpose of that.

Sides are the numbers of pixels, as torch orders them: (left, right, top, bottom, front, back), those of the
last axis first.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import by

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Sides = tuple[int, ...]


def check_border(sizes: tuple[int, ...], sides: Sides, mode: PaddingMode) -> None:
    """Raise GraphError unless an image of these sizes has the pixels that its border repeats."""
    pads = [max(sides[2 * i : 2 * i + 2]) for i in reversed(range(len(sizes)))]
    if mode == "reflect" and any(p and p >= n for p, n in zip(pads, sizes, strict=True)):
        raise GraphError(
            f"expected a padding smaller than the image of {by(sizes)}, which it mirrors, got "
            f"{list(sides)} (left, right, top, bottom)"
        )
    if mode == "circular" and any(p > n for p, n in zip(pads, sizes, strict=True)):
        raise GraphError(
            f"expected a padding of at most the image of {by(sizes)}, whose other end it repeats, got "
            f"{list(sides)} (left, right, top, bottom)"
        )
    if mode == "replicate" and any(p and not n for p, n in zip(pads, sizes, strict=True)):
        raise GraphError(f"an image of {by(sizes)} has no outermost pixels to repeat")


def add_border(x: Tensor, sides: Sides, mode: PaddingMode) -> Tensor:
    """Add a border to an image (N, C, ...), to the first spatial axis, then to the next.

    Along an axis of n pixels, a pixel i outside 0..n - 1 is
        zeros: 0;  replicate: x[0] or x[n - 1];  circular: x[i mod n];
        reflect: x[-i] before the image, and x[2 (n - 1) - i] after it.

    Raises:
        GraphError: the image lacks the pixels that its border repeats.
    """
    check_border(tuple(x.shape[2:]), sides, mode)
    if mode == "zeros":
        return F.pad(x, sides)
    for axis in range(2, x.ndim):
        before, after = _of_axis(sides, axis, x.ndim)
        if before or after:
            x = _extend(x, axis, before, after, mode)
    return x


def fold_border(g: Tensor, sides: Sides, mode: PaddingMode) -> Tensor:
    """Add the border of g to the pixels that the border repeats: the transpose of add_border."""
    if mode == "zeros":
        return F.pad(g, tuple(-side for side in sides))
    for axis in reversed(range(2, g.ndim)):
        before, after = _of_axis(sides, axis, g.ndim)
        if before or after:
            g = _fold(g, axis, before, after, mode)
    return g


def border_rows(rows: range, before: int, after: int, mode: PaddingMode) -> range | None:
    """The rows of an image that these rows of the padded image show; None where some lie at its other end."""
    match mode:
        case "reflect":  # a border pixel d rows outside repeats one d rows inside: 2 d rows away
            return range(rows.start - before - 2 * after, rows.stop + before)
        case "replicate":  # a border pixel d rows outside repeats one d rows away
            return range(rows.start - before - after, rows.stop)
        case "circular" if before or after:
            return None
    return range(rows.start - before, rows.stop - before)


def _of_axis(sides: Sides, axis: int, ndim: int) -> tuple[int, int]:
    """The pixels before and after an image on one axis."""
    at = 2 * (ndim - 1 - axis)
    return sides[at], sides[at + 1]


def _extend(x: Tensor, axis: int, before: int, after: int, mode: PaddingMode) -> Tensor:
    size = x.shape[axis]
    match mode:
        case "reflect":
            near = x.narrow(axis, 1, before).flip(axis)
            far = x.narrow(axis, size - 1 - after, after).flip(axis)
        case "replicate":
            near = x.narrow(axis, 0, 1).expand(*_resized(x, axis, before))
            far = x.narrow(axis, size - 1, 1).expand(*_resized(x, axis, after))
        case _:
            near, far = x.narrow(axis, size - before, before), x.narrow(axis, 0, after)
    return torch.cat((near, x, far), axis)


def _fold(g: Tensor, axis: int, before: int, after: int, mode: PaddingMode) -> Tensor:
    size = g.shape[axis] - before - after
    image = g.narrow(axis, before, size).clone()
    near, far = g.narrow(axis, 0, before), g.narrow(axis, before + size, after)
    match mode:
        case "reflect":
            image.narrow(axis, 1, before).add_(near.flip(axis))
            image.narrow(axis, size - 1 - after, after).add_(far.flip(axis))
        case "replicate":
            image.narrow(axis, 0, 1).add_(near.sum(axis, keepdim=True))
            image.narrow(axis, size - 1, 1).add_(far.sum(axis, keepdim=True))
        case _:
            image.narrow(axis, size - before, before).add_(near)
            image.narrow(axis, 0, after).add_(far)
    return image


def _resized(x: Tensor, axis: int, size: int) -> tuple[int, ...]:
    """The shape of x with another size on one axis."""
    return (*x.shape[:axis], size, *x.shape[axis + 1 :])
