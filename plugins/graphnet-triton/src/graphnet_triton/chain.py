"""Chains of patch layers: forward, loss and reverse of some patches in one program, then the weights' sums.

torch.ops.graphnet_triton.patch_chain(x, target, parameters, flags, logistic, wants_x) computes the same as
graphnet-cpu's operator of that name: the loss, the gradient of x, and the gradients of the parameters.

A patch of the coarsest image needs nothing of its neighbours, so one program computes all products, forward
and backward, for some patches; the values between the products lie in memory that no other program touches.
A second launch reads them and sums the gradients of all weights in shares; the last program of a tile of a
weight adds up the tile's shares. This is faster for small images, where launching a kernel for each layer
would take longer than running it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula
from triton.compiler.compiler import max_shared_mem

from graphnet.builtin import (
    PatchChain,
    chain_flops,
    chain_shapes,
    matrix_of,
    patches_of,
    products_of,
)
from graphnet.sdk import Kernel, Site
from graphnet_triton.launch import (
    PROCESSORS,
    WIDE,
    ceil_div,
    factor_of,
    power_of_2,
    precision_of,
    register,
    runs_on,
    side,
    sums_of,
)
from graphnet_triton.programs import chains
from graphnet_triton.shares import PROGRAMS, cut

_MOST_PATCHES = 1 << 16  # beyond, each layer fills the GPU by itself, and larger tiles are faster
_BLOCK = 1024
_BLOCK_BYTES = 1 << 15  # of a product at once: its sums must fit into the registers of a program
_SHARED_BYTES = 227 * 1024  # of an H100's multiprocessor, for one program
_ROWS = 64  # of the factors of a weight's gradient that a program takes at once
_SUMS = 2048  # numbers that a program reads at once to add them up

Product = tuple[Tensor, Tensor | None, bool, bool]
"""A weight, its bias, whether the layer is transposed, and whether relu follows it."""


def _chain(
    x: Tensor,
    target: Tensor,
    parameters: Sequence[Tensor],
    flags: Sequence[bool],
    logistic: bool,
    wants_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Two launches, and nothing else where all is contiguous and weights are in channels_last.

    All is computed in the dtype of the parameters; x may have a wider one.
    """
    x, target = x.contiguous(), target.contiguous()
    loss, slope, sums = chain_shapes(x, target, parameters, list(flags), logistic, wants_x)
    products = list(products_of(parameters, flags))
    patches, rows = _patches(x, parameters, flags)
    weights = _matrices(parameters, flags)
    made, gradients = _between(weights, patches, rows)
    values, slopes = (x, *made), (slope, *gradients)
    cuts, shares = _shares(x, weights, flags[1::3], patches, rows)
    counters = _counters(x, cuts)
    tiles = ceil_div(patches, _tile(patches))
    sides = tuple(size for w in weights for size in w.shape)
    same: dict[str, Any] = {
        "LINKS": len(products),
        "ROWS": tuple(rows),
        "SIDES": sides,
        "BIASES": tuple(flags[1::3]),
        "SUM": sums_of(weights[0]),
        "FACTOR": factor_of(weights[0]),
        "PRECISION": precision_of(weights[0]),
    }
    chains.forward_loss_reverse[(tiles,)](
        *(values, slopes, tuple(weights)),
        tuple(x if bias is None else bias.contiguous() for _, bias, *_ in products),
        *(target, shares, counters, patches),
        **same,
        STRIDES=tuple(stride for w in weights for stride in w.stride()),
        CHANNELS=tuple(_channels(weight, transposed) for weight, _, transposed, _ in products),
        RELUS=tuple(flags[2::3]),
        LOGISTIC=logistic,
        WANTS_X=wants_x,
        NUMBERS=rows[-1] * sides[-1],
        COUNTERS=len(counters),
        BLOCK=_BLOCK,
        **_blocks(x, weights, patches, rows),
    )
    starts = _starts(cut.tiles * cut.shares for cut in cuts)
    into = _starts(weight.numel() + (0 if b is None else b.numel()) for weight, b, *_ in products)
    chains.weight_gradients[(starts[-1],)](
        *(values, slopes, shares, counters, loss, sums, patches),
        **same,
        TURNED=tuple(not transposed for transposed in flags[::3]),
        STARTS=starts,
        PLACES=tuple(cut.place for cut in cuts),
        COUNTS=tuple(cut.shares for cut in cuts),
        STEPS=tuple(cut.steps for cut in cuts),
        FIRST_COUNTERS=_starts(cut.tiles + 1 for cut in cuts),
        INTO=into,
        LOSSES=_Total(0, 0, tiles, 1, 1, 1).arguments,
        TOTALS=tuple(total.arguments for total in _totals(products, cuts, into)),
        SIZES=tuple(side(size) for size in sides),
        BM=_ROWS,
    )
    return loss, slope, sums


def _blocks(
    x: Tensor, weights: Sequence[Tensor], patches: int, rows: Sequence[int]
) -> dict[str, Any]:
    """What a program takes at once, see programs.chains: a product is one block, read in a short loop."""
    tile, size_bytes = _tile(patches), weights[0].element_size()
    high: list[int] = []
    wide: list[int] = []
    deep: list[int] = []
    for w, count in zip(weights, rows, strict=True):
        high.append(min(64, tile * (count & -count)))  # divides the rows of a tile
        columns = min(256, _BLOCK_BYTES // (high[-1] * size_bytes))
        wide += [side(size, most=columns) for size in w.shape]
        deep += [side(size, most=64 if size_bytes == 2 else 32) for size in w.shape]
    factor_bytes = (max(high) + max(wide)) * max(deep) * size_bytes
    shared_bytes = max_shared_mem(x.device.index) if x.is_cuda else _SHARED_BYTES
    return {
        "TILE": tile,
        "BM": tuple(high),
        "BN": tuple(wide),
        "BK": tuple(deep),
        "num_warps": 8,
        # A multiprocessor has one program: it waits for memory unless many blocks are on their way.
        "num_stages": max(1, min(5, shared_bytes // factor_bytes)),
    }


class _Cut(NamedTuple):
    """The shares of a weight's gradient and its bias': where they start, their number, the numbers of each.

    A share is made in some steps by the programs of all tiles.
    """

    place: int
    shares: int
    width: int
    steps: int
    tiles: int


class _Total(NamedTuple):
    """Numbers that are sums of shares, see programs.chains."""

    place: int
    into: int
    shares: int
    width: int
    taps: int
    size: int

    @property
    def arguments(self) -> tuple[int, ...]:
        """All of it, and how many rows of how many numbers are read at once: 64, or more of few numbers."""
        rows, size = map(power_of_2, (self.shares * self.taps, self.size))
        wide = min(size, _SUMS // min(64, rows))
        return (*self, min(rows, _SUMS // wide), wide)


def _shares(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[bool],
    patches: int,
    rows: Sequence[int],
) -> tuple[list[_Cut], Tensor]:
    """The shares of all gradients, and room for them behind each program's part of the loss."""
    tiles = [math.prod(ceil_div(size, side(size)) for size in w.shape) for w in weights]
    work = [own * ceil_div(patches * count, _ROWS) for own, count in zip(tiles, rows, strict=True)]
    cuts, place = [], 16 * ceil_div(ceil_div(patches, _tile(patches)), 16)  # for wide reads
    for w, bias, own, row, steps in zip(weights, biases, tiles, rows, work, strict=True):
        programs = PROGRAMS * steps // sum(work)  # so that all take about equally many steps
        count, each = cut(patches * row, _ROWS, tiles=own, programs=programs)
        width = (w.shape[0] + bias) * w.shape[1]
        cuts.append(_Cut(place, count, width, each, own))
        place += count * width
    return cuts, x.new_empty(place, dtype=WIDE[weights[0].dtype])


def _totals(
    products: Sequence[Product], cuts: Sequence[_Cut], into: Sequence[int]
) -> Iterator[_Total]:
    """The gradient of the bias of each product; if it has no bias, nothing reads this."""
    for (weight, _, transposed, _), own, begin in zip(products, cuts, into, strict=False):
        size, channels = weight.numel(), _channels(weight, transposed)
        taps = (own.width - size) // channels
        yield _Total(own.place + size, begin + size, own.shares, own.width, taps, channels)


def _counters(x: Tensor, cuts: Sequence[_Cut]) -> Tensor:
    """A counter for each tile of a weight, and one for the weight."""
    return x.new_empty(power_of_2(sum(cut.tiles + 1 for cut in cuts)), dtype=torch.int32)


def _starts(counts: Iterable[int]) -> tuple[int, ...]:
    """Where each part of the programs starts, and where the last one ends."""
    return tuple(accumulate(counts, initial=0))


def _tile(patches: int) -> int:
    """How many of the coarsest patches a program takes."""
    return side(ceil_div(patches, PROCESSORS))


def _channels(weight: Tensor, transposed: bool) -> int:
    return weight.shape[1] if transposed else weight.shape[0]


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
    weights: Sequence[Tensor], patches: int, rows: Sequence[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """Room for what each product makes, and for the gradients of that."""
    made, gradients = (
        [w.new_empty((patches * count, w.shape[1])) for w, count in zip(weights, rows, strict=True)]
        for _ in range(2)
    )
    return made, gradients


def _scratch(x: Tensor, parameters: Sequence[Tensor], flags: Sequence[bool]) -> list[Tensor]:
    """What lies between the products, and the shares of all sums."""
    patches, rows = _patches(x, parameters, flags)
    weights = _matrices(parameters, flags)
    made, gradients = _between(weights, patches, rows)
    cuts, shares = _shares(x, weights, flags[1::3], patches, rows)
    return [*made, *gradients, shares, _counters(x, cuts)]


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
    casts = ("x",)

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
