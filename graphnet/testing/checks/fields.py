"""Check that every field of the configuration changes something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphnet.sdk import Layer
from graphnet.testing.case import Case, is_kernel
from graphnet.testing.check import check
from graphnet.testing.compare import same_bits
from graphnet.testing.leaves import leaves
from graphnet.testing.outcome import CheckFailure, NotApplicable
from graphnet.testing.vary import changed, other_values


@check
def fields_matter(case: Case) -> None:
    """Every field that the kit can vary changes parameters, results or gradients, or what is refused."""
    if is_kernel(case):
        raise NotApplicable("no description names a kernel")
    names = case.layer.field_names()
    if not names:
        raise NotApplicable("the layer has no field")
    siblings = [one for one in case.siblings or (case,) if one.usable and one.raises is None]
    if case.layer != siblings[0].layer:
        raise NotApplicable("the fields of the first sample are changed")
    for name in names:
        if not any(_matters(one, name) for one in siblings):
            raise CheckFailure(
                f"expected the field {name!r} to change something, found the same parameters, results and "
                f"gradients for {_told(case, name)}. Use self.{name}, or take the field out."
            )


def _told(case: Case, name: str) -> str:
    values = [getattr(case.layer, name), *other_values(case.layer, name, case.inputs)]
    return ", ".join(map(repr, values[:4]))


def _matters(case: Case, name: str) -> bool:
    """Whether another value of a field changes something; a field that cannot be varied does."""
    values = other_values(case.layer, name, case.inputs)
    expected = None
    for value in values:
        layer = changed(case.layer, {name: value})
        if layer is None:
            continue  # the type refuses it
        if getattr(layer, name) == getattr(case.layer, name):
            continue
        in_parts = isinstance(layer, Layer) and layer.across_processes() is not None
        if in_parts != (case.layer.across_processes() is not None):
            return True  # it says what several processes compute
        expected = expected or _everything(case)
        try:
            found = _everything(_with(case, layer))
        except Exception:  # the value is refused, or does not fit these inputs
            return True
        if not _same(found, expected):
            return True
    return expected is None


def _with(case: Case, layer: Any) -> Case:
    return Case(layer, case.name, case.inputs, case.registry)


def _everything(case: Case) -> Sequence[Tensor]:
    """Return all tensors that a layer starts from and computes, for one draw."""
    arguments = case.arguments()
    results = case.forward(arguments)
    found = [*leaves(arguments).values(), *leaves(results).values()]
    slots = {**case.ports.parameters, **case.ports.states}
    for spec in slots.values():
        if spec is not None:
            empty = torch.empty(spec.shape, dtype=torch.float64)
            found.append(spec.initializer(empty, torch.Generator().manual_seed(0)))
    if case.trainable:
        found += leaves(case.backward(arguments, results, case.grads(results))).values()
    if case.layer.signature.inference:
        found += leaves(case.inference(arguments)).values()
    return found


def _same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return len(found) == len(expected) and all(map(same_bits, found, expected))
