"""Definition: frozen, checked configuration, the base of every class that a plugin registers.

Annotated fields are the configuration, which a model file sets. They are given by name and checked
strictly whenever an instance is made. A definition holds no tensors, compares by value and can be hashed.
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
    allow_inf_nan=False,  # a field that may be infinite has the type Bound
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
    """Frozen, checked configuration; a subclass adds annotated fields.

    Attributes:
        former_names: the former name of a field -> its name now; a former name is an error that says this.

    Raises:
        DescriptionError: when an instance is made; it names every field that is wrong.

    >>> class Blur(Definition):
    ...     radius: int = 1
    >>> Blur(radius=2) == Blur(radius=2)
    True
    >>> Blur(radius=1.5)
    Traceback (most recent call last):
    graphnet.errors.DescriptionError: radius: expected integer, found 1.5

    >>> class Blur(Definition):
    ...     former_names = {"size": "radius"}
    ...     radius: int = 1
    ...     sigma: float
    >>> Blur.field_names(), Blur.required()
    (('radius', 'sigma'), ('sigma',))
    >>> Blur(sigma=2.0).configuration()
    {'radius': 1, 'sigma': 2.0}
    >>> Blur.schema()["properties"]["radius"]["type"]
    'integer'
    >>> Blur(size=2, sigma=2.0)
    Traceback (most recent call last):
    graphnet.errors.DescriptionError: size: is now called radius
    """

    former_names: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=_CONFIG)(cls)

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """The JSON Schema of the fields."""
        return pydantic.TypeAdapter(cls).json_schema()

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """The names of the fields, in order."""
        return tuple(field.name for field in fields(cls))  # type: ignore[arg-type]

    @classmethod
    def required(cls) -> tuple[str, ...]:
        """The names of the fields without a default."""
        return tuple(
            field.name
            for field in fields(cls)  # type: ignore[arg-type]
            if field.default is MISSING and field.default_factory is MISSING
        )

    def configuration(self) -> dict[str, Any]:
        """The fields and their values, as a model file would state them."""
        return {name: getattr(self, name) for name in self.field_names()}


def changed_fields(definition: Definition) -> dict[str, Any]:
    """The fields that differ from their defaults, with their values.

    >>> class Blur(Definition):
    ...     radius: int = 1
    ...     sides: int = 4
    >>> changed_fields(Blur(radius=2))
    {'radius': 2}
    """
    found = {}
    for field in fields(definition):  # type: ignore[arg-type]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        value = getattr(definition, field.name)
        if value != default:
            found[field.name] = value
    return found


def summary(definition: type) -> str:
    """The first line of a class's docstring.

    >>> summary(Definition)
    'Frozen, checked configuration; a subclass adds annotated fields.'
    """
    return (inspect.getdoc(definition) or "").split("\n", 1)[0]
