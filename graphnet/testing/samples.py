"""Samples: make samples from a layer's signature if its author gives none.

Small numbers are tried for required fields, and a few shapes for inputs; the first ones that the layer takes
are used. If the layer takes none of them, its author must give samples: by a classmethod `samples` that
returns (layer, inputs) pairs or Samples, or by an argument to the kit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch

from graphnet.errors import DescriptionError, GraphnetError, LayerError
from graphnet.graph import bind_inputs, observe
from graphnet.sdk import Kernel, Layer, Registry, Spec, layer_names
from graphnet.testing.author import raised, where
from graphnet.testing.outcome import NoSample
from graphnet.testing.sample import Sample

_SHAPES = ((2, 4, 6, 6), (2, 6), (2, 4, 6), (6,), (2, 4, 3, 4, 3))
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
"""Errors that are mistakes in the layer's code; a layer never raises them to refuse a shape."""


class _Tries:
    """The errors that a layer raised for the inputs that were tried: the first one of each kind."""

    def __init__(self) -> None:
        self._first: dict[tuple[type[Exception], str], tuple[str, Exception]] = {}

    def add(self, tried: str, error: Exception) -> None:
        self._first.setdefault((type(error), where(error)), (tried, error))

    @property
    def first(self) -> Exception | None:
        """The first error that the author's code did not raise to refuse something."""
        errors = (error for _, error in self._first.values())
        return next((e for e in errors if where(e) and not isinstance(e, GraphnetError)), None)

    def __str__(self) -> str:
        """List the errors, those of the author's code first; an empty text if there are none."""
        found = sorted(self._first.values(), key=lambda one: not where(one[1]))[:_MOST_ERRORS]
        return "".join(f"\n  {tried}: {raised(error)}" for tried, error in found)


def samples_for(cls: type[Layer], registry: Registry) -> tuple[Sample, ...]:
    """Return the author's samples, or generated ones; raises NoSample if none can be made."""
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
        ) from tries.first
    return tuple(found)


def as_sample(given: Sample | Layer | tuple[Any, ...]) -> Sample:
    """Return a Sample, made from (layer, inputs) or from a layer, for which inputs are generated."""
    if isinstance(given, Sample):
        return given
    if isinstance(given, Layer):
        tries = _Tries()
        shapes = next(_inputs(given, tries), None)
        if shapes is None:
            raise NoSample(
                f"no inputs were found that {given} takes. Give Sample({given}, inputs)."
                f"{_what_was_raised(tries)}"
            ) from tries.first
        return Sample(given, shapes)
    layer, inputs = given
    return Sample(layer, inputs)


def samples_of(layer: Layer, tries: _Tries | None = None) -> Iterator[Sample]:
    """Generate the samples of a definition: one, or up to three if it takes any number of inputs."""
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
    """Combine the samples of the layers in a kernel's pattern."""
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
    """Make samples in which an optional field equals a required one of its type: stride = kernel_size."""
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
    """Yield all combinations of small values for the required fields."""
    required = cls.required()
    if not required:
        yield {}
        return
    properties = cls.schema().get("properties", {})
    choices = [list(_values(properties.get(name, {}))) for name in required]
    for values in itertools.product(*choices):
        yield dict(zip(required, values, strict=True))


def _values(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield values that a field's JSON Schema may accept."""
    if "const" in schema:
        yield schema["const"]
    yield from schema.get("enum", ())
    yield from _CANDIDATES.get(str(schema.get("type")), ())
    for option in schema.get("anyOf", ()):
        yield from _values(option)


def _variants(cls: type[Layer], config: Mapping[str, Any]) -> Iterator[Layer]:
    """Yield the layer with each optional boolean inverted."""
    for field in fields(cls):
        if isinstance(field.default, bool):
            try:
                yield cls(**config, **{field.name: not field.default})
            except DescriptionError:
                continue


def _inputs(layer: Layer, tries: _Tries) -> Iterator[tuple[Sequence[int], ...]]:
    """Yield tuples of shapes, one for each input, that the layer takes."""
    most = 1 if layer.signature.variadic else min(_MOST_INPUTS, len(layer.signature.tensors))
    for shape, count in itertools.product(_SHAPES, range(1, most + 1)):
        if _takes(layer, (Spec(shape, torch.float64),) * count, tries):
            yield (shape,) * count


def _takes(layer: Layer, specs: Sequence[Spec], tries: _Tries) -> bool:
    """Return whether the layer runs on these specs; raises NoSample if its code has a mistake."""
    try:
        ports = bind_inputs(layer, list(specs), torch.float64)
        observe(layer, "forward", ports.specs)
    except Exception as error:  # another shape may fit; if none does, this error is reported
        tried = f"{layer} on {', '.join(_shape(spec.shape) for spec in specs)}"
        if isinstance(error, LayerError):  # graphnet's own: the layer breaks its contract
            raise NoSample(f"{tried}: {error}") from error
        if isinstance(error, _FAULTS) and where(error):
            raise NoSample(f"{tried} raised {raised(error)}") from error
        tries.add(tried, error)
        return False
    return True


def _what_was_raised(tries: _Tries) -> str:
    return f" What was raised:{tries}" if str(tries) else ""


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
