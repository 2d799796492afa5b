"""Bias and relu after a convolution, on images in channels_last, (pixels, C)."""

import triton
import triton.language as tl

from graphnet_triton.programs.images import places


@triton.jit
def bias_relu(y, bias, count, C: tl.constexpr, SUM: tl.constexpr, BLOCK: tl.constexpr):
    """Compute y = max(y + bias, 0) in place; `count` is the number of elements."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    value = tl.load(y + at, mask=inside, other=0.0).to(SUM)
    value += tl.load(bias + at % C, mask=inside, other=0.0).to(SUM)
    value = tl.where(value < 0, 0.0, value)  # NaN stays NaN
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def mask_and_sum(
    grad,
    y,
    masked,
    shares,
    pixels,
    C: tl.constexpr,
    SUM: tl.constexpr,
    STEPS: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """STEPS * BP pixels of masked: grad where y is above 0, else 0; and their sum: shares (count, C)."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    share = tl.program_id(1)
    total = tl.zeros((BC,), dtype=SUM)
    for step in range(STEPS):
        p = (share * STEPS + step) * BP + tl.arange(0, BP)
        at, inside = places(p, c, pixels, C)
        above = tl.load(y + at, mask=inside, other=0.0).to(SUM) > 0
        g = tl.where(above, tl.load(grad + at, mask=inside, other=0.0).to(SUM), 0.0)
        tl.store(masked + at, g.to(masked.dtype.element_ty), mask=inside)
        total += tl.sum(g, 0)
    tl.store(shares + share * C + c, total, mask=c < C)
