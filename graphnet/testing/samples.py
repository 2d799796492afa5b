"""Samples made from a layer's signature, where its author gives none.

Required fields are tried with small numbers, inputs with a few shapes; the first that the layer takes
is used. A layer that takes none of them needs samples from its author: a classmethod `samples` that
returns (layer, inputs) pairs or Samples, or an argument to the kit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch

from graphnet.errors import DescriptionError
from graphnet.graph import bind_inputs, observe
from graphnet.sdk import Kernel, Layer, Registry, Spec, layer_names, parse_pattern
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


def samples_for(cls: type[Layer], registry: Registry) -> tuple[Sample, ...]:
    """The author's samples, or generated ones. Raises NoSample when there are none."""
    given = getattr(cls, "samples", None)
    if given is not None:
        return tuple(as_sample(item) for item in given())
    found = _of_kernel(cls, registry) if issubclass(cls, Kernel) else _of_layer(cls)
    if not found:
        raise NoSample(
            f"no sample could be made for {cls.__name__}: none of a few small configurations takes an "
            f"input of {', '.join('x'.join(map(str, s)) for s in _SHAPES)}. Give `samples`: a "
            f"list of Sample(layer, inputs), with shapes or tensors as inputs."
        )
    return tuple(found)


def as_sample(given: Sample | Layer | tuple[Any, ...]) -> Sample:
    """A Sample from one, from (layer, inputs), or from a layer whose inputs are to be generated."""
    if isinstance(given, Sample):
        return given
    if isinstance(given, Layer):
        shapes = next(_inputs(given), None)
        if shapes is None:
            raise NoSample(
                f"no inputs were found that {given} takes. Give Sample({given}, inputs)."
            )
        return Sample(given, shapes)
    layer, inputs = given
    return Sample(layer, inputs)


def samples_of(layer: Layer) -> Iterator[Sample]:
    """The generated samples of one definition: one, or up to three for any number of inputs."""
    shapes = next(_inputs(layer), None)
    if shapes is None:
        return
    yield Sample(layer, shapes)
    if layer.signature.variadic:
        yield Sample(layer, shapes * 3)
        (n, *rest) = shapes[0]
        uneven = [(n, *rest), (n, rest[0] + 1, *rest[1:])] if rest else []
        if uneven and _takes(layer, [Spec(shape, torch.float64) for shape in uneven]):
            yield Sample(layer, uneven)


def _of_layer(cls: type[Layer]) -> list[Sample]:
    for config in itertools.islice(_configurations(cls), _MOST_TRIES):
        try:
            layer = cls(**config)
        except DescriptionError:
            continue
        found = list(samples_of(layer))
        if found:
            return found + [s for other in _variants(cls, config) for s in samples_of(other)]
    return []


def _of_kernel(cls: type[Kernel], registry: Registry) -> list[Sample]:
    """The samples of the layers in its pattern, combined."""
    names = list(layer_names(parse_pattern(cls)))
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


def _inputs(layer: Layer) -> Iterator[tuple[Sequence[int], ...]]:
    """Shapes that the layer takes, as many as it has inputs."""
    most = 1 if layer.signature.variadic else min(_MOST_INPUTS, len(layer.signature.tensors))
    for shape, count in itertools.product(_SHAPES, range(1, most + 1)):
        if _takes(layer, (Spec(shape, torch.float64),) * count):
            yield (shape,) * count


def _takes(layer: Layer, specs: Iterable[Spec]) -> bool:
    try:
        ports = bind_inputs(layer, list(specs), torch.float64)
        observe(layer, "forward", ports.specs)
    except Exception:  # another shape may fit; what is wrong with a given sample is reported
        return False
    return True
