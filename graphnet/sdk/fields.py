"""Fields: types of configuration that several definitions share: pairs, sides, factors, rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import pydantic
import pydantic.dataclasses
from pydantic import Field


def _spread(
    number: type | tuple[type, ...], count: int, expected: str
) -> Callable[[object], object]:
    """One number stands for all of `count`; a sequence is left to be checked."""

    def spread(value: object) -> object:
        if isinstance(value, (list, tuple)):
            return tuple(value)
        if isinstance(value, bool) or not isinstance(value, number):
            raise ValueError(f"expected {expected}, found {value!r}")
        return (value,) * count

    return spread


# What torch takes for the two spatial axes: one number for both, or (height, width).
_PAIR = pydantic.BeforeValidator(
    _spread(int, 2, "an integer or a pair of them"), json_schema_input_type=int | tuple[int, int]
)
PositivePair = Annotated[tuple[pydantic.PositiveInt, pydantic.PositiveInt], _PAIR]
NonNegativePair = Annotated[tuple[pydantic.NonNegativeInt, pydantic.NonNegativeInt], _PAIR]
_Factor = Annotated[float, pydantic.Field(gt=0.0, allow_inf_nan=False)]
FactorPair = Annotated[
    tuple[_Factor, _Factor],
    pydantic.BeforeValidator(
        _spread((int, float), 2, "a number or a pair of them"),
        json_schema_input_type=float | tuple[float, float],
    ),
]
# What torch takes for the sides of an image: one number for all, or (left, right, top, bottom).
_N = pydantic.NonNegativeInt
Sides = Annotated[
    tuple[_N, _N, _N, _N],
    pydantic.BeforeValidator(
        _spread(int, 4, "an integer or four of them"),
        json_schema_input_type=int | tuple[int, int, int, int],
    ),
]


Rate = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
