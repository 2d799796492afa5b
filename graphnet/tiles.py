"""Tiles: an image through a network part by part, in less memory, with the result of the whole.

Every layer states the window that its outputs read (`Layer.window`). From the output back to the input
these add up to how far around a part of the image the network looks: its reach. A part cut out with that
much around it, at a place that all strides divide, comes out as it would within the whole image, and the
surplus is cut off. All tiles have one shape, so that one plan runs them all.

    tiling = tile(graph, plan_for, memory="1GiB")
    y = tiling.run(x, predict)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from graphnet.errors import InputError, MemoryBudgetError
from graphnet.graph import Graph, Value
from graphnet.layer import Layer
from graphnet.plan import Plan
from graphnet.units import bytes_text, parse_bytes

_MOST_PARTS = 256  # along one axis


@dataclass(frozen=True, slots=True)
class Part:
    """One tile along one axis, in rows of the input: what is read, and what comes out of it in the end."""

    read: range
    kept: range


@dataclass(frozen=True, slots=True)
class Cut:
    """An axis of `length` cut into parts of `kept` rows, each read with `before` and `after` around it."""

    length: int
    kept: int
    before: int
    after: int

    @property
    def size(self) -> int:
        """The rows that each part reads, the same for all."""
        return min(self.length, self.kept + self.before + self.after)

    @property
    def count(self) -> int:
        """How many parts there are."""
        return -(-self.length // self.kept)

    @property
    def read(self) -> int:
        """The rows that all parts read together."""
        return self.count * self.size

    @property
    def parts(self) -> list[Part]:
        """The parts in order. At the ends of the axis they look further to the inside."""
        found = []
        for start in range(0, self.length, self.kept):
            first = min(max(0, start - self.before), self.length - self.size)
            kept = range(start, min(start + self.kept, self.length))
            found.append(Part(range(first, first + self.size), kept))
        return found


@dataclass(frozen=True)
class Tiling:
    """An image (N, C, H, W) as a grid of tiles of one shape; `plan` runs one of them.

    `output` is the shape of the whole result, whose height and width are `scale` times the input's.
    `peak_bytes` are those of one tile's plan, and of the whole image and result beside it.
    """

    plan: Plan
    cuts: tuple[Cut, Cut]
    shape: tuple[int, int, int, int]
    output: tuple[int, int, int, int]
    scale: tuple[Fraction, Fraction]
    peak_bytes: int

    @property
    def count(self) -> int:
        """How many tiles there are; one is the whole image."""
        return self.cuts[0].count * self.cuts[1].count

    def run(self, x: Tensor, predict: Callable[[Tensor], Tensor]) -> Tensor:
        """The result of the whole image; `predict` runs the plan on one tile."""
        if self.count == 1:
            return predict(x)
        whole: Tensor | None = None
        for parts in itertools.product(self.cuts[0].parts, self.cuts[1].parts):
            tile = x
            for axis, part in enumerate(parts):
                tile = tile.narrow(2 + axis, part.read.start, len(part.read))
            y = predict(_dense(tile))
            if whole is None:
                whole = torch.empty(self.output, dtype=y.dtype, device=y.device)
            place = whole
            for axis, part in enumerate(parts):
                first, last = (
                    int(row * self.scale[axis]) for row in (part.kept[0], part.kept.stop)
                )
                origin = int(part.read.start * self.scale[axis])
                place = place.narrow(2 + axis, first, last - first)
                y = y.narrow(2 + axis, first - origin, last - first)
            place.copy_(y)
            del y  # before the next tile is run
        assert whole is not None
        return whole

    def __str__(self) -> str:
        if self.count == 1:
            return f"the whole image at once, at most {bytes_text(self.peak_bytes)}"
        counts = " x ".join(str(cut.count) for cut in self.cuts)
        work = math.prod(cut.read / cut.length for cut in self.cuts)
        return (
            f"{counts} tiles of {self.cuts[0].size} x {self.cuts[1].size} pixels, {work:.2f} times the "
            f"image in all; at most {bytes_text(self.peak_bytes)} with the whole image and result"
        )


def tile(graph: Graph, plan_for: Callable[[tuple[int, ...]], Plan], *, memory: int | str) -> Tiling:
    """The tiles that read the fewest pixels in all and whose plan fits into the memory.

    `graph` is the forward graph of the whole image, as described; `plan_for` makes the inference plan of
    an input shape; `memory` is a number of bytes, "1GiB", or "50%" of what the whole image takes. Raises
    InputError for a network that does not fit whole and cannot be run in tiles, saying which layer looks at
    the whole image, and MemoryBudgetError where the smallest tile does not fit.
    """
    shape, output, scale = _ends(graph)
    whole = plan_for(shape)
    limit = parse_bytes(memory, whole=whole.peak_bytes)
    if whole.peak_bytes <= limit:
        sides = Cut(shape[2], shape[2], 0, 0), Cut(shape[3], shape[3], 0, 0)
        return Tiling(whole, sides, shape, output, scale, whole.peak_bytes)
    ends = [graph.values[name].spec for name in (*graph.inputs, *graph.outputs)]
    outside = sum(
        spec.size_bytes for spec in ends
    )  # the image and its result beside the tile's own
    fixed = outside + sum(whole.values[name].spec.size_bytes for name in whole.slots)
    ways = [list(_cuts(graph, axis, scale[axis])) for axis in (0, 1)]
    grids = sorted(itertools.product(*ways), key=lambda cuts: cuts[0].read * cuts[1].read)
    # Beside what is fixed, plans need memory in proportion to their pixels, as far as the last one tells.
    pixels, peak = shape[2] * shape[3], whole.peak_bytes + outside
    for high, wide in grids:
        size = high.size, wide.size
        if math.prod(size) * (peak - fixed) > pixels * (limit - fixed):
            continue
        plan = plan_for((*shape[:2], *size))
        pixels, peak = math.prod(size), plan.peak_bytes + outside
        if peak <= limit:
            return Tiling(plan, (high, wide), shape, output, scale, peak)
    least = min(grids, key=lambda cuts: cuts[0].size * cuts[1].size)
    raise MemoryBudgetError(
        f"an image of {shape[2]} x {shape[3]} pixels does not fit into {bytes_text(limit)}, not in tiles "
        f"either: the smallest that this network can be run on are {least[0].size} x {least[1].size} pixels, "
        f"and the image and its result alone are {bytes_text(outside)}. Allow more memory."
    )


def _ends(
    graph: Graph,
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int], tuple[Fraction, Fraction]]:
    """Shapes of the one input and the one output, images both, and how their sides compare."""
    ends = [graph.values[name].spec.shape for name in (*graph.inputs, *graph.outputs)]
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or any(len(one) != 4 for one in ends):
        raise InputError(
            f"tiles are for networks that make one image of one image (N x C x H x W), this one has "
            f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs of shapes {ends}. Leave the "
            f"bound on the memory out."
        )
    (n, c, h, w), (n_out, c_out, h_out, w_out) = ends
    scale = Fraction(h_out, h), Fraction(w_out, w)
    return (n, c, h, w), (n_out, c_out, h_out, w_out), scale


def _images(graph: Graph) -> Iterator[Value]:
    """The values that are images somewhere between the input and the output."""
    for call in graph.calls.values():
        for name in (*call.reads(), *call.makes()):
            value = graph.values[name]
            if value.initializer is None and len(value.spec.shape) == 4:
                yield value


def _reach(graph: Graph, axis: int) -> tuple[int, int]:
    """How far before and after a part of the input the network looks, as its layers' windows add up."""
    source, result = graph.inputs[0], graph.outputs[0]
    rows_in, rows_out = (graph.values[name].spec.shape[2 + axis] for name in (source, result))
    needed = {result: range(rows_out)}
    for call in reversed(graph.order()):
        made = [needed[name] for name in call.makes() if name in needed]
        if not made:
            continue
        assert isinstance(call.layer, Layer)
        read = call.layer.window(_hull(*made), axis)
        if read is None:
            raise InputError(
                f"node {call.node!r} ({call.title}) looks at the whole image, so this network cannot be run "
                f"in tiles. Leave the bound on the memory out, or make the image smaller."
            )
        for name in call.reads():
            if graph.values[name].initializer is None:
                needed[name] = _hull(read, needed.get(name, read))
    read = needed.get(source, range(rows_in))
    return max(0, -read.start), max(0, read.stop - rows_in)


def _hull(*ranges: range) -> range:
    return range(min(r.start for r in ranges), max(r.stop for r in ranges))


def _step(graph: Graph, axis: int) -> int:
    """What the first row of a tile must be a multiple of, for every layer to meet it at the same phase."""
    rows = graph.values[graph.inputs[0]].spec.shape[2 + axis]
    return math.lcm(
        *(Fraction(rows, value.spec.shape[2 + axis]).numerator for value in _images(graph))
    )


def _cuts(graph: Graph, axis: int, scale: Fraction) -> Iterator[Cut]:
    """The ways to cut an axis, the fewest parts first: one, two, ... of equal size up to rounding."""
    length = graph.values[graph.inputs[0]].spec.shape[2 + axis]
    step = math.lcm(_step(graph, axis), scale.denominator)
    before, after = (-(-reach // step) * step for reach in _reach(graph, axis))
    seen: set[int] = set()
    for count in range(1, min(_MOST_PARTS, -(-length // step)) + 1):
        kept = -(-length // (count * step)) * step
        cut = Cut(length, kept, before, after)
        if kept not in seen and (count == 1 or cut.size < length):
            seen.add(kept)
            yield cut


def _dense(tile: Tensor) -> Tensor:
    """A part of an image in memory of its own, in the order of axes that the image has."""
    return tile.clone(memory_format=torch.preserve_format)
