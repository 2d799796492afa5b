"""Losses and their slopes in one pass over prediction and target."""

import triton
import triton.language as tl


@triton.jit
def squared_error(prediction, target, slope, parts, count, SUM: tl.constexpr, BLOCK: tl.constexpr):
    """slope = 2 (prediction - target) / count, and for each block the sum of its squares over count."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    difference = tl.load(prediction + at, mask=inside, other=0.0).to(SUM)
    difference -= tl.load(target + at, mask=inside, other=0.0).to(SUM)
    share = difference / count
    tl.store(slope + at, (2 * share).to(slope.dtype.element_ty), mask=inside)
    tl.store(parts + tl.program_id(0), tl.sum(difference * share, 0))


@triton.jit
def add_up(parts, total, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """The sum of COUNT numbers, by one program, always in the same order."""
    sums = tl.zeros((BLOCK,), dtype=parts.dtype.element_ty)
    for start in range(0, COUNT, BLOCK):
        at = start + tl.arange(0, BLOCK)
        sums += tl.load(parts + at, mask=at < COUNT, other=0.0)
    tl.store(total, tl.sum(sums, 0))
