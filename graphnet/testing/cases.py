"""Cases: make the cases of a layer, kernel or optimizer from samples, and vary the fields of its class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from graphnet.sdk import (
    KINDS,
    Definition,
    Entry,
    Kernel,
    Layer,
    MultiTensorKernel,
    Optimizer,
    Plugin,
    Registry,
    registry_or_default,
)
from graphnet.testing.blocks import in_plain_layout
from graphnet.testing.case import Case
from graphnet.testing.expression import CPU, expression_for
from graphnet.testing.outcome import CheckFailure
from graphnet.testing.rule_case import RuleCase, rule_cases, varied_rules
from graphnet.testing.sample import Sample
from graphnet.testing.samples import as_sample, samples_for, samples_of
from graphnet.testing.vary import Fields, fields_of, varied

Given = Sequence[Any]
"""Samples: Sample objects, layers or (layer, inputs); for optimizers and their kernels, optimizers."""

CHECKED_KINDS = tuple(
    kind
    for kind in KINDS.values()
    if any(issubclass(base, (Layer, Optimizer, MultiTensorKernel)) for base in kind.bases)
)
"""The kinds of plugin that the kit has checks for."""


def checked_kinds() -> str:
    """Return the kinds that the kit has checks for, in words.

    >>> checked_kinds()
    'layer, loss, kernel or optimizer'
    """
    *most, last = (kind.singular for kind in CHECKED_KINDS)
    return f"{', '.join(most)} or {last}"


def of_rules(cls: type) -> bool:
    """Whether the checks of optimizers apply to a class, not those of layers."""
    return issubclass(cls, (Optimizer, MultiTensorKernel))


def cases_for(
    target: Definition | type[Definition],
    samples: Given | None = None,
    *,
    registry: Registry | None = None,
) -> Sequence[Case | RuleCase]:
    """Make the cases of a target: one for each sample.

    Raises NoSample if no sample can be made, CheckFailure if a kernel matches none of the samples.

    >>> from graphnet.builtin import ReLU
    >>> from graphnet.testing import Sample
    >>> [case.name for case in cases_for(ReLU(), [Sample(ReLU(), [(2, 3)])])]
    ['relu']
    """
    return _made(target, samples, registry)[0]


def varied_cases_for(
    target: Definition | type[Definition],
    samples: Given | None = None,
    *,
    registry: Registry | None = None,
) -> tuple[Sequence[Case | RuleCase], Fields]:
    """Make the cases of a target, and further ones in which the fields of its class have other values.

    Returns:
        The cases, and what was tried for each field.

    >>> from graphnet.builtin import Conv2d
    >>> cases, fields = varied_cases_for(Conv2d)
    >>> fields["bias"].values
    (True, False)
    """
    cases, given = _made(target, samples, registry)
    cls = target if isinstance(target, type) else type(target)
    if issubclass(cls, MultiTensorKernel):
        return cases, {}
    if of_rules(cls):
        rules = varied_rules([case.rule for case in cases if isinstance(case, RuleCase)])
        cases = (*cases, *(RuleCase(rule, varied=True) for rule in rules))
        made: Sequence[Any] = [case.rule for case in cases if isinstance(case, RuleCase)]
        return cases, fields_of(cls, made)
    if issubclass(cls, Kernel):
        return cases, {}
    assert issubclass(cls, Layer)
    more = varied(cls, [sample for sample in given if sample.raises is None])
    first = cases[0]
    assert isinstance(first, Case)
    further = _cases(cls, first.name, more.samples, first.registry)
    whole = [case for case in cases if isinstance(case, Case)]
    whole += [replace(case, varied=True) for case in further]
    tried = [case.layer for case in whole if case.raises is None]
    siblings = tuple(whole)
    found = tuple(replace(case, siblings=siblings) for case in whole)
    return found, fields_of(cls, tried, more.refused)


def _made(
    target: Definition | type[Definition], samples: Given | None, registry: Registry | None
) -> tuple[Sequence[Case | RuleCase], Sequence[Sample]]:
    """Make the cases of a target, and return the samples too."""
    cls = target if isinstance(target, type) else type(target)
    if of_rules(cls):
        return rule_cases(target, samples), ()
    if not issubclass(cls, Layer):
        raise CheckFailure(
            f"expected a {checked_kinds()}, found {cls.__name__}: the kit has no checks for it"
        )
    registry = registry_or_default(registry)
    if samples is not None:
        given = tuple(as_sample(sample) for sample in samples)
    elif isinstance(target, Layer) and not isinstance(target, Kernel):
        given = tuple(samples_of(target)) or (as_sample(target),)
    else:
        given = samples_for(cls, registry)
    name = registry.name_of(cls)
    if registry.entry_of(cls) is None:
        name, registry = f"check/{cls.__name__.lower()}", _with(registry, cls)
    found = tuple(_cases(cls, name, given, registry))
    if issubclass(cls, Kernel) and not found:
        found = _of_absent_device(cls, name, given, registry)
    return tuple(replace(case, siblings=found) for case in found), given


def _cases(
    cls: type[Layer],
    name: str,
    samples: Iterable[Sample],
    registry: Registry,
    *,
    device: torch.device = CPU,
) -> Iterator[Case]:
    for sample in samples:
        inputs = tuple(x if isinstance(x, Tensor) else tuple(x) for x in sample.inputs)
        if not issubclass(cls, Kernel):
            if not isinstance(sample.layer, Layer):
                raise CheckFailure(
                    f"expected one layer in a sample of {cls.__name__}, found a tuple"
                )
            yield Case(
                sample.layer,
                name,
                inputs,
                registry,
                raises=sample.raises,
                skip=sample.skip,
                expected=sample.expected,
                starts=sample.starts,
            )
            continue
        layers = sample.layer if isinstance(sample.layer, tuple) else (sample.layer,)
        expression = expression_for(cls, layers)
        specs = Case(layers[0], name, inputs, registry).input_specs()
        kernel = expression.match(cls, specs, device=device)
        if kernel is not None:
            kernel = in_plain_layout(kernel)
            yield Case(kernel, name, inputs, registry, expression=expression, skip=sample.skip)


def _of_absent_device(
    cls: type[Kernel], name: str, samples: Sequence[Sample], registry: Registry
) -> tuple[Case, ...]:
    """Make cases that cannot run here, for a kernel that matches on CUDA only; raises CheckFailure else."""
    if not torch.cuda.is_available():
        found = tuple(_cases(cls, name, samples, registry, device=torch.device("cuda")))
        if found:
            reason = "the kernel takes nothing on the CPU, and there is no CUDA device"
            return tuple(replace(case, untried=reason) for case in found)
    raise CheckFailure(
        f"expected {cls.__name__}.match to accept one of {len(samples)} samples, found that it "
        f"returns None for all, on the CPU and on CUDA. Give a sample that it is made for, and let "
        f"match judge by `site` alone."
    )


def _with(registry: Registry, cls: type[Layer]) -> Registry:
    """Return the registry with one more layer, which no plugin has registered."""
    name = f"check/{cls.__name__.lower()}"
    kind = next(kind.name for kind in KINDS.values() if kind.fits(cls))
    entry = Entry(name, cls, 1, Plugin("check", "the layer under test", "0"))
    changed: Any = {kind: MappingProxyType({**registry.of_kind(kind), name: entry})}
    return replace(registry, **changed)
