"""Vary: give each field of a layer's class other values than the samples do, as its type allows.

An author's samples often state a field at its default only. Here, flags are inverted, choices (Literal) are
tried in turn, numbers and pairs are changed, and optional fields are set or left out; the inputs stay.
Several fields are changed in one sample if the layer takes that, so that there are few samples. If the
author's samples state as many values of a field as the kit would try, the kit leaves this field as it is: the
author knows which values fit the inputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from torch import Tensor

from graphnet.errors import DescriptionError
from graphnet.graph import observe
from graphnet.sdk import Definition, Layer, Registry
from graphnet.testing.case import Case
from graphnet.testing.sample import Sample

MOST_SAMPLES = 8  # so many are added at most
_MOST_VALUES = 8  # of one field


@dataclass(frozen=True, slots=True)
class Field:
    """What was tried for one field of a class.

    Args:
        values: the values that the samples had, each once.
        only_default: whether the default was the only one.
        refused: the values that the layer refused, or that no input fitted.

    >>> Field((1.0, 0.25), only_default=False).values
    (1.0, 0.25)
    """

    values: tuple[Any, ...]
    only_default: bool
    refused: tuple[Any, ...] = ()


Fields = Mapping[str, Field]


@dataclass(frozen=True, slots=True)
class Varied:
    """Further samples, and field -> the values that did not fit."""

    samples: tuple[Sample, ...]
    refused: Mapping[str, tuple[Any, ...]]


def fields_of(
    cls: type[Definition],
    tried: Sequence[Definition],
    refused: Mapping[str, tuple[Any, ...]] | None = None,
) -> Fields:
    """Say for each field of a class which values these definitions have."""
    found = {}
    for field in fields(cls):  # type: ignore[arg-type]  # every definition is a dataclass
        values: list[Any] = []
        for one in tried:
            value = getattr(one, field.name)
            if value not in values:
                values.append(value)
        default = field.default
        only = default is not MISSING and all(value == default for value in values)
        found[field.name] = Field(tuple(values), only, (refused or {}).get(field.name, ()))
    return found


def varied(cls: type[Layer], samples: Sequence[Sample]) -> Varied:
    """Make samples in which fields of the class have values that none of these samples has."""
    base = max(
        (one for one in samples if isinstance(one.layer, cls)),
        key=lambda one: len(one.inputs),
        default=None,
    )
    if base is None or not cls.field_names():
        return Varied((), {})
    layers = [one.layer for one in samples if isinstance(one.layer, cls)]
    known: dict[str, list[Any]] = {
        name: [getattr(layer, name) for layer in layers] for name in cls.field_names()
    }
    try:
        properties = cls.schema().get("properties", {})
    except Exception:  # a type that pydantic cannot describe: the check `json_schema` reports it
        return Varied((), {})
    wanted: dict[str, list[Any]] = {}
    refused: dict[str, tuple[Any, ...]] = {}
    for name in cls.field_names():
        now = getattr(base.layer, name)
        if _several(known[name], properties.get(name, {})):
            continue
        fit: list[Any] = []
        bad: list[Any] = []
        for value in _others(properties.get(name, {}), now, base):
            made = changed(base.layer, {name: value})
            stated = value if made is None else getattr(made, name)  # 2 may be stated as (2, 2)
            if any(_equal(stated, old) for old in (*known[name], *fit, *bad)):
                continue
            (fit if _takes(base, {name: stated}) else bad).append(stated)
            if len(fit) == _enough(properties.get(name, {})):
                break
        wanted[name] = fit
        if bad and not fit:
            refused[name] = tuple(bad)
    skip = {check: reason for one in samples for check, reason in one.skip.items()}
    found = []
    for changes in itertools.islice(_packed(base, wanted), MOST_SAMPLES):
        layer = changed(base.layer, changes)
        assert isinstance(layer, Layer)
        found.append(Sample(layer, base.inputs, skip=skip))
    return Varied(tuple(found), refused)


def _packed(base: Sample, wanted: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Put the values of many fields into few configurations that the layer takes.

    Flags come in a configuration of their own: one that leaves out a bias hides what else is wrong with it.
    """
    flags = {name for name, values in wanted.items() if any(type(v) is bool for v in values)}
    for names in (set(wanted) - flags, flags):
        ahead = {name: list(wanted[name]) for name in wanted if name in names}
        while any(ahead.values()):
            changes: dict[str, Any] = {}
            for name, values in ahead.items():
                if values and (not changes or _takes(base, {**changes, name: values[0]})):
                    changes[name] = values.pop(0)
            yield changes


def _takes(base: Sample, changes: Mapping[str, Any]) -> bool:
    """Whether the layer with these changes runs on the inputs of a sample.

    Integers that the author gives, such as labels, may not fit every value of a field: then the layer is run.
    """
    try:
        layer = changed(base.layer, changes)
        assert isinstance(layer, Layer)
        inputs = tuple(x if isinstance(x, Tensor) else tuple(x) for x in base.inputs)
        case = Case(layer, "varied", inputs, Registry())
        observe(layer, "forward", case.ports.specs)
        if not all(spec.dtype.is_floating_point for spec in case.input_specs()):
            case.forward(case.arguments())
    except Exception:  # the value does not fit these inputs; the report says that it was not tried
        return False
    return True


def changed(layer: Any, changes: Mapping[str, Any]) -> Definition | None:
    """Return a definition with other values of some fields; None if it refuses them."""
    try:
        made: Definition = type(layer)(**{**layer.configuration(), **changes})
    except DescriptionError:
        return None
    return made


def other_values(layer: Layer, name: str, inputs: Sequence[Any]) -> list[Any]:
    """Return values of a field that differ from the layer's, as its type allows; none for a text."""
    try:
        schema = type(layer).schema().get("properties", {}).get(name, {})
    except Exception:  # the check `json_schema` reports it
        return []
    now = getattr(layer, name)
    values = list(_others(schema, now, Sample(layer, inputs)))
    return [value for value in values if not _equal(value, now)][:_MOST_VALUES]


def _enough(schema: Mapping[str, Any]) -> int:
    """So many values of a field are tried: all choices, and two of another type."""
    options = list(_options(schema))
    choices = sum(len(one.get("enum", ())) + ("const" in one) for one in options)
    others = [one for one in options if one.get("type") in ("integer", "number", "array")]
    return min(choices + 2 * bool(others) or 2, _MOST_VALUES)


def _several(stated: Sequence[Any], schema: Mapping[str, Any]) -> bool:
    """Whether an author states as many values of a field as the kit would try, and all choices."""
    choices = [value for one in _options(schema) for value in one.get("enum", ())]
    different = [one for i, one in enumerate(stated) if not any(_equal(one, s) for s in stated[:i])]
    return len(different) >= max(2, _enough(schema)) and all(c in stated for c in choices)


def _options(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the types that a field's JSON Schema joins."""
    if "anyOf" in schema:
        for option in schema["anyOf"]:
            yield from _options(option)
    else:
        yield schema


def _others(schema: Mapping[str, Any], now: Any, base: Sample) -> Iterator[Any]:
    """Yield other values for a field, which its type may still refuse."""
    options = list(_options(schema))
    for one in options:
        yield from one.get("enum", ())
        if "const" in one:
            yield one["const"]
    for one in options:
        match one.get("type"):
            case "boolean":
                yield from (True, False)
            case "array":
                yield from _arrays(one, now)
            case "number":
                least = float(one.get("minimum", one.get("exclusiveMinimum", 0.0)))
                yield from (max(0.0, least) + part for part in (0.25, 0.5))
    for one in options:
        match one.get("type"):
            case "integer":
                yield from _integers(now, base)
            case "null":
                yield None


def _integers(now: Any, base: Sample) -> Iterator[int]:
    if type(now) is int:
        yield from (now + 1, now + 2, now - 1)
    yield from (2, 3, 1)
    shapes = [x.shape if isinstance(x, Tensor) else x for x in base.inputs]
    yield from dict.fromkeys(n for shape in shapes for n in shape)  # such as the number of channels


def _arrays(schema: Mapping[str, Any], now: Any) -> Iterator[tuple[Any, ...]]:
    """Yield arrays of numbers of a fixed length, all different, then some with one larger than now.

    In those of four or more, such as the pixels to add on each side, every second number is then 0.
    """
    parts = schema.get("prefixItems") or [schema.get("items", {})] * int(schema.get("minItems", 0))
    length = len(parts)
    if not length or any(part.get("type") not in ("integer", "number") for part in parts):
        return
    start = now if isinstance(now, tuple) and len(now) == length else (1,) * length
    whole = parts[0]["type"] == "integer"
    if length > 1:
        rising = tuple(n + (i if whole else 0.25 * i) for i, n in enumerate(start))
        apart = tuple(max(n, 1) * (i % 2 == 0) for i, n in enumerate(start))
        yield rising
        yield apart if length > 3 else rising[::-1]
    for step in (1, -1):
        for i in range(length):
            moved = step if whole else 0.25 * step
            yield tuple(n + moved if i == j else n for j, n in enumerate(start))


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)
