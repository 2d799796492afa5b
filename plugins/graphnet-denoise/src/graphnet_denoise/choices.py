"""Choices: parts of a data set that a file names, such as its noise; other distributions can add more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pydantic

from graphnet.errors import DescriptionError, Problem, UnknownNameError
from graphnet.sdk import Definition, Register, default_registry, split_form

T = TypeVar("T", bound=Definition)


@dataclass(frozen=True)
class Choices(Generic[T]):
    """Definitions by name, all of the class `base`: the built-in ones, and those that plugins
    register for the kind `kind`, which this distribution declares.

    Names that are not built in are looked up in the registry.
    """

    base: type[T]
    kind: str
    builtin: Mapping[str, type[T]]

    def make(self, form: object) -> T:
        """Make a definition from "name", {"name": {field: value}} or an instance; else DescriptionError."""
        if isinstance(form, self.base):
            return form
        name, config = split_form(form)
        cls = self.find(name)
        try:
            return cls(**config)
        except DescriptionError as error:
            raise error.under(name) from None

    def find(self, name: str) -> type[T]:
        """Return the class of that name; raises DescriptionError if there is none."""
        if name in self.builtin:
            return self.builtin[name]
        try:
            found: type[T] = default_registry().find(self.kind, name).value
        except UnknownNameError as error:
            raise DescriptionError([Problem(str(error))]) from error
        return found

    def register(self, register: Register) -> None:
        """Register the built-in definitions, in a hook of this distribution."""
        for name, cls in self.builtin.items():
            register(name, cls)

    def field(self, value: Any, info: pydantic.ValidationInfo) -> Any:
        """Validate a field that holds such a definition, for pydantic; None stays None."""
        try:
            return None if value is None else self.make(value)
        except DescriptionError as error:
            place = info.field_name or ""
            raise error.under(place) from None
