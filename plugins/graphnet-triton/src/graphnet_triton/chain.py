"""Chains of patch layers: forward, loss and reverse of some patches in one program, then the weights' sums.

torch.ops.graphnet_triton.patch_chain(x, target, parameters, flags, logistic, wants_x), as graphnet's own
operator of that name (graphnet.kernels.chain_operators): the loss, its gradient by x, and those by the
parameters.

A patch of the coarsest image needs nothing of its neighbours, so one program takes some of them through all
products and back; what is between lies in memory that no other program touches, and that the sums for the
weights read afterwards. It pays where images are small: a launch for each layer would take longer than it
runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from graphnet.kernels.patch import matrix_of
from graphnet.kernels.patch_chain import (
    PatchChain,
    chain_flops,
    chain_shapes,
    patches_of,
    products_of,
)
from graphnet.layer import Kernel, Site
from graphnet_triton.affine import shares_of, sum_products
from graphnet_triton.launch import (
    ceil_div,
    factor_of,
    precision_of,
    register,
    runs_on,
    side,
    sums_of,
)
from graphnet_triton.programs import chains, losses

_TILE = 16  # of the coarsest patches that a program takes
_MOST_PATCHES = 1 << 16  # beyond, each layer fills the GPU by itself, and larger tiles are faster
_BLOCK = 1024


def _chain(
    x: Tensor,
    target: Tensor,
    parameters: Sequence[Tensor],
    flags: Sequence[bool],
    logistic: bool,
    wants_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    x, target = x.contiguous(), target.contiguous()
    loss, slope, sums = chain_shapes(x, target, parameters, list(flags), logistic, wants_x)
    products = list(products_of(parameters, flags))
    patches, rows = _patches(x, parameters, flags)
    weights = _matrices(parameters, flags)
    made, gradients = _between(x, weights, patches, rows)
    values, slopes = (x.view(patches * rows[0], -1), *made), (slope, *gradients)
    parts = loss.new_empty(ceil_div(patches, _TILE))
    sides = [size for w in weights for size in w.shape]
    chains.forward_loss_reverse[(len(parts),)](
        *(values, slopes, tuple(weights)),
        tuple(x if bias is None else bias.contiguous() for _, bias, *_ in products),
        *(target, parts, patches),
        LINKS=len(products),
        ROWS=tuple(rows),
        SIDES=tuple(sides),
        STRIDES=tuple(stride for w in weights for stride in w.stride()),
        CHANNELS=tuple(
            weight.shape[1] if transposed else weight.shape[0]
            for weight, _, transposed, _ in products
        ),
        BIASES=tuple(bias is not None for _, bias, *_ in products),
        RELUS=tuple(relu for *_, relu in products),
        LOGISTIC=logistic,
        WANTS_X=wants_x,
        NUMBERS=rows[-1] * sides[-1],
        SUM=sums_of(x),
        FACTOR=factor_of(x),
        PRECISION=precision_of(x),
        TILE=_TILE,
        BM=_TILE,
        BN=side(max(sides)),
        BK=side(max(sides)),
        BLOCK=_BLOCK,
    )
    losses.add_up[(1,)](parts, loss, COUNT=len(parts), BLOCK=_BLOCK)
    at = 0
    for (weight, bias, transposed, _), count, value, grad in zip(
        products, rows, values, gradients, strict=False
    ):
        columns = grad.shape[1]
        own = sums[at : at + weight.numel()]
        at += weight.numel()
        shift = None if bias is None else sums.new_empty(columns)
        sum_products(value.view(patches * count, -1), grad, None, own, shift, turned=not transposed)
        if bias is not None and shift is not None:
            sums[at : at + bias.numel()] = shift.view(-1, bias.numel()).sum(0)
            at += bias.numel()
    return loss, slope, sums


def _patches(
    x: Tensor, parameters: Sequence[Tensor], flags: Sequence[bool]
) -> tuple[int, list[int]]:
    """How many of the coarsest patches x has, and the rows that each product has of one."""
    weights = [weight for weight, *_ in products_of(parameters, flags)]
    pixels, rows = patches_of(weights, flags[::3])
    return x.numel() // (x.shape[-1] * pixels), rows


def _matrices(parameters: Sequence[Tensor], flags: Sequence[bool]) -> list[Tensor]:
    return [
        matrix_of(weight) if transposed else matrix_of(weight).t()
        for weight, _, transposed, _ in products_of(parameters, flags)
    ]


def _between(
    x: Tensor, weights: Sequence[Tensor], patches: int, rows: Sequence[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """Room for what each product makes, and for the gradients of that."""
    made, gradients = (
        [x.new_empty((patches * count, w.shape[1])) for w, count in zip(weights, rows, strict=True)]
        for _ in range(2)
    )
    return made, gradients


def _scratch(x: Tensor, parameters: Sequence[Tensor], flags: Sequence[bool]) -> list[Tensor]:
    """What lies between the products, and the largest of the shares for a weight."""
    patches, rows = _patches(x, parameters, flags)
    made, gradients = _between(x, _matrices(parameters, flags), patches, rows)
    shares = [
        shares_of(value.reshape(patches * count, -1), grad, bias)[0]
        for value, grad, count, bias in zip((x, *made), gradients, rows, flags[1::3], strict=False)
    ]
    return [*made, *gradients, max(shares, key=Tensor.numel)]


patch_chain = register(
    "patch_chain(Tensor x, Tensor target, Tensor[] parameters, bool[] flags, bool logistic, "
    "bool wants_x) -> (Tensor, Tensor, Tensor)",
    _chain,
    chain_shapes,
    scratch=lambda x, target, parameters, flags, *_: _scratch(x, parameters, flags),
)
register_flop_formula(patch_chain)(chain_flops)


class TritonChain(PatchChain):
    """A chain of patch layers with its mean squared error."""

    operator = patch_chain

    @classmethod
    def match(cls, site: Site) -> Self | None:
        kernel: Self | None = super().match(site)
        x, target = site.specs["x"], site.specs["target"]
        if kernel is None or x is None or target is None:
            return None
        parameters: Any = site.specs["parameters"]
        pixels = max(image.numel // image.shape[1] for image in (x, target))
        widest = max(max(spec.shape[0], math.prod(spec.shape[1:])) for spec in parameters)
        fits = runs_on(site.device, x, target.numel, pixels * widest)
        return kernel if fits and kernel.patches(x) <= _MOST_PATCHES else None


KERNELS: dict[str, type[Kernel]] = {"triton/mse_chain": TritonChain}
