"""Cutting: a picture as blocks that a network denoises one by one, with the result of the whole picture.

A block is read with `halo` pixels around it, as far as the picture has them, since the network reads them
too. It begins at a multiple of `step`, the product of the network's strides, and all blocks have one size, so
that one plan runs them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from graphnet.errors import InputError, MemoryBudgetError
from graphnet.model import Model
from graphnet.plan import CompileOptions, margins

_MOST_PARTS = 512  # along one axis
_MOST_WORK = (
    8  # times the pixels of the image; with less memory, hours would go into the surroundings
)
_SIDE = 512  # of the image with which a network's memory is found


@dataclass(frozen=True, slots=True)
class Reach:
    """What a network needs around a block, and the memory that it takes.

    Args:
        halo: the pixels around a block that the network reads, a multiple of `step`.
        step: the number of which each block's first row and column is a multiple.
        pixel_bytes: the most memory that the network takes for each pixel that it reads.
    """

    halo: int
    step: int
    pixel_bytes: float

    def joined(self, other: Reach) -> Reach:
        """What is enough for both networks.

        >>> Reach(8, 4, 100.0).joined(Reach(12, 6, 50.0))
        Reach(halo=12, step=12, pixel_bytes=100.0)
        """
        step = math.lcm(self.step, other.step)
        halo = -(-max(self.halo, other.halo) // step) * step
        return Reach(halo, step, max(self.pixel_bytes, other.pixel_bytes))


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a picture: the rows and columns that are read, and those of them that are kept."""

    rows: slice
    columns: slice
    kept_rows: slice
    kept_columns: slice

    @property
    def inside(self) -> tuple[slice, slice]:
        """The kept rows and columns, counted within the block."""
        rows, columns = self.rows.start, self.columns.start
        return (
            slice(self.kept_rows.start - rows, self.kept_rows.stop - rows),
            slice(self.kept_columns.start - columns, self.kept_columns.stop - columns),
        )

    @property
    def kept(self) -> int:
        """The number of pixels that are kept."""
        rows, columns = self.kept_rows, self.kept_columns
        return int(rows.stop - rows.start) * int(columns.stop - columns.start)


def find_reach(model: Model, channels: int, divisor: int, options: CompileOptions) -> Reach | None:
    """Find what a network needs around a block; None if it looks at whole images, so it cannot be cut."""
    side = -(-_SIDE // divisor) * divisor
    shape = (1, channels, side, side)
    try:
        found = margins(model.graph(shape))
    except InputError:
        return None
    step = math.lcm(divisor, *(margin.step for margin in found))
    halo = max(max(margin.before, margin.after) for margin in found)
    plan = model.plan(shape, options=options)
    weights = sum(plan.values[name].spec.size_bytes for name in plan.slots)
    return Reach(-(-halo // step) * step, step, (plan.peak_bytes - weights) / side**2)


def cut(height: int, width: int, reach: Reach, *, most_pixels: int) -> list[Block]:
    """Cut a picture into blocks that read at most `most_pixels` each, and as few as possible in all.

    Raises MemoryBudgetError if not even the smallest block is so small.

    >>> blocks = cut(100, 40, Reach(halo=8, step=4, pixel_bytes=100.0), most_pixels=2500)
    >>> [(block.rows.start, block.rows.stop, block.kept_rows.start) for block in blocks]
    [(0, 52, 0), (28, 80, 36), (48, 100, 72)]
    """
    if height * width <= most_pixels:
        return [Block(*(slice(0, side) for side in (height, width, height, width)))]
    best: tuple[int, _Axis, _Axis] | None = None
    for rows in _axes(height, reach):
        for columns in _axes(width, reach):
            pixels = rows.size * columns.size
            if pixels > most_pixels:
                continue
            total = pixels * rows.count * columns.count
            if best is None or total < best[0]:
                best = total, rows, columns
            break  # more parts along the columns read more in all
    if best is None or best[0] > _MOST_WORK * height * width:
        least = (2 * reach.halo + reach.step) * 2  # so that a quarter of a block is kept
        raise MemoryBudgetError(
            f"an image of {height} x {width} pixels does not fit into the memory, not even in tiles: this "
            f"network reads {reach.halo} pixels around a tile, so tiles of {least} x {least} pixels are the "
            f"smallest that make sense, and there is memory for {most_pixels:,} pixels. Allow more with "
            f"--memory."
        )
    _, rows, columns = best
    return [Block(r.read, c.read, r.kept, c.kept) for r in rows.parts() for c in columns.parts()]


@dataclass(frozen=True, slots=True)
class _Part:
    read: slice
    kept: slice


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis cut into parts of `each` rows, a multiple of the step, with the halo around them."""

    length: int
    each: int
    halo: int
    step: int

    @property
    def count(self) -> int:
        return -(-self.length // self.each)

    @property
    def size(self) -> int:
        """The rows that each part reads: the same for all, and equal to `length` modulo `step`.

        So a flipped block begins at a multiple of the step too, counted from the other end.
        """
        if self.count == 1:
            return self.length
        return min(self.length, self.each + 2 * self.halo + self.length % self.step)

    def parts(self) -> Iterator[_Part]:
        """The parts in order. One at an end of the axis reads more rows towards the inside."""
        for start in range(0, self.length, self.each):
            first = min(max(0, start - self.halo), self.length - self.size)
            stop = min(start + self.each, self.length)
            yield _Part(slice(first, first + self.size), slice(start, stop))


def _axes(length: int, reach: Reach) -> Iterator[_Axis]:
    """The ways to cut an axis into equal parts, up to rounding; the fewest parts first."""
    seen = set()
    for count in range(1, min(_MOST_PARTS, -(-length // reach.step)) + 1):
        each = -(-length // (count * reach.step)) * reach.step
        axis = _Axis(length, each, reach.halo, reach.step)
        if each not in seen and (count == 1 or axis.size < length):
            seen.add(each)
            yield axis
