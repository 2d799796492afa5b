"""Layout: images whose pixels lie in blocks, so that a patch layer is a plain matrix product.

A layout is a stack of blocks, the innermost first. An image of logical shape (N, C, H, W) with the stack
(b1, ..., bk) lies in memory as

    (N, H / (b1 ... bk), W / (b1 ... bk), bk, ..., b1, C),    each block two axes: height, width.

A convolution whose stride is its kernel size b reads (b,) + r and writes r: the pixels under one position of
the kernel lie next to each other, in the order of the matrix product. The empty stack is N H W C. None means
no layout: the axes N C H W of the layers' definitions, with any strides.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_DENSE = torch.contiguous_format
Layout = tuple[tuple[int, int], ...]
"""Blocks as (height, width), the innermost first."""


def blocked_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """The shape in memory of an image (N, C, H, W) in this layout.

    >>> blocked_shape((32, 3, 8, 8), ((2, 2), (4, 4)))
    (32, 1, 1, 4, 4, 2, 2, 3)
    """
    n, c, h, w = shape
    high, wide = (math.prod([block[axis] for block in layout]) for axis in (0, 1))
    blocks = [size for block in reversed(layout) for size in block]
    return (n, h // high, w // wide, *blocks, c)


def plain_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape (N, C, H, W) of an image whose shape in memory, in any layout, is `shape`.

    >>> plain_shape((32, 1, 1, 4, 4, 2, 2, 3))
    (32, 3, 8, 8)
    """
    return (shape[0], shape[-1], math.prod(shape[1:-1:2]), math.prod(shape[2:-1:2]))


def pack(x: Tensor, layout: Layout) -> Tensor:
    """An image (N, C, H, W) in a layout: a view for the empty one, N H W C, else a copy.

    >>> pack(torch.arange(16).reshape(1, 1, 4, 4), ((2, 2),))[0, 0, 0].flatten()
    tensor([0, 1, 4, 5])
    """
    shape = blocked_shape(tuple(x.shape), layout)
    high, wide = shape[1:-1:2], shape[2:-1:2]
    levels = len(high)
    order = [axis for k in range(levels) for axis in (2 + k, 2 + levels + k)]
    packed = x.reshape(shape[0], shape[-1], *high, *wide).permute(0, *order, 1)
    return packed.clone(memory_format=_DENSE) if layout else packed


def unpack(x: Tensor) -> Tensor:
    """The image (N, C, H, W) of a tensor in any layout: a view for N H W C, else a copy.

    >>> x = torch.arange(16).reshape(1, 1, 4, 4)
    >>> torch.equal(unpack(pack(x, ((2, 2),))), x)
    True
    """
    levels = (x.ndim - 2) // 2
    rows, columns = range(1, x.ndim - 1, 2), range(2, x.ndim - 1, 2)
    image = x.permute(0, x.ndim - 1, *rows, *columns)
    if levels > 1:
        image = image.clone(memory_format=_DENSE)
    return image.reshape(plain_shape(tuple(x.shape)))


def channels_last(x: Tensor) -> Tensor:
    """The tensor (N, C, ...) with its channels next to each other in memory; a copy if they are not.

    There may be any number of spatial axes; without any, the result is contiguous.

    >>> channels_last(torch.empty(2, 3, 5)).stride()
    (15, 1, 3)
    """
    if x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if x.ndim > 2 else x.contiguous()
