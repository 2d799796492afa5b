"""Patch chains: a sequence of patch layers and its mean squared error, with all gradients, as one step.

In block order (see patch.py) each patch of the coarsest image goes through all products by itself, from the
pixels of x to those of the prediction and back. So a kernel can take some patches through forward, loss and
reverse while they are in a cache, and nothing between x and the gradients has to lie in memory. The loss'
own gradient, known only afterwards, is a factor of all of them:

    d loss / d p = grad_loss * (d mean squared error / d p).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin.kernels.patch.products import is_patch
from graphnet.builtin.layers.activation import ReLU, Sigmoid
from graphnet.builtin.layers.conv import Conv2d
from graphnet.builtin.layers.transpose_conv import TransposeConv2d
from graphnet.sdk import ARITHMETIC, Definition, Kernel, Layer, Layout, Site, Spec, Specs

Flags = list[bool]
"""For each product one after the other: transposed, bias, relu."""


class Link(Definition):
    """One product of a chain: a patch convolution or a transposed one, with or without relu after it."""

    kernel_size: tuple[int, int]
    transposed: bool
    bias: bool
    relu: bool = False


def links_of(layers: Sequence[Layer]) -> tuple[tuple[Link, ...], bool] | None:
    """The products of layers in the order in which they run, and whether a sigmoid is the last of all."""
    links: list[Link] = []
    for place, layer in enumerate(layers):
        if isinstance(layer, (Conv2d, TransposeConv2d)):
            if not is_patch(layer):
                return None
            transposed = isinstance(layer, TransposeConv2d)
            high, wide = layer.kernel_size
            links.append(Link(kernel_size=(high, wide), transposed=transposed, bias=layer.bias))
        elif isinstance(layer, ReLU) and links and not links[-1].relu:
            links[-1] = replace(links[-1], relu=True)
        elif isinstance(layer, Sigmoid) and links and place == len(layers) - 1:
            return tuple(links), True
        else:
            return None
    return tuple(links), False


def blocks_of(links: Sequence[Link]) -> tuple[Layout, Layout] | None:
    """x in blocks for all convolutions that make it smaller, the prediction for what makes it larger.

    None where a convolution meets blocks of another size than its own.
    """
    before: Layout = ()
    now: Layout = ()
    for link in links:
        if link.transposed:
            now = (link.kernel_size, *now)
        elif not now:
            before = (*before, link.kernel_size)
        elif now[0] == link.kernel_size:
            now = now[1:]
        else:
            return None
    return before, now


class PatchChain(Kernel):
    """mse of a chain of patch layers, each with or without relu, and with or without a final sigmoid."""

    replaces = "mse(chain(x, *parameters), target)"
    outputs: ClassVar[tuple[str, ...]] = ("loss",)
    saves: ClassVar[tuple[str, ...]] = ("slope", "slopes")
    nondifferentiable: ClassVar[tuple[str, ...]] = ("target",)
    memory_formats: ClassVar[dict[str, torch.memory_format]] = {"parameters": torch.channels_last}
    operator: ClassVar[Any]  # with the arguments of `chain_shapes`

    links: tuple[Link, ...]
    logistic: bool
    wants_x: bool = True

    @property
    def layouts(self) -> Mapping[str, Layout]:
        before, behind = self.blocks
        return {"x": before, "target": behind}

    @property
    def blocks(self) -> tuple[Layout, Layout]:
        """Those of x and of the prediction."""
        found = blocks_of(self.links)
        assert found is not None
        return found

    @classmethod
    def match(cls, site: Site) -> Self | None:
        found = links_of(site.layers[:0:-1])
        if found is None or len(found[0]) < 2:
            return None
        x, target = site.specs["x"], site.specs["target"]
        parameters: Any = site.specs["parameters"]
        assert x is not None
        assert target is not None
        links, logistic = found
        blocks = blocks_of(links)
        if blocks is None or not any(blocks):
            return None  # without any x and target could come in any layout
        (before, behind), same = blocks, all(spec.dtype == x.dtype for spec in parameters)
        for axis in (0, 1):
            smaller, larger = (math.prod(b[axis] for b in stack) for stack in (before, behind))
            high, left = divmod(x.shape[2 + axis], smaller)
            if left or high * larger != target.shape[2 + axis]:
                return None
        # Not in float16: these gradients are of the mean itself, before a loss scale, and would vanish.
        fits = same and x.numel and ARITHMETIC.get(x.dtype) == target.dtype
        fits = fits and x.dtype != torch.float16
        wants_x = "x" not in site.data
        return cls(links=links, logistic=logistic, wants_x=wants_x) if fits else None

    def patches(self, x: Spec) -> int:
        """How many of the coarsest patches an image (N, C, H, W) has."""
        return x.numel // x.shape[1] // math.prod(h * w for h, w in self.blocks[0])

    def forward(self, x: Tensor, target: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        flags = [f for link in self.links for f in (link.transposed, link.bias, link.relu)]
        loss, slope, slopes = self.operator(
            x, target, parameters, flags, self.logistic, self.wants_x
        )
        return loss, slope, slopes

    def backward(
        self,
        slope: Tensor,
        slopes: Tensor,
        specs: Specs,
        wanted: frozenset[str],
        grad_loss: Tensor | float = 1.0,
    ) -> tuple[Tensor | None, None, tuple[Tensor, ...]]:
        scaled = slopes * grad_loss if isinstance(grad_loss, Tensor) else slopes
        gradients: list[Tensor] = []
        at = 0
        for spec in specs["parameters"]:
            part = scaled[at : at + spec.numel]
            at += spec.numel
            if len(spec.shape) == 4:
                first, second, high, wide = spec.shape
                part = part.view(first, high, wide, second).permute(0, 3, 1, 2)
            gradients.append(part)
        grad_x: Tensor | None = None
        if "x" in wanted:
            scaled_x = slope * grad_loss if isinstance(grad_loss, Tensor) else slope
            grad_x = scaled_x.to(slope.dtype)
        return grad_x, None, tuple(gradients)


def products_of(
    parameters: Sequence[Tensor], flags: Sequence[bool]
) -> Iterator[tuple[Tensor, Tensor | None, bool, bool]]:
    """Yield the weight and bias of each layer, whether it is transposed, and whether a ReLU follows it.

    >>> ((weight, bias, transposed, relu),) = products_of([torch.empty(8, 3, 2, 2)], [True, False, True])
    >>> bias is None, transposed, relu
    (True, True, True)
    """
    remaining = iter(parameters)
    for transposed, bias, relu in zip(flags[::3], flags[1::3], flags[2::3], strict=True):
        weight = next(remaining)
        yield weight, next(remaining) if bias else None, transposed, relu


def patches_of(weights: Sequence[Tensor], transposed: Sequence[bool]) -> tuple[int, list[int]]:
    """Return the pixels of x in the largest patch, and the rows of each product for one such patch.

    >>> patches_of([torch.empty(8, 3, 2, 2), torch.empty(8, 3, 2, 2)], [False, True])
    (4, [1, 1])
    """
    now, most = 1, 1
    rows = []
    for weight, larger in zip(weights, transposed, strict=True):
        taps = weight[0, 0].numel()
        if larger:
            rows.append(now)
            now *= taps
        elif now >= taps:
            now //= taps
            rows.append(now)
        else:  # then now is 1: all patches so far have grown
            most *= taps
            rows = [taps * count for count in rows]
            rows.append(1)
    return most, rows


def chain_shapes(
    x: Tensor,
    target: Tensor,
    parameters: Sequence[Tensor],
    flags: Flags,
    logistic: bool,
    wants_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Make tensors of the shapes of a chain's results: loss, gradient of x, gradients of the parameters.

    The gradients are those of a loss whose own gradient is 1. That of x is empty if it is not wanted. Those
    of the parameters are one flat tensor, each weight as (A, kh, kw, B).

    >>> x, weights = torch.empty(2, 4, 4, 2, 2, 3), [torch.empty(8, 3, 2, 2), torch.empty(8, 3, 2, 2)]
    >>> flags = (False, False, True, True, False, False)  # each layer: transposed, with bias, with ReLU
    >>> loss, grad_x, grads = chain_shapes(x, x, weights, flags, False, False)
    >>> tuple(grad_x.shape), tuple(grads.shape)
    ((0,), (192,))
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    count = sum(parameter.numel() for parameter in parameters)
    return (
        x.new_empty((), dtype=wide),
        x.new_empty(x.shape if wants_x else 0),
        x.new_empty((count,), dtype=wide),
    )


def chain_flops(
    x: Any,
    target: Any,
    parameters: Any,
    flags: Any,
    logistic: Any,
    wants_x: Any,
    *_: Any,
    **__: Any,
) -> int:
    """The floating-point operations of a chain, from the shapes of its arguments.

    Each layer has three products, the first one two if x has no gradient.

    >>> shapes = ((2, 4, 4, 2, 2, 3), (2, 4, 4, 2, 2, 3), ((8, 3, 2, 2), (8, 3, 2, 2)))
    >>> flags = (False, False, True, True, False, False)
    >>> chain_flops(*shapes, flags, False, True) - chain_flops(*shapes, flags, False, False)
    6144
    """
    weights = [shape for shape in parameters if len(shape) == 4]
    empty = [torch.empty(shape, device="meta") for shape in weights]
    pixels, rows = patches_of(empty, flags[::3])
    patches = math.prod(x) // (x[-1] * pixels)
    products: list[int] = [patches * n * math.prod(w) for n, w in zip(rows, weights, strict=True)]
    without = 0 if wants_x else 2 * products[0]
    return 6 * sum(products) - without
