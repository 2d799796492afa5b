"""Updates of many tensors at once: the blocks of all tensors are numbered, and each program takes one block.

`tensors` are the addresses of the tensors that a rule reads or writes, such as parameters, gradients and
momentum buffers: one tuple of COUNT addresses for each, with the dtypes TYPES. The i-th tensors have SIZES[i]
elements with equal strides, and the blocks from STARTS[i] on. Each tensor may lie anywhere in memory. If
`finite` is given and False, nothing is written. With COPIES, the new parameters are also written into the
last tensors, in their dtype.
"""

import triton
import triton.language as tl


@triton.jit
def _own(values, starts, COUNT: tl.constexpr):
    """Of values, one for each tensor, that of the tensor which this program's block belongs to."""
    found = values[0]
    for i in tl.static_range(1, COUNT):
        found = tl.where(tl.program_id(0) >= starts[i], values[i], found)
    return found


@triton.jit
def _elements(starts, sizes, finite, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Which elements of its tensor this program takes, and which of these it reads and writes."""
    block = (tl.program_id(0) - _own(starts, starts, COUNT)).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    size = _own(sizes, starts, COUNT)
    if finite is not None:
        size = tl.where(tl.load(finite) != 0, size, 0)
    return at, at < size


@triton.jit
def _start(addresses, starts, COUNT: tl.constexpr, TYPE: tl.constexpr):
    """Where this program's tensor begins; an address that fits into 32 bits comes as such a number."""
    return _own(addresses, starts, COUNT).to(tl.int64).to(tl.pointer_type(TYPE))


@triton.jit
def _copy(p, tensors, at, inside, starts, COUNT: tl.constexpr, TYPES: tl.constexpr):
    """Writes p into the last of this program's tensors, in its dtype."""
    LAST: tl.constexpr = len(TYPES) - 1
    copies = _start(tensors[LAST], starts, COUNT, TYPES[LAST]) + at
    tl.store(copies, p.to(TYPES[LAST]), mask=inside)


@triton.jit
def sgd(
    tensors,
    starts,
    sizes,
    lr,
    step,
    finite,
    COUNT: tl.constexpr,
    TYPES: tl.constexpr,
    MOMENTUM: tl.constexpr,
    DAMPENING: tl.constexpr,
    WEIGHT_DECAY: tl.constexpr,
    NESTEROV: tl.constexpr,
    COPIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """graphnet.SGD: of parameters and gradients, and momentum buffers where there is MOMENTUM."""
    at, inside = _elements(starts, sizes, finite, COUNT, BLOCK)
    parameters = _start(tensors[0], starts, COUNT, TYPES[0]) + at
    p = tl.load(parameters, mask=inside, other=0.0)
    g = tl.load(_start(tensors[1], starts, COUNT, TYPES[1]) + at, mask=inside, other=0.0)
    direction = g.to(tl.float32)
    if WEIGHT_DECAY != 0:
        direction += WEIGHT_DECAY * p
    if MOMENTUM != 0:
        buffers = _start(tensors[2], starts, COUNT, TYPES[2]) + at
        fresh = direction
        if DAMPENING != 0:  # the first step takes the whole gradient
            fresh *= tl.where(tl.load(step) > 0, 1.0 - DAMPENING, 1.0)
        b = MOMENTUM * tl.load(buffers, mask=inside, other=0.0) + fresh
        tl.store(buffers, b, mask=inside)
        direction = direction + MOMENTUM * b if NESTEROV else b
    p -= tl.load(lr) * direction
    tl.store(parameters, p, mask=inside)
    if COPIES:
        _copy(p, tensors, at, inside, starts, COUNT, TYPES)


@triton.jit
def adam(
    tensors,
    starts,
    sizes,
    lr,
    step,
    finite,
    COUNT: tl.constexpr,
    TYPES: tl.constexpr,
    LOG_BETAS: tl.constexpr,
    SHARES: tl.constexpr,
    EPS: tl.constexpr,
    WEIGHT_DECAY: tl.constexpr,
    DECOUPLED: tl.constexpr,
    COPIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """graphnet.Adam, or AdamW if DECOUPLED: of parameters, gradients, and their two moving averages.

    LOG_BETAS are the logarithms of the two betas, SHARES what they lack to 1.
    """
    at, inside = _elements(starts, sizes, finite, COUNT, BLOCK)
    parameters = _start(tensors[0], starts, COUNT, TYPES[0]) + at
    means = _start(tensors[2], starts, COUNT, TYPES[2]) + at
    squares = _start(tensors[3], starts, COUNT, TYPES[3]) + at
    p = tl.load(parameters, mask=inside, other=0.0)
    g = tl.load(_start(tensors[1], starts, COUNT, TYPES[1]) + at, mask=inside, other=0.0)
    g = g.to(tl.float32)
    rate = tl.load(lr)
    if WEIGHT_DECAY != 0:
        if DECOUPLED:
            p *= 1.0 - rate * WEIGHT_DECAY
        else:
            g += WEIGHT_DECAY * p
    m = tl.load(means, mask=inside, other=0.0)
    v = tl.load(squares, mask=inside, other=0.0)
    m += SHARES[0] * (g - m)
    v += SHARES[1] * (g * g - v)
    tl.store(means, m, mask=inside)
    tl.store(squares, v, mask=inside)
    # Corrections in float64: 1 - beta^t is 1e-3 in the first step, too little for float32.
    t = tl.load(step).to(tl.float64) + 1.0
    step_size = (rate / (1.0 - tl.exp(t * LOG_BETAS[0]))).to(tl.float32)
    root = tl.sqrt(1.0 - tl.exp(t * LOG_BETAS[1])).to(tl.float32)
    p -= step_size * (m / (tl.sqrt(v) / root + EPS))
    tl.store(parameters, p, mask=inside)
    if COPIES:
        _copy(p, tensors, at, inside, starts, COUNT, TYPES)


@triton.jit
def follow(
    tensors, starts, sizes, rate, COUNT: tl.constexpr, TYPES: tl.constexpr, BLOCK: tl.constexpr
):
    """Averages, moved towards parameters by the share `rate` of their distance."""
    at, inside = _elements(starts, sizes, None, COUNT, BLOCK)
    averages = _start(tensors[0], starts, COUNT, TYPES[0]) + at
    average = tl.load(averages, mask=inside, other=0.0)
    p = tl.load(_start(tensors[1], starts, COUNT, TYPES[1]) + at, mask=inside, other=0.0)
    average += tl.load(rate).to(tl.float32) * (p - average)
    tl.store(averages, average, mask=inside)


@triton.jit
def cast(tensors, starts, sizes, COUNT: tl.constexpr, TYPES: tl.constexpr, BLOCK: tl.constexpr):
    """The numbers of the second tensors in the dtype of the first."""
    at, inside = _elements(starts, sizes, None, COUNT, BLOCK)
    x = tl.load(_start(tensors[1], starts, COUNT, TYPES[1]) + at, mask=inside, other=0.0)
    tl.store(_start(tensors[0], starts, COUNT, TYPES[0]) + at, x.to(TYPES[0]), mask=inside)
