"""Norms of images in channels_last, (pixels, C): of each pixel over its channels, or the reverse."""

import triton
import triton.language as tl

from graphnet_triton.programs.images import places


@triton.jit
def layer_norm(
    x,
    weight,
    bias,
    y,
    mean,
    inverse_std,
    pixels,
    C: tl.constexpr,
    EPS: tl.constexpr,
    SUBTRACT: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    SUM: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """BP pixels of y = weight z + bias, with their mean and 1 / standard deviation."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.arange(0, BC)
    at, inside = places(p, c, pixels, C)
    value = tl.load(x + at, mask=inside, other=0.0).to(SUM)
    middle = tl.sum(value, 1) / C
    centered = tl.where(inside, value - middle[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centered * centered, 1) / C + EPS)
    z = (centered if SUBTRACT else value) * scale[:, None]
    if WEIGHT:
        z *= tl.load(weight + c, mask=c < C, other=0.0).to(SUM)[None, :]
    if BIAS:
        z += tl.load(bias + c, mask=c < C, other=0.0).to(SUM)[None, :]
    tl.store(y + at, z.to(y.dtype.element_ty), mask=inside)
    tl.store(mean + p, middle.to(mean.dtype.element_ty), mask=p < pixels)
    tl.store(inverse_std + p, scale.to(inverse_std.dtype.element_ty), mask=p < pixels)


@triton.jit
def layer_norm_gradient(
    grad,
    x,
    weight,
    mean,
    inverse_std,
    grad_x,
    shares,
    pixels,
    C: tl.constexpr,
    SUBTRACT: tl.constexpr,
    WEIGHT: tl.constexpr,
    SUM: tl.constexpr,
    STEPS: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """STEPS * BP pixels of grad_x, and their share of the gradients of weight and bias: (shares, 2 C)."""
    c = tl.arange(0, BC)
    of_weight = tl.zeros((BC,), dtype=SUM)
    of_bias = tl.zeros((BC,), dtype=SUM)
    for step in range(STEPS):
        p = (tl.program_id(0) * STEPS + step) * BP + tl.arange(0, BP)
        at, inside = places(p, c, pixels, C)
        g = tl.load(grad + at, mask=inside, other=0.0).to(SUM)
        value = tl.load(x + at, mask=inside, other=0.0).to(SUM)
        middle = tl.load(mean + p, mask=p < pixels, other=0.0).to(SUM)
        scale = tl.load(inverse_std + p, mask=p < pixels, other=0.0).to(SUM)
        centered = tl.where(inside, (value - middle[:, None]) * scale[:, None], 0.0)
        z = centered if SUBTRACT else value * scale[:, None]
        of_weight += tl.sum(g * z, 0)
        of_bias += tl.sum(g, 0)
        h = g
        if WEIGHT:
            h = g * tl.load(weight + c, mask=c < C, other=0.0).to(SUM)[None, :]
        along = tl.sum(h * z, 1) / C
        if SUBTRACT:
            h -= (tl.sum(h, 1) / C)[:, None]
        result = scale[:, None] * (h - centered * along[:, None])
        tl.store(grad_x + at, result.to(grad_x.dtype.element_ty), mask=inside)
    mine = shares + tl.program_id(0) * (2 * C)
    tl.store(mine + c, of_weight, mask=c < C)
    tl.store(mine + C + c, of_bias, mask=c < C)


@triton.jit
def channel_moments(
    x,
    shares,
    pixels,
    C: tl.constexpr,
    SUM: tl.constexpr,
    STEPS: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """Of a share of the pixels, each channel's mean and sum of squared differences from it: (shares, 2 C)."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    share = tl.program_id(1)
    count = tl.minimum(pixels - share * (STEPS * BP), STEPS * BP)
    total = tl.zeros((BC,), dtype=SUM)
    for step in range(STEPS):
        p = (share * STEPS + step) * BP + tl.arange(0, BP)
        at, inside = places(p, c, pixels, C)
        total += tl.sum(tl.load(x + at, mask=inside, other=0.0).to(SUM), 0)
    middle = total / count
    squares = tl.zeros((BC,), dtype=SUM)
    for step in range(STEPS):
        p = (share * STEPS + step) * BP + tl.arange(0, BP)
        at, inside = places(p, c, pixels, C)
        value = tl.load(x + at, mask=inside, other=0.0).to(SUM)
        away = tl.where(inside, value - middle[None, :], 0.0)
        squares += tl.sum(away * away, 0)
    mine = shares + share * (2 * C)
    tl.store(mine + c, middle, mask=c < C)
    tl.store(mine + C + c, squares, mask=c < C)


@triton.jit
def batch_statistics(
    shares,
    running_mean,
    running_var,
    mean,
    inverse_std,
    new_mean,
    new_var,
    pixels,
    C: tl.constexpr,
    EPS: tl.constexpr,
    MOMENTUM: tl.constexpr,
    COUNT: tl.constexpr,
    PER_SHARE: tl.constexpr,
    BC: tl.constexpr,
):
    """Each channel's statistics from those of the shares (Chan et al. 1983, eq. 2.1); the running ones."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    middle = tl.zeros((BC,), dtype=shares.dtype.element_ty)
    squares = tl.zeros((BC,), dtype=shares.dtype.element_ty)
    for share in range(COUNT):
        before = share * PER_SHARE
        more = tl.minimum(pixels - before, PER_SHARE)
        theirs = tl.load(shares + share * (2 * C) + c, mask=c < C, other=0.0)
        away = theirs - middle
        middle += away * more / (before + more)
        squares += tl.load(shares + share * (2 * C) + C + c, mask=c < C, other=0.0)
        squares += away * away * more / (before + more) * before
    scale = 1.0 / tl.sqrt(squares / pixels + EPS)
    old_mean = tl.load(running_mean + c, mask=c < C, other=0.0)
    old_var = tl.load(running_var + c, mask=c < C, other=0.0)
    moved_mean = old_mean + MOMENTUM * (middle - old_mean)
    moved_var = old_var + MOMENTUM * (squares / (pixels - 1) - old_var)
    tl.store(mean + c, middle, mask=c < C)
    tl.store(inverse_std + c, scale, mask=c < C)
    tl.store(new_mean + c, moved_mean.to(new_mean.dtype.element_ty), mask=c < C)
    tl.store(new_var + c, moved_var.to(new_var.dtype.element_ty), mask=c < C)


@triton.jit
def batch_norm_relu(
    x,
    weight,
    bias,
    mean,
    inverse_std,
    y,
    count,
    C: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """y = max(weight (x - mean) inverse_std + bias, 0), elementwise; NaN stays NaN."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    c = at % C
    value = tl.load(x + at, mask=inside, other=0.0).to(SUM)
    value = (value - tl.load(mean + c)) * tl.load(inverse_std + c)
    if WEIGHT:
        value *= tl.load(weight + c).to(SUM)
    if BIAS:
        value += tl.load(bias + c).to(SUM)
    value = tl.where(value < 0, 0.0, value)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def batch_norm_sums(
    grad,
    x,
    y,
    mean,
    inverse_std,
    shares,
    pixels,
    C: tl.constexpr,
    SUM: tl.constexpr,
    STEPS: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """Of a share of the pixels, each channel's sums of m(g) z, z the normed x, and of m(g): (shares, 2 C)."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    share = tl.program_id(1)
    middle = tl.load(mean + c, mask=c < C, other=0.0)
    scale = tl.load(inverse_std + c, mask=c < C, other=0.0)
    of_weight = tl.zeros((BC,), dtype=SUM)
    of_bias = tl.zeros((BC,), dtype=SUM)
    for step in range(STEPS):
        p = (share * STEPS + step) * BP + tl.arange(0, BP)
        at, inside = places(p, c, pixels, C)
        g = tl.load(grad + at, mask=inside, other=0.0).to(SUM)
        g = tl.where(tl.load(y + at, mask=inside, other=0.0) <= 0, 0.0, g)
        z = (tl.load(x + at, mask=inside, other=0.0).to(SUM) - middle[None, :]) * scale[None, :]
        of_weight += tl.sum(g * z, 0)
        of_bias += tl.sum(g, 0)
    mine = shares + share * (2 * C)
    tl.store(mine + c, of_weight, mask=c < C)
    tl.store(mine + C + c, of_bias, mask=c < C)


@triton.jit
def batch_norm_gradient(
    grad,
    x,
    y,
    weight,
    mean,
    inverse_std,
    of_weight,
    of_bias,
    grad_x,
    count,
    pixels,
    C: tl.constexpr,
    WEIGHT: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """grad_x = weight inverse_std (m(g) - mean of m(g) - z mean of m(g) z), elementwise."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    c = at % C
    g = tl.load(grad + at, mask=inside, other=0.0).to(SUM)
    g = tl.where(tl.load(y + at, mask=inside, other=0.0) <= 0, 0.0, g)
    scale = tl.load(inverse_std + c)
    z = (tl.load(x + at, mask=inside, other=0.0).to(SUM) - tl.load(mean + c)) * scale
    result = g - tl.load(of_bias + c) / pixels - z * (tl.load(of_weight + c) / pixels)
    result *= scale
    if WEIGHT:
        result *= tl.load(weight + c).to(SUM)
    tl.store(grad_x + at, result.to(grad_x.dtype.element_ty), mask=inside)
