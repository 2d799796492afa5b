"""Choices: the parts of a data set that a file names, such as its noise; other distributions add to them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pydantic

from graphnet.errors import DescriptionError, Problem, nearest
from graphnet.sdk import Definition, split_form

T = TypeVar("T", bound=Definition)


@dataclass(frozen=True)
class Choices(Generic[T]):
    """Definitions by name, all of the class `base`: the built-in ones, and entry points of `group`.

    An entry point is loaded when it is named; a built-in name keeps its meaning.
    """

    base: type[T]
    group: str
    builtin: Mapping[str, type[T]]

    def names(self) -> list[str]:
        return [*self.builtin, *(point.name for point in self._points())]

    def make(self, form: object) -> T:
        """A definition from "name", {"name": {field: value}} or an instance; else DescriptionError."""
        if isinstance(form, self.base):
            return form
        name, config = split_form(form)
        cls = self.find(name)
        try:
            return cls(**config)
        except DescriptionError as error:
            raise DescriptionError(_under(name, error)) from None

    def find(self, name: str) -> type[T]:
        """The class of that name; DescriptionError where there is none, or it cannot be loaded."""
        if name in self.builtin:
            return self.builtin[name]
        for point in self._points().select(name=name):
            try:
                found = point.load()
            except Exception as error:  # somebody else's code: anything may come
                cause = f"{type(error).__name__}: {error}"
                raise _problem(f"{name!r} ({point.value}) cannot be loaded: {cause}") from error
            if not (isinstance(found, type) and issubclass(found, self.base)):
                raise _problem(
                    f"{name!r} must be a subclass of {self.base.__name__}, found {found!r}"
                )
            return found
        raise _problem(f"unknown name {name!r}. {nearest(name, self.names())}")

    def field(self, value: Any, info: pydantic.ValidationInfo) -> Any:
        """A validator of pydantic for a field that holds one of these; None stays None."""
        try:
            return None if value is None else self.make(value)
        except DescriptionError as error:
            raise DescriptionError(_under(info.field_name or "", error)) from None

    def _points(self) -> importlib.metadata.EntryPoints:
        return importlib.metadata.entry_points(group=self.group)


def _problem(message: str) -> DescriptionError:
    return DescriptionError([Problem(message)])


def _under(place: str, error: DescriptionError) -> list[Problem]:
    """The problems of a part, with the place where it stands before their paths."""
    return [
        Problem(p.message, ".".join(part for part in (place, p.path) if part), p.where)
        for p in error.problems
    ]
