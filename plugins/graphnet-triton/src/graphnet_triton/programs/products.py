"""Matrix products: y = m(a) b + bias, and the gradients of its weight and bias."""

import triton
import triton.language as tl


@triton.jit
def sum_of_products(
    a,
    mask,
    b,
    row,
    column,
    rows,
    b_row,
    b_column,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    MASKED: tl.constexpr,
    SUM: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """m(a) b for BM rows and BN columns, see `product`."""
    total = tl.zeros((BM, BN), dtype=SUM)
    for start in range(0, DEPTH, BK):
        k = start + tl.arange(0, BK)
        at = row[:, None] * DEPTH + k[None, :]
        inside = (row[:, None] < rows) & (k[None, :] < DEPTH)
        left = tl.load(a + at, mask=inside, other=0.0).to(FACTOR)
        if MASKED:
            masked = tl.load(mask + at, mask=inside, other=0.0).to(SUM) <= 0
            left = tl.where(masked, 0.0, left)
        right = tl.load(
            b + k[:, None] * b_row + column[None, :] * b_column,
            mask=(k[:, None] < DEPTH) & (column[None, :] < COLUMNS),
            other=0.0,
        ).to(FACTOR)
        total = tl.dot(left, right, total, input_precision=PRECISION, out_dtype=SUM)
    return total


@triton.jit
def _store(
    y,
    total,
    shift,
    row,
    column,
    rows,
    COLUMNS: tl.constexpr,
    BIAS: tl.constexpr,
    RELU: tl.constexpr,
):
    """Writes total + shift, no less than 0 if RELU, to these rows and columns of y, see `product`."""
    if BIAS:
        total += shift[None, :]
    if RELU:
        total = tl.where(total < 0, 0.0, total)  # NaN stays NaN
    tl.store(
        y + row[:, None] * COLUMNS + column[None, :],
        total.to(y.dtype.element_ty),
        mask=(row[:, None] < rows) & (column[None, :] < COLUMNS),
    )


@triton.jit
def product(
    a,
    mask,
    b,
    bias,
    y,
    rows,
    b_row,
    b_column,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    MASKED: tl.constexpr,
    BIAS: tl.constexpr,
    RELU: tl.constexpr,
    SUM: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Some rows and columns of y (rows, COLUMNS) = m(a) b + bias, no less than 0 if RELU.

    a and mask: (rows, DEPTH) in row-major order; m(a) is 0 where mask is not above 0, else a. b: (DEPTH,
    COLUMNS) with the strides b_row and b_column. FACTOR is the dtype that is multiplied, SUM that of sums.
    """
    across = tl.cdiv(COLUMNS, BN)  # neighbours take the same rows, which one of them reads from HBM
    row = tl.program_id(0) // across * BM + tl.arange(0, BM)
    column = tl.program_id(0) % across * BN + tl.arange(0, BN)
    total = sum_of_products(
        *(a, mask, b, row, column, rows, b_row, b_column),
        *(DEPTH, COLUMNS, MASKED, SUM, FACTOR, PRECISION, BM, BN, BK),
    )
    shift = tl.load(bias + column, mask=column < COLUMNS, other=0.0).to(SUM) if BIAS else column
    _store(y, total, shift, row, column, rows, COLUMNS, BIAS, RELU)


@triton.jit
def _factors(
    a,
    mask,
    row,
    rows,
    DEPTH: tl.constexpr,
    MASKED: tl.constexpr,
    BK: tl.constexpr,
):
    """These rows of a and of its mask, or of a twice, see `product`."""
    k = tl.arange(0, BK)
    at = row[:, None] * DEPTH + k[None, :]
    inside = (row[:, None] < rows) & (k[None, :] < DEPTH)
    left = tl.load(a + at, mask=inside, other=0.0)
    over = tl.load(mask + at, mask=inside, other=0.0) if MASKED else left
    return left, over


@triton.jit
def long_product(
    a,
    mask,
    b,
    bias,
    y,
    rows,
    b_row,
    b_column,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    MASKED: tl.constexpr,
    BIAS: tl.constexpr,
    RELU: tl.constexpr,
    SUM: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    STEPS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """As `product`, of many rows: a program reads all of b once and keeps it for STEPS blocks of rows.

    The next block is on its way into registers while this one is multiplied and written: b leaves no room
    in shared memory for two or three of them, which Triton's own pipeline would keep there.
    """
    tl.static_assert(BK >= DEPTH and BN >= COLUMNS, "b is one block")
    k = tl.arange(0, BK)
    column = tl.arange(0, BN)
    right = tl.load(
        b + k[:, None] * b_row + column[None, :] * b_column,
        mask=(k[:, None] < DEPTH) & (column[None, :] < COLUMNS),
        other=0.0,
    ).to(FACTOR)
    shift = tl.load(bias + column, mask=column < COLUMNS, other=0.0).to(SUM) if BIAS else column
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    coming, over = _factors(a, mask, row, rows, DEPTH, MASKED, BK)
    for _ in range(STEPS):
        left = coming.to(FACTOR)
        if MASKED:
            left = tl.where(over.to(SUM) <= 0, 0.0, left)
        following = row + tl.num_programs(0) * BM
        coming, over = _factors(a, mask, following, rows, DEPTH, MASKED, BK)
        total = tl.dot(left, right, input_precision=PRECISION, out_dtype=SUM)
        _store(y, total, shift, row, column, rows, COLUMNS, BIAS, RELU)
        row = following


@triton.jit
def share_of_gradient(
    x,
    g,
    mask,
    shares,
    rows,
    high,
    wide,
    share,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    MASKED: tl.constexpr,
    BIAS: tl.constexpr,
    TURNED: tl.constexpr,
    SUM: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    STEPS: tl.constexpr,
    BI: tl.constexpr,
    BO: tl.constexpr,
    BM: tl.constexpr,
):
    """The tile (`high`, `wide`) of one of the shares, see `weight_gradient`."""
    i = high * BI + tl.arange(0, BI)
    o = wide * BO + tl.arange(0, BO)
    total = tl.zeros((BI, BO), dtype=SUM)
    sums = tl.zeros((BO,), dtype=SUM)
    for step in range(STEPS):
        row = (share * STEPS + step) * BM + tl.arange(0, BM)
        left = tl.load(
            x + row[None, :] * IN + i[:, None],
            mask=(row[None, :] < rows) & (i[:, None] < IN),
            other=0.0,
        ).to(FACTOR)
        at = row[:, None] * OUT + o[None, :]
        inside = (row[:, None] < rows) & (o[None, :] < OUT)
        right = tl.load(g + at, mask=inside, other=0.0).to(FACTOR)
        if MASKED:
            masked = tl.load(mask + at, mask=inside, other=0.0).to(SUM) <= 0
            right = tl.where(masked, 0.0, right)
        total = tl.dot(left, right, total, input_precision=PRECISION, out_dtype=SUM)
        if BIAS:
            sums += tl.sum(right.to(SUM), 0)
    mine = shares + share * (IN * OUT + (OUT if BIAS else 0))
    place = o[None, :] * IN + i[:, None] if TURNED else i[:, None] * OUT + o[None, :]
    tl.store(mine + place, total, mask=(i[:, None] < IN) & (o[None, :] < OUT))
    if BIAS:
        tl.store(mine + IN * OUT + o, sums, mask=o < OUT)  # the same for every i


@triton.jit
def weight_gradient(
    x,
    g,
    mask,
    shares,
    rows,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    MASKED: tl.constexpr,
    BIAS: tl.constexpr,
    TURNED: tl.constexpr,
    SUM: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    STEPS: tl.constexpr,
    BI: tl.constexpr,
    BO: tl.constexpr,
    BM: tl.constexpr,
):
    """x^T m(g), (IN, OUT) or turned round, and behind it the sum of m(g)'s rows, of STEPS * BM rows.

    x: (rows, IN); g, mask: (rows, OUT); shares: (number of shares, IN * OUT), or + OUT with BIAS.
    """
    share_of_gradient(
        *(x, g, mask, shares, rows, tl.program_id(0), tl.program_id(1), tl.program_id(2)),
        *(IN, OUT, MASKED, BIAS, TURNED, SUM, FACTOR, PRECISION, STEPS, BI, BO, BM),
    )


@triton.jit
def add_shares(
    shares,
    weight,
    bias,
    COUNT: tl.constexpr,
    WEIGHT: tl.constexpr,
    ALL: tl.constexpr,
    PART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The sums of shares (COUNT, ALL): WEIGHT numbers for the weight's gradient, the rest for the bias'.

    A program adds BLOCK numbers of PART shares at once.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), dtype=shares.dtype.element_ty)
    for start in range(0, COUNT, PART):
        share = start + tl.arange(0, PART)
        inside = (share[:, None] < COUNT) & (at[None, :] < ALL)
        total += tl.sum(
            tl.load(shares + share[:, None] * ALL + at[None, :], mask=inside, other=0.0), 0
        )
    tl.store(weight + at, total, mask=at < WEIGHT)
    tl.store(bias + at - WEIGHT, total, mask=(at >= WEIGHT) & (at < ALL))
