"""Fields: types for fields that several definitions share: pairs, sides, factors, rates.

>>> from graphnet.sdk import Definition
>>> class Pool(Definition):
...     kernel_size: PositivePair
>>> Pool(kernel_size=2).kernel_size
(2, 2)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import pydantic
import pydantic.dataclasses
from pydantic import Field


def spread(
    number: type | tuple[type, ...], count: int, expected: str
) -> Callable[[object], object]:
    """A function that repeats one number `count` times, and returns a sequence as it is, to be checked.

    >>> spread(int, 2, "an integer or a pair of them")(3)
    (3, 3)
    """

    def one_for_all(value: object) -> object:
        if isinstance(value, (list, tuple)):
            return tuple(value)
        if isinstance(value, bool) or not isinstance(value, number):
            raise ValueError(f"expected {expected}, found {value!r}")
        return (value,) * count

    return one_for_all


_PAIR = pydantic.BeforeValidator(
    spread(int, 2, "an integer or a pair of them"), json_schema_input_type=int | tuple[int, int]
)
PositivePair = Annotated[tuple[pydantic.PositiveInt, pydantic.PositiveInt], _PAIR]
"""(height, width), both 1 or more; one integer stands for both, as in torch."""
NonNegativePair = Annotated[tuple[pydantic.NonNegativeInt, pydantic.NonNegativeInt], _PAIR]
"""(height, width), both 0 or more; one integer stands for both, as in torch."""
Factor = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
"""A number greater than 0."""
FactorPair = Annotated[
    tuple[Factor, Factor],
    pydantic.BeforeValidator(
        spread((int, float), 2, "a number or a pair of them"),
        json_schema_input_type=float | tuple[float, float],
    ),
]
"""(height, width), numbers greater than 0; one number stands for both."""
_N = pydantic.NonNegativeInt
Sides = Annotated[
    tuple[_N, _N, _N, _N],
    pydantic.BeforeValidator(
        spread(int, 4, "an integer or four of them"),
        json_schema_input_type=int | tuple[int, int, int, int],
    ),
]
"""(left, right, top, bottom) of an image, each 0 or more; one integer stands for all, as in torch."""
Rate = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
"""A number of 0 or more, such as a learning rate."""
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A number from 0 to 1, without 1, such as a momentum."""
