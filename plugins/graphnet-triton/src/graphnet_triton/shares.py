"""Sums over pixels in shares: each program sums some pixels, and the shares are added in a fixed order.

So a sum has the same bits each time; with atomic additions it would not.
"""

from __future__ import annotations

from torch import Tensor

from graphnet_triton.launch import PROCESSORS, ceil_div, power_of_2
from graphnet_triton.programs import products

PROGRAMS = 2 * PROCESSORS
_SHARES = 128  # that a program reads at once: a wait for each would take longer than to read all
_NUMBERS = 4096  # of all these


def cut(total: int, at_once: int, *, tiles: int = 1, programs: int = PROGRAMS) -> tuple[int, int]:
    """How many shares `total` is cut into, of how many steps of `at_once`; `tiles` programs take a share."""
    blocks = ceil_div(total, at_once)
    steps = ceil_div(blocks, max(1, programs // tiles))
    return ceil_div(blocks, steps), steps


def add_up(shares: Tensor, first: Tensor, second: Tensor | None) -> None:
    """The sums of shares (S, N) into `first`, and what that has no room for into `second`."""
    count, width = shares.shape
    part = min(_SHARES, power_of_2(count))
    products.add_shares[(ceil_div(width, _NUMBERS // part),)](
        *(shares, first, first if second is None else second),
        COUNT=count,
        WEIGHT=first.numel(),
        ALL=width,
        PART=part,
        BLOCK=_NUMBERS // part,
    )
