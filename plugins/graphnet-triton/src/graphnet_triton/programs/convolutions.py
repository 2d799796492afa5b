"""Convolutions of images in channels_last as one matrix product, whose rows are the pixels of the output."""

import triton
import triton.language as tl


@triton.jit
def convolution(
    x,
    w,
    bias,
    y,
    pixels,
    high,
    wide,
    out_high,
    out_wide,
    C: tl.constexpr,
    K: tl.constexpr,
    TAPS: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    BIAS: tl.constexpr,
    RELU: tl.constexpr,
    SUM: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """BM pixels and BN channels of y = conv2d(x, w) + bias, no less than 0 if RELU.

    x: (N, high, wide, C); y: (N, out_high, out_wide, K), with so many `pixels`; w: (K, *TAPS, C). The product
    runs over the taps of the kernel and, for each of them, over BK channels of x at once.
    """
    across = tl.cdiv(K, BN)  # neighbours take the same pixels, which one of them reads from HBM
    pixel = tl.program_id(0) // across * BM + tl.arange(0, BM)
    column = tl.program_id(0) % across * BN + tl.arange(0, BN)
    image = pixel // (out_high * out_wide)
    top = pixel // out_wide % out_high * STRIDE[0] - PADDING[0]
    left = pixel % out_wide * STRIDE[1] - PADDING[1]
    blocks: tl.constexpr = (C + BK - 1) // BK
    total = tl.zeros((BM, BN), dtype=SUM)
    for step in range(TAPS[0] * TAPS[1] * blocks):
        tap = step // blocks
        c = step % blocks * BK + tl.arange(0, BK)
        row = top + tap // TAPS[1] * DILATION[0]
        place = left + tap % TAPS[1] * DILATION[1]
        inside = (pixel < pixels) & (row >= 0) & (row < high) & (place >= 0) & (place < wide)
        factor = tl.load(
            x + ((image * high + row) * wide + place)[:, None] * C + c[None, :],
            mask=inside[:, None] & (c < C)[None, :],
            other=0.0,
        ).to(FACTOR)
        weight = tl.load(
            w + column[None, :] * (TAPS[0] * TAPS[1] * C) + (tap * C + c)[:, None],
            mask=(c < C)[:, None] & (column < K)[None, :],
            other=0.0,
        ).to(FACTOR)
        total = tl.dot(factor, weight, total, input_precision=PRECISION, out_dtype=SUM)
    if BIAS:
        total += tl.load(bias + column, mask=column < K, other=0.0).to(SUM)[None, :]
    if RELU:
        total = tl.where(total < 0, 0.0, total)  # NaN stays NaN
    tl.store(
        y + pixel[:, None] * K + column[None, :],
        total.to(y.dtype.element_ty),
        mask=(pixel < pixels)[:, None] & (column < K)[None, :],
    )
