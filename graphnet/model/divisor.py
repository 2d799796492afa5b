"""Divisor: the smallest number that the sides of an image must be multiples of for a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from graphnet.description import Expanded
from graphnet.errors import GraphError, GraphnetError, InputError
from graphnet.graph import Graph
from graphnet.plan import pace
from graphnet.sdk import Spatial

MAX_DIVISOR = 256


def find_divisor(network: Expanded, graph_for: Callable[..., Graph]) -> int:
    """Find the smallest number for which images whose sides are multiples of it keep their size.

    The layers' windows give a candidate. Graphs for a few sizes confirm it, and then its divisors are tried.
    A layer that reads the whole image has no window: then multiples of the candidate are tried too.

    Args:
        network: the model, as `expand` returns it.
        graph_for: makes the graph for inputs of these shapes.

    Returns:
        The divisor, at most 256.

    Raises:
        GraphError: an input is no image, or there is no such number.
    """
    stated = [described.shape for described in network.inputs.values()]
    for (name, described), shape in zip(network.inputs.items(), stated, strict=True):
        if described.integer is not None or (shape is not None and len(shape) < 2):
            raise GraphError(
                f"{network.name}: input {name!r} ({described}) is no image, so there is no size to which it "
                f"could be padded"
            )
    first = [described.axes[0] for described in network.inputs.values()]
    channels = [size if isinstance(size, int) else 3 for size in first]
    count = next((len(shape) - 1 for shape in stated if shape), spatial_axes(network))

    def keeps_size(size: int) -> bool:
        sizes = (size,) * count
        try:
            graph = graph_for(*((1, c, *sizes) for c in channels))
        except GraphnetError:
            return False
        return graph.values[graph.outputs[0]].spec.shape[2:] == sizes

    found = _smallest(network, keeps_size)
    if found is None:
        raise GraphError(
            f"{network.name}: this network changes each image size up to {MAX_DIVISOR}, so "
            f"it cannot be run on images of any size"
        )
    return found


def _smallest(network: Expanded, keeps_size: Callable[[int], bool]) -> int | None:
    """Return the divisor, at most MAX_DIVISOR; None if there is none."""

    def fits(divisor: int) -> bool:
        start = -(-MAX_DIVISOR // divisor) | 1  # odd: half of the right divisor fails at once
        return all(keeps_size(divisor * factor) for factor in range(start, start + 3))

    step, certain = _step(network)
    last = step if certain else MAX_DIVISOR
    for divisor in range(step, min(last, MAX_DIVISOR) + 1, step):
        if fits(divisor):
            break
    else:
        return None
    for prime in _primes(divisor):
        while divisor % prime == 0 and fits(divisor // prime):
            divisor //= prime
    return divisor


def spatial_axes(network: Expanded) -> int:
    """Return the number of spatial axes of the network's images; 2 where no layer states it."""
    stated = [node.layer.axes for node in network.nodes if isinstance(node.layer, Spatial)]
    return max(stated, default=2)


def _primes(number: int) -> list[int]:
    """Return the primes that divide a number."""
    divisors = [n for n in range(2, number + 1) if number % n == 0]
    return [n for n in divisors if all(n % smaller for smaller in range(2, n))]


def _step(network: Expanded) -> tuple[int, bool]:
    """Return the number of rows after which all windows repeat, and whether all windows are known."""
    step, certain = 1, True
    for axis in range(spatial_axes(network)):
        # The rows of each node for one row of the input.
        rows = {f"${name}": Fraction(1) for name in network.inputs}
        for node in network.nodes:
            # For a layer without a window, assume that the output has as many rows as the input.
            density = max((rows[reference.node] for reference in node.inputs), default=Fraction(1))
            period, shift = 1, 1
            try:
                period, shift = pace(node.layer, axis, node.id)
            except InputError:
                certain = False
            step = math.lcm(step, (density / shift).denominator)
            rows[node.id] = density * Fraction(period, shift)
    return step, certain
