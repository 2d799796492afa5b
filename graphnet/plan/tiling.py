"""Tiling: run an image through a network in tiles, with less memory and the same result.

Each layer states the window of the input that an output reads (`Layer.window`). From the output back to the
input, the windows add up to the reach: how far around a part of the image the network reads. A tile is a
part with its reach on each side, and it begins at a multiple of all strides. The network computes the part
as in the whole image, and the result of the surplus is cut off. All tiles have one shape and one plan.

    tiling = tile(graph, plan_for, memory="1GiB")
    y = tiling.run(x, predict)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from graphnet.errors import InputError, MemoryBudgetError
from graphnet.graph import Call, Graph, Kind
from graphnet.plan.plan import Plan
from graphnet.sdk import Layer
from graphnet.system import bytes_text

_MOST_PARTS = 256  # along one axis
_LONGEST_PERIOD = 64  # rows of an output within which a layer's window must repeat
_ADVICE = "Allow more memory (100% is what the whole image takes), or make the image smaller."


@dataclass(frozen=True, slots=True)
class Part:
    """One tile along one axis, in rows of the input: the rows that it reads, and those it is kept for."""

    read: range
    kept: range


@dataclass(frozen=True, slots=True)
class Margin:
    """The rows that a network reads before and after a part of an image, on one axis.

    A part begins at a multiple of `step`; so do `before` and `after`.
    """

    before: int
    after: int
    step: int


@dataclass(frozen=True, slots=True)
class Cut:
    """An axis of `length` rows, cut into parts of `kept` rows with `before` and `after` rows around them.

    `kept`, `before`, `after` and the first row of every part are multiples of `step`.
    """

    length: int
    kept: int
    before: int = 0
    after: int = 0
    step: int = 1

    @property
    def size(self) -> int:
        """The rows that each part reads: the same for all, and equal to `length` modulo `step`."""
        rest = self.length % self.step
        return min(self.length, self.kept + self.before + self.after + rest)

    @property
    def count(self) -> int:
        """The number of parts."""
        return -(-self.length // self.kept)

    @property
    def read(self) -> int:
        """The sum of the rows that the parts read."""
        return self.count * self.size

    @property
    def parts(self) -> list[Part]:
        """The parts in order. A part at an end of the axis reads more rows towards the inside."""
        found = []
        for start in range(0, self.length, self.kept):
            first = min(max(0, start - self.before), self.length - self.size)
            kept = range(start, min(start + self.kept, self.length))
            found.append(Part(range(first, first + self.size), kept))
        return found


@dataclass(frozen=True)
class Tiling:
    """An image (N, C, H, W), a signal (N, C, L) or a volume as a grid of tiles; `plan` runs one.

    `output` is the shape of the whole result, which has `scale` rows for each row of the image, on each
    axis. `peak_bytes` is the peak of the plan of one tile, plus the whole image and result.
    """

    plan: Plan
    cuts: tuple[Cut, ...]
    shape: tuple[int, ...]
    output: tuple[int, ...]
    scale: tuple[Fraction, ...]
    peak_bytes: int

    @property
    def count(self) -> int:
        """The number of tiles; 1 means the whole image at once."""
        return math.prod(cut.count for cut in self.cuts)

    def run(self, x: Tensor, predict: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute the result of the whole image; `predict` runs the plan on one tile."""
        if self.count == 1:
            return predict(x)
        whole: Tensor | None = None
        for parts in itertools.product(*(cut.parts for cut in self.cuts)):
            tile = x
            for axis, part in enumerate(parts):
                tile = tile.narrow(2 + axis, part.read.start, len(part.read))
            y = predict(tile.clone())  # clone: the tile gets its own memory
            if whole is None:
                whole = torch.empty(self.output, dtype=y.dtype, device=y.device)
            place = whole
            for axis, part in enumerate(parts):
                scale, length = self.scale[axis], self.output[2 + axis]
                first = min(length, int(part.kept.start * scale))
                inside = part.kept.stop < self.shape[2 + axis]  # else the part ends with the result
                last = min(length, int(part.kept.stop * scale)) if inside else length
                place = place.narrow(2 + axis, first, last - first)
                y = y.narrow(2 + axis, first - int(part.read.start * scale), last - first)
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
            f"{counts} tiles of {_by(cut.size for cut in self.cuts)} pixels, {work:.2f} times the "
            f"image in all; at most {bytes_text(self.peak_bytes)} with the whole image and result"
        )


def tile(
    graph: Graph, whole: Plan, plan_for: Callable[[tuple[int, ...]], Plan], *, limit: int
) -> Tiling:
    """Find the tiles that fit into `limit` bytes and read the fewest pixels in all.

    `graph` is the forward graph of the whole image before any pass, `whole` its inference plan; `plan_for`
    makes the inference plan of another input shape. Raises InputError if the network does not have one image
    as input and one as output, or needs tiles and cannot run in tiles (the message names the layer), and
    MemoryBudgetError if the smallest tile does not fit.
    """
    shape, output = _ends(graph)
    if whole.peak_bytes <= limit:
        sides = tuple(Cut(length, length) for length in shape[2:])
        ratio = tuple(Fraction(*pair) for pair in zip(output[2:], shape[2:], strict=True))
        return Tiling(whole, sides, shape, output, ratio, whole.peak_bytes)
    paces = _all_paces(graph)
    scale = tuple(one.rows[graph.outputs[0]] for one in paces)
    # The bytes of the image and its result, which exist beside those of the tile.
    outside = sum(graph.values[name].spec.size_bytes for name in (*graph.inputs, *graph.outputs))
    fixed = outside + sum(whole.values[name].spec.size_bytes for name in whole.slots)
    around = _margins(graph, paces)
    ways = [list(_cuts(length, one)) for length, one in zip(shape[2:], around, strict=True)]
    grids = sorted(itertools.product(*ways), key=lambda cuts: math.prod(c.read for c in cuts))
    # Estimate: the memory of a plan, less the fixed part, grows with its pixels as in the last plan made.
    pixels, peak = math.prod(shape[2:]), whole.peak_bytes + outside
    for cuts in grids:
        size = tuple(cut.size for cut in cuts)
        if math.prod(size) * (peak - fixed) > pixels * (limit - fixed):
            continue
        plan = plan_for((*shape[:2], *size))
        pixels, peak = math.prod(size), plan.peak_bytes + outside
        if peak <= limit:
            return Tiling(plan, cuts, shape, output, scale, peak)
    least = min(grids, key=lambda cuts: math.prod(c.size for c in cuts))
    raise MemoryBudgetError(
        f"an image of {_by(shape[2:])} pixels does not fit into {bytes_text(limit)}, not even "
        f"in tiles: the smallest tile of this network has {_by(c.size for c in least)} pixels, "
        f"and the image and its result alone are {bytes_text(outside)}. Allow more memory."
    )


def margins(graph: Graph) -> tuple[Margin, ...]:
    """Find how far around a part of an image a network reads, on each axis.

    `graph` is the forward graph before any pass. Raises InputError if the network does not have one image as
    input and one as output, or if a layer looks at the whole image.
    """
    _ends(graph)
    return _margins(graph, _all_paces(graph))


def _by(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))


def _ends(graph: Graph) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of the only input and the only output, which must be images with the same axes."""
    ends = [graph.values[name].spec.shape for name in (*graph.inputs, *graph.outputs)]
    alone = len(graph.inputs) == len(graph.outputs) == 1
    if not alone or len(ends[0]) < 3 or len(ends[0]) != len(ends[1]):
        raise InputError(
            f"tiles are for networks that make one image of one image (N x C x H x W; or a signal, or a "
            f"volume), this one has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs of shapes "
            f"{ends}. {_ADVICE}"
        )
    return ends[0], ends[1]


@dataclass(frozen=True, slots=True)
class _Paces:
    """Value -> the rows that this image has for one row of the input.

    A part of the input that begins at a multiple of `step` begins at a period of every layer's window.
    """

    rows: dict[str, Fraction]
    step: int


def _layers(graph: Graph) -> list[Call]:
    return [call for call in graph.order() if call.kind is Kind.LAYER]


def _all_paces(graph: Graph) -> list[_Paces]:
    axes = range(len(graph.values[graph.inputs[0]].spec.shape) - 2)
    return [_paces(graph, _layers(graph), axis) for axis in axes]


def _paces(graph: Graph, layers: Sequence[Call], axis: int) -> _Paces:
    rows = {graph.inputs[0]: Fraction(1)}
    rank = len(graph.values[graph.inputs[0]].spec.shape)
    step = 1
    for call in layers:
        read = {rows[name] for name in call.reads() if name in rows}
        if not read:
            continue
        assert isinstance(call.layer, Layer)
        period, shift = pace(call.layer, axis, f"node {call.node!r} ({call.title})")
        if len(read) > 1:
            raise InputError(
                f"node {call.node!r} ({call.title}) reads images of several scales. {_ADVICE}"
            )
        outputs = [
            name for name in call.results[: len(call.layer.outputs)] if isinstance(name, str)
        ]
        if any(len(graph.values[name].spec.shape) != rank for name in outputs):
            raise InputError(
                f"node {call.node!r} ({call.title}) changes the number of axes, so this network cannot be "
                f"run in tiles. {_ADVICE}"
            )
        (density,) = read
        step = math.lcm(step, (density / shift).denominator)
        rows |= dict.fromkeys(call.makes(), density * Fraction(period, shift))
    return _Paces(rows, step)


def pace(layer: Layer, axis: int, what: str) -> tuple[int, int]:
    """The period of a layer's window in output rows, and by how many input rows it moves in a period.

    Args:
        layer: the layer, which states its `window`.
        axis: the spatial axis, 0 for the first one.
        what: the name of the layer in a message.

    Raises:
        InputError: the layer looks at the whole image, or its window does not repeat.
    """

    def window(row: int) -> range:
        found = layer.window(range(row, row + 1), axis)
        if found is None:
            raise InputError(
                f"{what} looks at the whole image, so this network cannot be run "
                f"in tiles. {_ADVICE}"
            )
        return found

    def repeats(period: int, shift: int) -> bool:
        """Whether the window repeats after 1 and after 1000 periods: a factor such as 1.01 shows late."""
        return all(
            range(window(row).start + times * shift, window(row).stop + times * shift)
            == window(row + times * period)
            for times in (1, 1000)
            for row in range(_LONGEST_PERIOD)
        )

    for period in range(1, _LONGEST_PERIOD + 1):
        shift = window(period).start - window(0).start
        if shift > 0 and repeats(period, shift):
            return period, shift
    raise InputError(
        f"{what} has a window that does not repeat within "
        f"{_LONGEST_PERIOD} rows, so this network cannot be run in tiles. {_ADVICE}"
    )


def _margins(graph: Graph, paces: Sequence[_Paces]) -> tuple[Margin, ...]:
    """The margin on each axis, in multiples of its step."""
    found = []
    for axis, one in enumerate(paces):
        before, after = (
            -(-rows // one.step) * one.step for rows in _reach(graph, _layers(graph), axis, one)
        )
        found.append(Margin(before, after, one.step))
    return tuple(found)


def _reach(graph: Graph, layers: Sequence[Call], axis: int, paces: _Paces) -> tuple[int, int]:
    """The rows before and after a part of the input that the network reads: its windows added up."""
    (result,) = graph.outputs
    needed = {result: range(int(paces.step * paces.rows[result]))}
    for call in reversed(layers):
        made = [needed[name] for name in call.makes() if name in needed]
        if not made:
            continue
        assert isinstance(call.layer, Layer)
        read = call.layer.window(_hull(*made), axis)
        assert read is not None
        for name in call.reads():
            if name in paces.rows:
                needed[name] = _hull(read, needed.get(name, read))
    read = needed.get(graph.inputs[0], range(paces.step))
    return max(0, -read.start), max(0, read.stop - paces.step)


def _hull(*ranges: range) -> range:
    return range(min(r.start for r in ranges), max(r.stop for r in ranges))


def _cuts(length: int, around: Margin) -> Iterator[Cut]:
    """Yield the ways to cut an axis into equal parts, up to rounding; the fewest parts first."""
    before, after, step = around.before, around.after, around.step
    seen: set[int] = set()
    for count in range(1, min(_MOST_PARTS, -(-length // step)) + 1):
        kept = -(-length // (count * step)) * step
        cut = Cut(length, kept, before, after, step)
        if kept not in seen and (count == 1 or cut.size < length):
            seen.add(kept)
            yield cut
