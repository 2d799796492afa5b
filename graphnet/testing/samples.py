"""Samples made from a layer's signature, where its author gives none.

Required fields are tried with small numbers, inputs with a few shapes; the first that the layer takes
is used. A layer that takes none of them needs samples from its author: a classmethod `samples` that
returns (layer, inputs) pairs or Samples, or an argument to the kit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch

from graphnet.errors import DescriptionError
from graphnet.graph import bind_inputs, observe
from graphnet.sdk import Kernel, Layer, Registry, Spec, layer_names
from graphnet.testing.author import raised, where
from graphnet.testing.outcome import NoSample
from graphnet.testing.sample import Sample

_SHAPES = ((2, 4, 6, 6), (2, 6), (2, 4, 6), (6,))
_CANDIDATES: Mapping[str, tuple[Any, ...]] = {
    "integer": (2, 3, 4, 1),
    "number": (0.5, 2.0),
    "boolean": (True, False),
    "array": ((2, 2), (1,)),
}
_MOST_INPUTS = 4
_MOST_TRIES = 200
_MOST_ERRORS = 4
_FAULTS = (AttributeError, NameError, ImportError)
"""What a layer raises by mistake on any shape, and never to refuse one."""


class _Tries:
    """What a layer raised on the inputs that were tried, each kind of error with the first of them."""

    def __init__(self) -> None:
        self._first: dict[tuple[type[Exception], str], tuple[str, Exception]] = {}

    def add(self, tried: str, error: Exception) -> None:
        self._first.setdefault((type(error), where(error)), (tried, error))

    def __str__(self) -> str:
        """Errors of the author's code before those about the number of inputs; nothing if there are none."""
        found = sorted(self._first.values(), key=lambda one: not where(one[1]))[:_MOST_ERRORS]
        return "".join(f"\n  {tried}: {raised(error)}" for tried, error in found)


def samples_for(cls: type[Layer], registry: Registry) -> tuple[Sample, ...]:
    """The author's samples, or generated ones. Raises NoSample when there are none."""
    given = getattr(cls, "samples", None)
    if given is not None:
        return tuple(as_sample(item) for item in given())
    tries = _Tries()
    found = _of_kernel(cls, registry) if issubclass(cls, Kernel) else _of_layer(cls, tries)
    if not found:
        raise NoSample(
            f"no sample could be made for {cls.__name__}: none of a few small configurations takes an "
            f"input of {', '.join(map(_shape, _SHAPES))}. Give `samples`: a "
            f"list of Sample(layer, inputs), with shapes or tensors as inputs.{_what_was_raised(tries)}"
        )
    return tuple(found)


def as_sample(given: Sample | Layer | tuple[Any, ...]) -> Sample:
    """A Sample from one, from (layer, inputs), or from a layer whose inputs are to be generated."""
    if isinstance(given, Sample):
        return given
    if isinstance(given, Layer):
        tries = _Tries()
        shapes = next(_inputs(given, tries), None)
        if shapes is None:
            raise NoSample(
                f"no inputs were found that {given} takes. Give Sample({given}, inputs)."
                f"{_what_was_raised(tries)}"
            )
        return Sample(given, shapes)
    layer, inputs = given
    return Sample(layer, inputs)


def samples_of(layer: Layer, tries: _Tries | None = None) -> Iterator[Sample]:
    """The generated samples of one definition: one, or up to three for any number of inputs."""
    tries = tries or _Tries()
    shapes = next(_inputs(layer, tries), None)
    if shapes is None:
        return
    yield Sample(layer, shapes)
    if layer.signature.variadic:
        yield Sample(layer, shapes * 3)
        (n, *rest) = shapes[0]
        uneven = [(n, *rest), (n, rest[0] + 1, *rest[1:])] if rest else []
        if uneven and _takes(layer, [Spec(shape, torch.float64) for shape in uneven], tries):
            yield Sample(layer, uneven)


def _of_layer(cls: type[Layer], tries: _Tries) -> list[Sample]:
    for config in itertools.islice(_configurations(cls), _MOST_TRIES):
        try:
            layer = cls(**config)
        except DescriptionError as error:
            tries.add(
                f"{cls.__name__}({', '.join(f'{n}={v!r}' for n, v in config.items())})", error
            )
            continue
        found = list(samples_of(layer, tries))
        if found:
            return found + [s for other in _variants(cls, config) for s in samples_of(other)]
    return []


def _of_kernel(cls: type[Kernel], registry: Registry) -> list[Sample]:
    """The samples of the layers in its pattern, combined."""
    names = list(layer_names(cls.pattern))
    known = {**registry.layers, **registry.losses}
    parts = [
        [*samples_for(known[name].value, registry), *_alike(known[name].value)]
        for name in names
        if name in known
    ]
    found = []
    for combination in itertools.islice(itertools.product(*parts), _MOST_TRIES):
        layers = tuple(sample.layer for sample in combination if isinstance(sample.layer, Layer))
        found.append(Sample(layers, combination[-1].inputs))
    return found


def _alike(cls: type[Layer]) -> Iterator[Sample]:
    """A layer with one optional field as the required one of its kind: stride as kernel_size."""
    properties = cls.schema().get("properties", {})
    kinds = {name: properties.get(name, {}).get("anyOf") for name in cls.field_names()}
    config = next(_configurations(cls))
    for name, kind in kinds.items():
        same = [other for other in cls.required() if kind and kinds[other] == kind]
        if name not in config and same:
            try:
                yield from samples_of(cls(**config, **{name: config[same[0]]}))
            except DescriptionError:
                continue


def _configurations(cls: type[Layer]) -> Iterator[dict[str, Any]]:
    """Required fields with small values, all combinations."""
    required = cls.required()
    if not required:
        yield {}
        return
    properties = cls.schema().get("properties", {})
    choices = [list(_values(properties.get(name, {}))) for name in required]
    for values in itertools.product(*choices):
        yield dict(zip(required, values, strict=True))


def _values(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Values that a field's JSON Schema may accept."""
    if "const" in schema:
        yield schema["const"]
    yield from schema.get("enum", ())
    yield from _CANDIDATES.get(str(schema.get("type")), ())
    for option in schema.get("anyOf", ()):
        yield from _values(option)


def _variants(cls: type[Layer], config: Mapping[str, Any]) -> Iterator[Layer]:
    """The same layer with each optional boolean the other way round."""
    for field in fields(cls):
        if isinstance(field.default, bool):
            try:
                yield cls(**config, **{field.name: not field.default})
            except DescriptionError:
                continue


def _inputs(layer: Layer, tries: _Tries) -> Iterator[tuple[Sequence[int], ...]]:
    """Shapes that the layer takes, as many as it has inputs."""
    most = 1 if layer.signature.variadic else min(_MOST_INPUTS, len(layer.signature.tensors))
    for shape, count in itertools.product(_SHAPES, range(1, most + 1)):
        if _takes(layer, (Spec(shape, torch.float64),) * count, tries):
            yield (shape,) * count


def _takes(layer: Layer, specs: Sequence[Spec], tries: _Tries) -> bool:
    """Whether the layer runs on inputs of these specs. Raises NoSample for what no inputs can mend."""
    try:
        ports = bind_inputs(layer, list(specs), torch.float64)
        observe(layer, "forward", ports.specs)
    except Exception as error:  # another shape may fit; if none does, this is told
        tried = f"{layer} on {', '.join(_shape(spec.shape) for spec in specs)}"
        if isinstance(error, _FAULTS) and where(error):
            raise NoSample(f"{tried} raised {raised(error)}") from error
        tries.add(tried, error)
        return False
    return True


def _what_was_raised(tries: _Tries) -> str:
    return f" What was raised:{tries}" if str(tries) else ""


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
