"""Fixed: find whether the fields of a layer alone fix the shapes of its parameters and states.

The layer is asked for its parameters on inputs of many shapes. If it takes some of the shapes, and wants the
same parameters for each that it takes, the parameters can be made before there is an input.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache

import torch

from graphnet.errors import GraphnetError
from graphnet.graph import bind_inputs, has_slots
from graphnet.sdk import Layer, Spec

_REFUSALS = (GraphnetError, ArithmeticError, LookupError, TypeError, ValueError)
"""What a layer raises for an input of a shape or dtype that it does not take."""
_PLACES = [(axes, position) for axes in range(2, 6) for position in {1, axes - 1}]
"""A number of axes, and the one of them that has a size which a field may mean: channels or features."""


@lru_cache(maxsize=4096)
def fixed_inputs(layer: Layer, dtype: torch.dtype) -> tuple[Spec, ...] | None:
    """Return specs of inputs that the layer takes; None if its parameters depend on the inputs.

    Raises:
        GraphError: the layer states the size of its input, and its other fields do not fit this size.

    >>> from graphnet.sdk import default_registry
    >>> linear = default_registry().layers["linear"].value
    >>> fixed_inputs(linear(in_features=3, out_features=8), torch.float32)[0].shape
    (1, 3)
    >>> fixed_inputs(linear(out_features=8), torch.float32) is None
    True
    """
    if not has_slots(layer):
        return None
    first: tuple[tuple[Spec, ...], object] | None = None
    for inputs in _inputs(layer, dtype):
        try:
            wanted = _wanted(layer, inputs, dtype)
        except _REFUSALS:
            continue
        if first is None:
            first = inputs, wanted
        elif wanted != first[1]:
            return None
    if first is None:
        _check_stated_size(layer, dtype)
        return None
    return first[0]


def _wanted(layer: Layer, inputs: tuple[Spec, ...], dtype: torch.dtype) -> object:
    """The shapes of the parameters and states, and their initial values, which may depend on inputs too."""
    ports = bind_inputs(layer, inputs, dtype)
    slots = {**ports.parameters, **ports.states}
    return {name: slot and (slot.shape, slot.initializer) for name, slot in slots.items()}


def _inputs(layer: Layer, dtype: torch.dtype) -> Iterator[tuple[Spec, ...]]:
    """Inputs of 2 to 5 axes, in which one axis or the last ones have a size that a field may mean."""
    values = [getattr(layer, name) for name in layer.field_names()]
    tuples = [v for v in values if isinstance(v, tuple) and all(map(_is_size, v))]
    shapes = [
        shape for size in _sizes(layer) for place in _PLACES for shape in _shapes(place, size)
    ]
    shapes += [(*before, *sides) for sides in tuples for before in ((1,), (6, 2))]
    kinds = (dtype, torch.int64) if layer.nondifferentiable else (dtype,)
    for shape in shapes:
        for kind in kinds:
            yield (Spec(shape, kind),)


def _sizes(layer: Layer) -> list[int]:
    """Sizes that the layer may take: those in its fields, and multiples of them."""
    numbers: set[int] = set()
    for value in (getattr(layer, name) for name in layer.field_names()):
        numbers.update(filter(_is_size, value if isinstance(value, tuple) else (value,)))
    product = math.prod(numbers)
    return sorted({2, 3, product, 2 * product, *numbers, *(2 * n for n in numbers)})


def _shapes(place: tuple[int, int], size: int) -> list[tuple[int, ...]]:
    """Shapes with so many axes and the size at this position."""
    axes, position = place
    return [
        (1, *(size if axis == position else other for axis in range(1, axes))) for other in (1, 6)
    ]


def _check_stated_size(layer: Layer, dtype: torch.dtype) -> None:
    """Raise the error of a layer whose only optional size fits no input, but which fits some without it."""
    optional = [
        f.name for f in fields(layer) if f.default is None and _is_size(getattr(layer, f.name))
    ]
    if len(optional) != 1:
        return
    free = type(layer)(**{**layer.configuration(), optional[0]: None})
    for place in _PLACES:
        for size in _sizes(layer):
            try:
                for shape in _shapes(place, size):
                    bind_inputs(free, (Spec(shape, dtype),), dtype)
            except _REFUSALS:
                continue
            shape = _shapes(place, getattr(layer, optional[0]))[0]
            bind_inputs(layer, (Spec(shape, dtype),), dtype)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
