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
from collections.abc import Callable, Iterator, Sequence
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
_LONGEST_PERIOD = 64  # rows of an output after which a layer's window must be the same again
_ADVICE = "Allow more memory (100% is what the whole image takes), or make the image smaller."


@dataclass(frozen=True, slots=True)
class Part:
    """One tile along one axis, in rows of the input: what is read, and what comes out of it in the end."""

    read: range
    kept: range


@dataclass(frozen=True, slots=True)
class Cut:
    """An axis of `length` cut into parts of `kept` rows, each read with `before` and `after` around it.

    `kept`, `before` and `after` are multiples of `step`, and so is the first row of every part.
    """

    length: int
    kept: int
    before: int = 0
    after: int = 0
    step: int = 1

    @property
    def size(self) -> int:
        """The rows that each part reads, the same for all; as far from a multiple of `step` as `length`."""
        rest = self.length % self.step
        return min(self.length, self.kept + self.before + self.after + rest)

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

    `output` is the shape of the whole result, which has `scale` rows and columns for each of the input's.
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
            y = predict(tile.clone())  # in memory of its own
            if whole is None:
                whole = torch.empty(self.output, dtype=y.dtype, device=y.device)
            place = whole
            for axis, part in enumerate(parts):
                scale, length = self.scale[axis], self.output[2 + axis]
                first = min(length, int(part.kept.start * scale))
                inside = part.kept.stop < self.shape[2 + axis]  # else it ends with the result
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
            f"{counts} tiles of {self.cuts[0].size} x {self.cuts[1].size} pixels, {work:.2f} times the "
            f"image in all; at most {bytes_text(self.peak_bytes)} with the whole image and result"
        )


def tile(
    graph: Graph, whole: Plan, plan_for: Callable[[tuple[int, ...]], Plan], *, limit: int
) -> Tiling:
    """The tiles that read the fewest pixels in all and whose plan fits into so many bytes.

    `graph` is the forward graph of the whole image, as described, `whole` its inference plan; `plan_for`
    makes that of another shape. Raises InputError for what is no network of one image, and one that does
    not fit whole and cannot be run in tiles, saying which layer looks at the whole image, and
    MemoryBudgetError where the smallest tile does not fit.
    """
    shape, output = _ends(graph)
    if whole.peak_bytes <= limit:
        sides = Cut(shape[2], shape[2]), Cut(shape[3], shape[3])
        ratio = Fraction(output[2], shape[2]), Fraction(output[3], shape[3])
        return Tiling(whole, sides, shape, output, ratio, whole.peak_bytes)
    layers = [call for call in graph.order() if call.kind is Kind.LAYER]
    paces = [_paces(graph, layers, axis) for axis in (0, 1)]
    scale = paces[0].rows[graph.outputs[0]], paces[1].rows[graph.outputs[0]]
    # The image and its result, beside those of the tile.
    outside = sum(graph.values[name].spec.size_bytes for name in (*graph.inputs, *graph.outputs))
    fixed = outside + sum(whole.values[name].spec.size_bytes for name in whole.slots)
    reach = [_reach(graph, layers, axis, paces[axis]) for axis in (0, 1)]
    ways = [list(_cuts(shape[2 + axis], reach[axis], paces[axis].step)) for axis in (0, 1)]
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


def _ends(graph: Graph) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """The shapes of the one input and the one output, images both."""
    ends = [graph.values[name].spec.shape for name in (*graph.inputs, *graph.outputs)]
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or any(len(one) != 4 for one in ends):
        raise InputError(
            f"tiles are for networks that make one image of one image (N x C x H x W), this one has "
            f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs of shapes {ends}. "
            f"{_ADVICE}"
        )
    (n, c, h, w), (n_out, c_out, h_out, w_out) = ends
    return (n, c, h, w), (n_out, c_out, h_out, w_out)


@dataclass(frozen=True, slots=True)
class _Paces:
    """How many `rows` each image in the network has for one of the input, by its value's name.

    A part of the input that begins at a multiple of `step` meets every layer at the phase it has at row 0.
    """

    rows: dict[str, Fraction]
    step: int


def _paces(graph: Graph, layers: Sequence[Call], axis: int) -> _Paces:
    rows = {graph.inputs[0]: Fraction(1)}
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
        (density,) = read
        step = math.lcm(step, (density / shift).denominator)
        rows |= dict.fromkeys(call.makes(), density * Fraction(period, shift))
    return _Paces(rows, step)


def pace(layer: Layer, axis: int, what: str) -> tuple[int, int]:
    """The rows of its outputs after which a layer's window repeats, and by how many input rows it moves.

    Args:
        layer: the layer, which states its `window`.
        axis: 0 for H, 1 for W.
        what: the layer in the words of a message.

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
        """The next time and far away: factors such as 1.01 show themselves late."""
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
        f"{what} looks at no place as at another one within "
        f"{_LONGEST_PERIOD} rows, so this network cannot be run in tiles. {_ADVICE}"
    )


def _reach(graph: Graph, layers: Sequence[Call], axis: int, paces: _Paces) -> tuple[int, int]:
    """How far before and after a part of the input the network looks, as its layers' windows add up."""
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


def _cuts(length: int, reach: tuple[int, int], step: int) -> Iterator[Cut]:
    """The ways to cut an axis, the fewest parts first: one, two, ... of equal size up to rounding."""
    before, after = (-(-rows // step) * step for rows in reach)
    seen: set[int] = set()
    for count in range(1, min(_MOST_PARTS, -(-length // step)) + 1):
        kept = -(-length // (count * step)) * step
        cut = Cut(length, kept, before, after, step)
        if kept not in seen and (count == 1 or cut.size < length):
            seen.add(kept)
            yield cut
