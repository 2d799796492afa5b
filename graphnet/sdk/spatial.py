"""Spatial: layers over one, two or three spatial axes, written once.

    class Blur(Spatial):
        radius: PositiveSizes = (1,)

        def forward(self, x): ...

    class Blur1d(Blur, axes=1): ...
    class Blur3d(Blur, axes=3): ...

The base states each field once, with a type for any number of axes. In a class with a number of axes the
field has that many numbers: one number stands for all, and a default of one number is repeated.
"""

from __future__ import annotations

import functools
import operator
import types
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin, get_type_hints

import pydantic

from graphnet.errors import ContractError, GraphError
from graphnet.sdk.fields import Factor, spread
from graphnet.sdk.layer import Layer
from graphnet.sdk.spec import Spec

_LETTERS = {1: "N x C x L", 2: "N x C x H x W", 3: "N x C x D x H x W"}
_WORDS = {1: "a list of one", 2: "a pair of them", 3: "three of them", 4: "four of them"}


@dataclass(frozen=True, slots=True)
class _PerAxis:
    """Marks a field with `count` numbers of the type `item` for each axis; `number` is their plain type."""

    item: Any
    number: type[int] | type[float] = int
    count: int = 1
    optional: bool = False

    def over(self, axes: int) -> Any:
        """The type of the field for this number of axes: a tuple, or one number for all."""
        length = self.count * axes
        word = "an integer" if self.number is int else "a number"
        one_for_all = spread(
            int if self.number is int else (int, float),
            length,
            f"{word} or {_WORDS.get(length, f'{length} of them')}",
        )
        each: Any = self.number | None if self.optional else self.number
        schema = self.number | types.GenericAlias(tuple, (each,) * length)
        return Annotated[
            types.GenericAlias(tuple, (self.item,) * length),
            pydantic.BeforeValidator(one_for_all, json_schema_input_type=schema),
        ]


PositiveSizes = Annotated[tuple[pydantic.PositiveInt, ...], _PerAxis(pydantic.PositiveInt)]
"""An integer of 1 or more for each axis; one stands for all."""
NonNegativeSizes = Annotated[tuple[pydantic.NonNegativeInt, ...], _PerAxis(pydantic.NonNegativeInt)]
"""An integer of 0 or more for each axis; one stands for all."""
NonNegativeSides = Annotated[
    tuple[pydantic.NonNegativeInt, ...], _PerAxis(pydantic.NonNegativeInt, count=2)
]
"""Two integers of 0 or more for each axis, from the last axis to the first: [left, right, top, bottom]."""
OptionalSizes = Annotated[
    tuple[pydantic.PositiveInt | None, ...], _PerAxis(pydantic.PositiveInt | None, optional=True)
]
"""An integer of 1 or more or null for each axis; one integer stands for all."""
Factors = Annotated[tuple[Factor, ...], _PerAxis(Factor, float)]
"""A number above 0 for each axis; one stands for all."""


class Spatial(Layer):
    """A layer over the spatial axes after batch and channels; a subclass states their number: `axes=3`.

    The axes are L; or H, W; or D, H, W. Its fields may have the types PositiveSizes, NonNegativeSizes,
    NonNegativeSides, OptionalSizes and Factors.

    Attributes:
        axes: the number of spatial axes.

    >>> class Stretch(Spatial):
    ...     factor: PositiveSizes = (2,)
    >>> class Stretch3d(Stretch, axes=3):
    ...     pass
    >>> Stretch3d().factor, Stretch3d(factor=5).factor, Stretch3d(factor=[1, 2, 3]).factor
    ((2, 2, 2), (5, 5, 5), (1, 2, 3))
    >>> Stretch3d(factor=[1, 2])
    Traceback (most recent call last):
    graphnet.errors.DescriptionError: factor.2: must be given
    """

    axes: ClassVar[int]

    def __init_subclass__(cls, *, axes: int | None = None, **kwargs: Any) -> None:
        if axes is not None:
            if getattr(cls, "axes", axes) != axes:
                raise ContractError(
                    f"{cls.__name__} has {axes} axes, but its base has {cls.axes}. Make it a subclass of "
                    f"the base for any number of axes."
                )
            cls.axes = axes
            try:
                hints = get_type_hints(cls, include_extras=True)
            except NameError as error:
                raise ContractError(
                    f"{cls.__name__}: {error}. The types of its fields must be names of its module."
                ) from error
            for name, hint in hints.items():
                stated, mark = _over(hint, axes)
                if mark is None:
                    continue
                cls.__annotations__[name] = stated
                default = getattr(cls, name, None)
                if isinstance(default, tuple):
                    (one,) = default
                    setattr(cls, name, (one,) * (mark.count * axes))
        super().__init_subclass__(**kwargs)

    def sizes(self, x: Spec | tuple[int, ...]) -> tuple[int, ...]:
        """The sizes of the spatial axes of an input (N, C, ...), given by its spec or its shape.

        Raises:
            GraphError: it has another number of axes.

        >>> class Stretch3d(Spatial, axes=3):
        ...     pass
        >>> Stretch3d().sizes((8, 3, 4, 5, 6))
        (4, 5, 6)
        """
        shape = x.shape if isinstance(x, Spec) else x
        if len(shape) != self.axes + 2:
            expected = _LETTERS.get(self.axes, f"of {self.axes + 2} axes")
            raise GraphError(
                f"expected an input {expected}, got {x if isinstance(x, Spec) else tuple(x)}"
            )
        return tuple(shape[2:])


def _over(hint: Any, axes: int) -> tuple[Any, _PerAxis | None]:
    """A type with each mark replaced for this number of axes, and the mark, None where there is none."""
    if get_origin(hint) is Annotated:
        for mark in hint.__metadata__:
            if isinstance(mark, _PerAxis):
                return mark.over(axes), mark
    elif get_origin(hint) in (Union, types.UnionType):
        parts = [_over(part, axes) for part in get_args(hint)]
        found = next((mark for _, mark in parts if mark is not None), None)
        return functools.reduce(operator.or_, (part for part, _ in parts)), found
    return hint, None


def by(sizes: tuple[int, ...] | list[int]) -> str:
    """Sizes as text.

    >>> by((2, 3))
    '2x3'
    """
    return "x".join(map(str, sizes))
