"""The product of the two halves of an image's channels, and its gradient."""

import triton
import triton.language as tl


@triton.jit
def gate(x, y, count, HALF: tl.constexpr, SUM: tl.constexpr, BLOCK: tl.constexpr):
    """y (pixels, HALF) from x (pixels, 2 HALF); `count` is the elements of y."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    first = at // HALF * (2 * HALF) + at % HALF
    one = tl.load(x + first, mask=inside, other=0.0).to(SUM)
    other = tl.load(x + first + HALF, mask=inside, other=0.0).to(SUM)
    tl.store(y + at, (one * other).to(y.dtype.element_ty), mask=inside)


@triton.jit
def gate_gradient(
    grad, x, grad_x, count, HALF: tl.constexpr, SUM: tl.constexpr, BLOCK: tl.constexpr
):
    """grad_x (pixels, 2 HALF) from grad (pixels, HALF) and x."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    first = at // HALF * (2 * HALF) + at % HALF
    g = tl.load(grad + at, mask=inside, other=0.0).to(SUM)
    one = tl.load(x + first, mask=inside, other=0.0).to(SUM)
    other = tl.load(x + first + HALF, mask=inside, other=0.0).to(SUM)
    tl.store(grad_x + first, (g * other).to(grad_x.dtype.element_ty), mask=inside)
    tl.store(grad_x + first + HALF, (g * one).to(grad_x.dtype.element_ty), mask=inside)
