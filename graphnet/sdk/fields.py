"""Fields: types for fields that several definitions share: sides, factors, rates, bounds.

>>> from graphnet.sdk import Definition
>>> class Blend(Definition):
...     share: Fraction = 0.5
>>> Blend(share=1.5)
Traceback (most recent call last):
graphnet.errors.DescriptionError: share: expected less than 1, found 1.5
"""

from __future__ import annotations

import math
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


Factor = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
"""A number greater than 0."""
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


def _is_number(value: float) -> float:
    if math.isnan(value):
        raise ValueError("expected a number, found nan")
    return value


Bound = Annotated[float, Field(allow_inf_nan=True), pydantic.AfterValidator(_is_number)]
"""A number that may also be infinite, such as the end of a range. A field of type float must be finite."""
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A number from 0 to 1, without 1, such as a momentum."""
