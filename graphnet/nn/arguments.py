"""Arguments: how the class of a registered layer, loss or optimizer takes its fields.

Fields may be given by name, and by position where that means the same as in torch. A built-in layer that
torch has under the same name takes its fields in torch's order, up to the first argument that the layer does
not have. All others take their fields in the order of the definition. A field with a single value, which is
not torch's default, must be given: nn.LSTM(8, 16) would mean something else than in torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, get_overloads

from graphnet.errors import DescriptionError, InputError, shown
from graphnet.sdk import Definition, frozen

Parameter = inspect.Parameter


@dataclass(frozen=True)
class Arguments:
    """The arguments of a class that is made from a definition.

    Attributes:
        definition: the layer, loss or optimizer whose fields are set.
        positional: the fields that may be given by position, in order.
        foreign: the arguments that only torch's class has, with torch's defaults.
        unlike: the fields that have one value only, which differs from torch's default -> torch's default.
    """

    definition: type[Definition]
    positional: tuple[str, ...]
    foreign: Mapping[str, Any]
    unlike: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, definition: type[Definition], torchs: type | None, *, skip: int = 0) -> Arguments:
        """Return the arguments for a definition.

        Args:
            definition: the layer, loss or optimizer.
            torchs: the class of torch with the same arguments, if there is one.
            skip: the number of torch's first arguments that are no fields.
        """
        names = definition.field_names()
        if torchs is None:
            return cls(definition, names, {})
        given = _parameters(torchs)[skip:]
        positional: list[str] = []
        for one in given:
            if one.kind is not Parameter.POSITIONAL_OR_KEYWORD or one.name not in names:
                break
            positional.append(one.name)
        foreign = {
            one.name: one.default
            for one in given
            if one.name not in names and one.default is not Parameter.empty
        }
        stated = definition.schema().get("properties", {})
        unlike = {
            one.name: one.default
            for one in given
            if one.default is not Parameter.empty
            and one.default != stated.get(one.name, {}).get("const", one.default)
        }
        return cls(definition, tuple(positional), foreign, unlike)

    def fields(self, title: str, args: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the fields by name. The definition checks them.

        Raises:
            InputError: there are too many arguments by position, one is given twice, one belongs to torch's
                class only and does not have torch's default, or one is left out whose default in torch is
                different.
        """
        if len(args) > len(self.positional):
            order = f" ({', '.join(self.positional)})" if self.positional else ""
            raise InputError(
                f"{title}: expected at most {len(self.positional)} arguments by position{order}, got "
                f"{len(args)}. Give the others by name."
            )
        found = dict(zip(self.positional, args, strict=False))
        for name, value in named.items():
            if name in found:
                raise InputError(f"{title}: {name} is given twice")
            if name in self.definition.field_names() or name not in self.foreign:
                found[name] = value
            elif type(value) is not type(self.foreign[name]) or value != self.foreign[name]:
                raise InputError(
                    f"{title}: {name}={shown(value)} is an argument of torch's class only. {title} computes "
                    f"what torch does with {name}={self.foreign[name]!r}: leave it out."
                )
        for name, default in self.unlike.items():
            if name not in found:
                (only,) = (one.default for one in fields(self.definition) if one.name == name)  # type: ignore[arg-type]
                raise InputError(
                    f"{title}: expected {name}={only!r}, which {title} computes. Without it, torch's class "
                    f"computes {name}={default!r}. Give {name}={only!r}."
                )
        return {name: frozen(value) for name, value in found.items()}

    def made(self, title: str, fields: Mapping[str, Any]) -> Definition:
        """Return the definition with these fields. The paths in a DescriptionError begin with the title."""
        try:
            return self.definition(**fields)
        except DescriptionError as error:
            raise error.under(title) from None

    def signature(
        self, *, first: Sequence[str] = (), last: Sequence[str] = ()
    ) -> inspect.Signature:
        """Return the signature that help and editors show.

        If a field without a default follows a field with a default, the default is not shown.

        Args:
            first: arguments before the fields, by position.
            last: arguments after the fields, by name, with the default None.
        """
        known = {one.name: one for one in fields(self.definition)}  # type: ignore[arg-type]
        types = field_types(self.definition)
        required = [name for name in self.positional if name in self.definition.required()]
        end = self.positional.index(required[-1]) if required else -1
        found = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in first]
        for position, name in enumerate(self.positional):
            default = Parameter.empty if position <= end else _default(known[name])
            kind = Parameter.POSITIONAL_OR_KEYWORD
            found.append(Parameter(name, kind, default=default, annotation=types[name]))
        for name in known:
            if name not in self.positional:
                default = Parameter.empty if name in self.unlike else _default(known[name])
                one = Parameter(name, Parameter.KEYWORD_ONLY, default=default)
                found.append(one.replace(annotation=types[name]))
        by_name = [name for name in last if name not in known]
        found += [Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in by_name]
        return inspect.Signature(found)


def _parameters(torchs: type) -> list[Parameter]:
    """The arguments of a class; if it takes any arguments, those of its first overload."""
    given = list(inspect.signature(torchs).parameters.values())
    if any(one.kind is Parameter.VAR_POSITIONAL for one in given):
        for overload in get_overloads(inspect.getattr_static(torchs, "__init__"))[:1]:
            given = list(inspect.signature(overload).parameters.values())[1:]
    return given


def _default(one: Any) -> Any:
    if one.default is not MISSING:
        return one.default
    return Parameter.empty if one.default_factory is MISSING else one.default_factory()


def field_types(definition: type[Definition]) -> dict[str, str]:
    """Return the type of each field as text, as it is given: one integer may stand for a pair.

    >>> from graphnet.sdk import default_registry
    >>> field_types(default_registry().layers["max_pool2d"].value)["kernel_size"]
    'int | tuple[int, int]'
    """
    schema = definition.schema()
    shared = schema.get("$defs", {})
    stated = schema.get("properties", {})
    return {name: _type(stated.get(name, {}), shared) for name in definition.field_names()}


def _type(schema: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    match schema:
        case {"$ref": str(place)}:
            return _type(shared[place.rpartition("/")[2]], shared)
        case {"anyOf": options}:
            return " | ".join(dict.fromkeys(_type(option, shared) for option in options))
        case {"enum": values}:
            return f"Literal[{', '.join(map(repr, values))}]"
        case {"const": value}:
            return f"Literal[{value!r}]"
        case {"type": "array", "prefixItems": items}:
            return f"tuple[{', '.join(_type(item, shared) for item in items)}]"
        case {"type": "array", "items": item}:
            return f"tuple[{_type(item, shared)}, ...]"
        case {"type": str(name)} if name in _PLAIN:
            return _PLAIN[name]
    return "Any"


_PLAIN = {"integer": "int", "number": "float", "boolean": "bool", "string": "str", "null": "None"}
