"""Validation: pydantic's errors as Problems, in our words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from graphnet.errors import DescriptionError, Problem, nearest, shown
from graphnet.system import whole_number

MUST_BE_GIVEN = "must be given"
_NONE: Mapping[str, str] = {}


def problems(
    errors: Iterable[Any], known: Iterable[str], former: Mapping[str, str] = _NONE
) -> list[Problem]:
    """What pydantic found wrong, as Problems in the words of this project.

    Args:
        errors: the records of a pydantic.ValidationError; those of a union, one for each of its members,
            become one problem.
        known: the names of the fields, among which the nearest to an unknown one is looked for.
        former: the names that some fields had before, and their names now.

    >>> from pydantic import TypeAdapter, ValidationError
    >>> try:
    ...     TypeAdapter(int).validate_python("two")
    ... except ValidationError as error:
    ...     print(problems(error.errors(), [])[0].message)
    expected integer, unable to parse string as an integer, found 'two'
    """
    found: list[Problem] = []
    for problem in (problem for error in errors for problem in _problems(error, known, former)):
        if found and (joined := _joined(found[-1], problem)):
            found[-1] = joined
        else:
            found.append(problem)
    return found


def first_fault(error: ValidationError, *, separator: str = ".") -> str:
    """The place and the words of the first fault that pydantic found, for a file that a program has written.

    >>> from pydantic import TypeAdapter
    >>> try:
    ...     TypeAdapter(dict[str, list[int]]).validate_python({"a": [1, "b"]}, strict=True)
    ... except ValidationError as error:
    ...     print(first_fault(error))
    a.1: Input should be a valid integer
    """
    first = error.errors(include_url=False)[0]
    return separator.join(map(str, first["loc"])) + (": " if first["loc"] else "") + first["msg"]


def _joined(one: Problem, other: Problem) -> Problem | None:
    """Two of "expected A, found X" about the same field as "expected A or B, found X"."""
    parts = [re.fullmatch(r"expected (.*), found (.*)", p.message, re.S) for p in (one, other)]
    if one.path != other.path or parts[0] is None or parts[1] is None or parts[0][2] != parts[1][2]:
        return None
    return Problem(f"expected {parts[0][1]} or {parts[1][1]}, found {parts[0][2]}", one.path)


def _problems(
    error: Mapping[str, Any], known: Iterable[str], former: Mapping[str, str]
) -> Iterable[Problem]:
    cause = error.get("ctx", {}).get("error")
    return (
        cause.problems if isinstance(cause, DescriptionError) else [_problem(error, known, former)]
    )


def _problem(error: Mapping[str, Any], known: Iterable[str], former: Mapping[str, str]) -> Problem:
    location = tuple(str(part) for part in error["loc"])
    # For a union pydantic appends the member it tried, such as "int" or "tuple[...]": not a place.
    if location and location[-1] in _TYPES and error["type"].endswith("_type"):
        location = location[:-1]
    path = ".".join(
        part for part in location if part.isidentifier() or whole_number(part) is not None
    )
    match error["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            name = location[-1]
            if name in former:
                return Problem(f"is now called {former[name]}", path)
            return Problem(f"unknown field. {nearest(name, known)}", path)
        case "missing" | "missing_keyword_only_argument" | "missing_argument":
            return Problem(MUST_BE_GIVEN, path)
        case "unexpected_positional_argument":
            return Problem("fields are given by name, not by position", path)
        case "value_error":
            return Problem(str(error["ctx"]["error"]), path)
        case _:
            expected = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
            expected = re.sub(r"dictionary( or instance of \w+)?", "mapping", expected)
            return Problem(f"expected {expected}, found {shown(error['input'])}", path)


_TYPES = ("str", "int", "float", "bool")
