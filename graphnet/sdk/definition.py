"""Definition: a frozen, validated bundle of configuration, the base of everything a plugin defines.

Annotated fields are the configuration (what YAML sets); they are keyword-only and checked strictly
whenever an instance is made. Definitions hold no tensors, compare by value and can be hashed.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, ClassVar, dataclass_transform

import pydantic
import pydantic.dataclasses

from graphnet.errors import DescriptionError
from graphnet.sdk.validation import problems

_CONFIG = pydantic.ConfigDict(
    extra="forbid",
    strict=True,
    arbitrary_types_allowed=True,
    defer_build=True,  # of most classes no instance is ever made in a process
)


class _Checked(type):
    """Turns pydantic's errors into DescriptionError, all of them at once."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except pydantic.ValidationError as error:
            known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
            former: Mapping[str, str] = cls.former_names  # type: ignore[attr-defined]
            raise DescriptionError(problems(error.errors(), known, former)) from None


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Definition(metaclass=_Checked):
    """A frozen bundle of validated configuration; subclasses add annotated fields.

    `former_names` are those that fields had: name -> the name now, which the error of a former one says.
    Raises DescriptionError, naming every field that is wrong, when an instance is made.
    """

    former_names: ClassVar[Mapping[str, str]] = {}

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
