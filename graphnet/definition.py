"""Definition: a frozen, validated bundle of configuration, the base of everything a plugin defines.

Annotated fields are the configuration (what YAML sets); they are keyword-only and checked strictly
whenever an instance is made. Definitions hold no tensors, compare by value and can be hashed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, dataclass_transform

import pydantic
import pydantic.dataclasses

from graphnet.errors import DescriptionError, Problem, nearest

_CONFIG = pydantic.ConfigDict(
    extra="forbid",
    strict=True,
    arbitrary_types_allowed=True,
    defer_build=True,  # of most classes no instance is ever made in a process
)


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


class _Checked(type):
    """Turns pydantic's errors into DescriptionError, all of them at once."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except pydantic.ValidationError as error:
            known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
            raise DescriptionError(problems(error.errors(), known)) from None


def problems(errors: Iterable[Any], known: Iterable[str]) -> list[Problem]:
    """pydantic's error records as Problems, in our words; a union's, one for each member, as one."""
    found: list[Problem] = []
    for problem in (problem for error in errors for problem in _problems(error, known)):
        if found and (joined := _joined(found[-1], problem)):
            found[-1] = joined
        else:
            found.append(problem)
    return found


def _joined(one: Problem, other: Problem) -> Problem | None:
    """Two of "expected A, found X" about the same field as "expected A or B, found X"."""
    parts = [re.fullmatch(r"expected (.*), found (.*)", p.message, re.S) for p in (one, other)]
    if one.path != other.path or parts[0] is None or parts[1] is None or parts[0][2] != parts[1][2]:
        return None
    return Problem(f"expected {parts[0][1]} or {parts[1][1]}, found {parts[0][2]}", one.path)


def _problems(error: Mapping[str, Any], known: Iterable[str]) -> Iterable[Problem]:
    cause = error.get("ctx", {}).get("error")
    return cause.problems if isinstance(cause, DescriptionError) else [_problem(error, known)]


def _problem(error: Mapping[str, Any], known: Iterable[str]) -> Problem:
    location = tuple(str(part) for part in error["loc"])
    # For a union pydantic appends the member it tried, such as "int" or "tuple[...]": not a place.
    if location and location[-1] in _TYPES and error["type"].endswith("_type"):
        location = location[:-1]
    path = ".".join(part for part in location if part.isidentifier() or part.isdigit())
    match error["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            return Problem(f"unknown field. {nearest(location[-1], known)}", path)
        case "missing" | "missing_keyword_only_argument" | "missing_argument":
            return Problem("must be given", path)
        case "unexpected_positional_argument":
            return Problem("fields are given by name, not by position", path)
        case "value_error":
            return Problem(str(error["ctx"]["error"]), path)
        case _:
            expected = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
            expected = re.sub(r"dictionary( or instance of \w+)?", "mapping", expected)
            return Problem(f"expected {expected}, found {error['input']!r}", path)


_TYPES = ("str", "int", "float", "bool")


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Definition(metaclass=_Checked):
    """A frozen bundle of validated configuration; subclasses add annotated fields.

    Raises DescriptionError, naming every field that is wrong, when an instance is made.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=_CONFIG)(cls)

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """The JSON Schema of the configuration."""
        return pydantic.TypeAdapter(cls).json_schema()

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))  # type: ignore[arg-type]

    @classmethod
    def required(cls) -> tuple[str, ...]:
        """The fields without a default."""
        return tuple(
            field.name
            for field in fields(cls)  # type: ignore[arg-type]
            if field.default is MISSING and field.default_factory is MISSING
        )

    def configuration(self) -> dict[str, Any]:
        """The fields and their values, as a description would state them."""
        return {name: getattr(self, name) for name in self.field_names()}


def summary(definition: type) -> str:
    """The first line of a class's docstring."""
    return (inspect.getdoc(definition) or "").split("\n", 1)[0]
