"""Chains of products: patches from the pixels of x to the loss and back, then the sums over all of them."""

import triton
import triton.language as tl

from graphnet_triton.programs.products import share_of_gradient, sum_of_products


@triton.jit
def _times(
    a,
    b,
    bias,
    mask,
    y,
    first,
    rows,
    B_ROW: tl.constexpr,
    B_COLUMN: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
    BIAS: tl.constexpr,
    RELU: tl.constexpr,
    MASKED: tl.constexpr,
    SUM: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    COUNT: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """COUNT rows of y (rows, COLUMNS) from `first` on: a b + bias, no less than 0 if RELU.

    It is 0 where the mask is not above 0. Each CHANNELS columns have the same bias. All else as in
    products.product.
    """
    tl.static_assert(COUNT % BM == 0, "the rows behind belong to another program")
    for m in range(0, COUNT, BM):
        row = first + m + tl.arange(0, BM)
        for n in range(0, COLUMNS, BN):
            column = n + tl.arange(0, BN)
            inside = (row[:, None] < rows) & (column[None, :] < COLUMNS)
            total = sum_of_products(
                *(a, a, b, row, column, rows, B_ROW, B_COLUMN),
                *(DEPTH, COLUMNS, False, SUM, FACTOR, PRECISION, BM, BN, BK),
            )
            if BIAS:
                shift = tl.load(bias + column % CHANNELS, mask=column < COLUMNS, other=0.0).to(SUM)
                total += shift[None, :]
            if RELU:
                total = tl.where(total < 0, 0.0, total)  # NaN stays NaN
            at = row[:, None] * COLUMNS + column[None, :]
            if MASKED:
                total = tl.where(
                    tl.load(mask + at, mask=inside, other=0.0).to(SUM) <= 0, 0.0, total
                )
            tl.store(y + at, total.to(y.dtype.element_ty), mask=inside)
    tl.debug_barrier()  # the next product reads what other threads of this program have written


@triton.jit
def forward_loss_reverse(
    values,
    slopes,
    weights,
    biases,
    target,
    losses,
    counters,
    patches,
    LINKS: tl.constexpr,
    ROWS: tl.constexpr,
    SIDES: tl.constexpr,
    STRIDES: tl.constexpr,
    CHANNELS: tl.constexpr,
    BIASES: tl.constexpr,
    RELUS: tl.constexpr,
    LOGISTIC: tl.constexpr,
    WANTS_X: tl.constexpr,
    NUMBERS: tl.constexpr,
    COUNTERS: tl.constexpr,
    SUM: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    TILE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """TILE of the coarsest patches through all products, and the gradient of each value on the way back.

    values: x, then what each of the LINKS products makes; slopes: their gradients, masked, that of x only
    if it WANTS_X. For each patch a product has ROWS rows of SIDES[2 i] numbers and makes SIDES[2 i + 1]; its
    weight, in that shape, has the two STRIDES. NUMBERS: how many of the prediction belong to a patch.
    losses: each program's share. `counters` are set to 0 for `weight_gradients`; COUNTERS is a power of 2
    that is not less than their number. A product takes BM of its rows at once, and of the axis SIDES[j] BN as
    columns or BK as depth.
    """
    if tl.program_id(0) == 0:
        tl.store(counters + tl.arange(0, COUNTERS), 0)
    first = tl.program_id(0) * TILE
    for i in tl.static_range(LINKS):
        _times(
            *(values[i], weights[i], biases[i], values[i], values[i + 1]),
            *(first * ROWS[i], patches * ROWS[i], STRIDES[2 * i], STRIDES[2 * i + 1]),
            *(SIDES[2 * i], SIDES[2 * i + 1], CHANNELS[i], BIASES[i], RELUS[i], False),
            *(SUM, FACTOR, PRECISION, TILE * ROWS[i], BM[i], BN[2 * i + 1], BK[2 * i]),
        )
    prediction, slope = values[LINKS], slopes[LINKS]
    squares = tl.zeros((BLOCK,), dtype=SUM)
    for start in range(0, TILE * NUMBERS, BLOCK):
        at = first * NUMBERS + start + tl.arange(0, BLOCK)
        inside = (start + tl.arange(0, BLOCK) < TILE * NUMBERS) & (at < patches * NUMBERS)
        y = tl.load(prediction + at, mask=inside, other=0.0).to(SUM)
        p = 1 / (1 + tl.exp(-y)) if LOGISTIC else y
        error = tl.where(inside, p - tl.load(target + at, mask=inside, other=0.0).to(SUM), 0.0)
        squares += error * error
        gradient = 2 * error / (patches * NUMBERS)
        if LOGISTIC:
            gradient *= p * (1 - p)
        if RELUS[LINKS - 1]:
            gradient = tl.where(y <= 0, 0.0, gradient)
        tl.store(slope + at, gradient.to(slope.dtype.element_ty), mask=inside)
    tl.store(losses + tl.program_id(0), tl.sum(squares, 0) / (patches * NUMBERS))
    tl.debug_barrier()
    for i in tl.static_range(LINKS - 1, -1 if WANTS_X else 0, -1):
        _times(
            *(slopes[i + 1], weights[i], biases[i], values[i], slopes[i]),
            *(first * ROWS[i], patches * ROWS[i], STRIDES[2 * i + 1], STRIDES[2 * i]),
            *(SIDES[2 * i + 1], SIDES[2 * i], CHANNELS[i], False, False, i > 0 and RELUS[i - 1]),
            *(SUM, FACTOR, PRECISION, TILE * ROWS[i], BM[i], BN[2 * i], BK[2 * i + 1]),
        )


@triton.jit
def _is_last(counter, COUNT: tl.constexpr):
    """Whether this program is the last of COUNT to come here; it then reads what the others have written."""
    tl.debug_barrier()  # all threads of this program have written
    return tl.atomic_add(counter, 1, sem="acq_rel") == COUNT - 1


@triton.jit
def weight_gradients(
    values,
    slopes,
    shares,
    counters,
    loss,
    sums,
    patches,
    LINKS: tl.constexpr,
    ROWS: tl.constexpr,
    SIDES: tl.constexpr,
    BIASES: tl.constexpr,
    TURNED: tl.constexpr,
    SUM: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    STARTS: tl.constexpr,
    PLACES: tl.constexpr,
    COUNTS: tl.constexpr,
    STEPS: tl.constexpr,
    FIRST_COUNTERS: tl.constexpr,
    INTO: tl.constexpr,
    LOSSES: tl.constexpr,
    TOTALS: tl.constexpr,
    SIZES: tl.constexpr,
    BM: tl.constexpr,
):
    """The gradients of all weights and biases in sums, and the loss, the sum of the LOSSES first shares.

    values and slopes with LINKS, ROWS and SIDES as in `forward_loss_reverse`. The programs from STARTS[i]
    to STARTS[i + 1] work for the weight i, on tiles of SIZES as SIDES; its COUNTS[i] shares start at
    PLACES[i], see products.weight_gradient. A tile has a counter, from FIRST_COUNTERS[i] on, which is 0
    before: the last program of a tile adds up its shares, always in the same order. So does the last program
    of a weight with the shares of its bias, as TOTALS[i] tells `_add`. INTO[i] is where its gradient begins
    in sums.
    """
    program = tl.program_id(0)
    if program == 0:
        _add(shares, loss, *LOSSES)
    for i in tl.static_range(LINKS):
        if (program >= STARTS[i]) & (program < STARTS[i + 1]):
            own = program - STARTS[i]
            high = tl.cdiv(SIDES[2 * i], SIZES[2 * i])
            wide = tl.cdiv(SIDES[2 * i + 1], SIZES[2 * i + 1])
            share_of_gradient(
                *(values[i], slopes[i + 1], values[i], shares + PLACES[i], patches * ROWS[i]),
                *(own % high, own // high % wide, own // (high * wide)),
                *(SIDES[2 * i], SIDES[2 * i + 1], False, BIASES[i], TURNED[i]),
                *(SUM, FACTOR, PRECISION, STEPS[i], SIZES[2 * i], SIZES[2 * i + 1], BM),
            )
            if _is_last(counters + FIRST_COUNTERS[i] + own % (high * wide), COUNTS[i]):
                _add_tile(
                    *(shares + PLACES[i], sums + INTO[i], own % high, own // high % wide),
                    *(SIDES[2 * i], SIDES[2 * i + 1], BIASES[i], TURNED[i], COUNTS[i]),
                    *(SIZES[2 * i], SIZES[2 * i + 1]),
                )
            if BIASES[i]:  # noqa: SIM102  (known when it is compiled, the other one is not)
                if _is_last(counters + FIRST_COUNTERS[i + 1] - 1, STARTS[i + 1] - STARTS[i]):
                    _add(shares, sums, *TOTALS[i])


@triton.jit
def _add_tile(
    shares,
    sums,
    high,
    wide,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    BIAS: tl.constexpr,
    TURNED: tl.constexpr,
    COUNT: tl.constexpr,
    BI: tl.constexpr,
    BO: tl.constexpr,
):
    """The tile (`high`, `wide`) of sums: those of COUNT shares, see products.weight_gradient."""
    i = high * BI + tl.arange(0, BI)
    o = wide * BO + tl.arange(0, BO)
    place = o[None, :] * IN + i[:, None] if TURNED else i[:, None] * OUT + o[None, :]
    inside = (i[:, None] < IN) & (o[None, :] < OUT)
    total = tl.zeros((BI, BO), dtype=shares.dtype.element_ty)
    for share in range(COUNT):
        own = shares + share * (IN * OUT + (OUT if BIAS else 0))
        total += tl.load(own + place, mask=inside, other=0.0)
    tl.store(sums + place, total, mask=inside)


@triton.jit
def _add(
    shares,
    sums,
    PLACE: tl.constexpr,
    INTO: tl.constexpr,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    TAPS: tl.constexpr,
    SIZE: tl.constexpr,
    PART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The SIZE numbers that are written into sums from INTO on, BLOCK of them at once.

    Each is the sum of one in each of TAPS rows in each of COUNT shares; a share has WIDTH numbers, and the
    rows of the first one start at PLACE. PART rows are read at once.
    """
    for first in range(0, SIZE, BLOCK):
        at = first + tl.arange(0, BLOCK)
        total = tl.zeros((BLOCK,), dtype=shares.dtype.element_ty)
        for start in range(0, COUNT * TAPS, PART):
            row = start + tl.arange(0, PART)
            place = PLACE + row // TAPS * WIDTH + row % TAPS * SIZE
            inside = (row[:, None] < COUNT * TAPS) & (at[None, :] < SIZE)
            numbers = tl.load(shares + place[:, None] + at[None, :], mask=inside, other=0.0)
            total += tl.sum(numbers, 0)
        tl.store(sums + INTO + at, total, mask=at < SIZE)
