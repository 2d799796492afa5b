"""Cost: count the operations and bytes of forward and backward, and compare them with the declared cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from graphnet.graph import META, Cost, count, gradient_names, invoke
from graphnet.sdk import Layer, Spec
from graphnet.testing.case import Case
from graphnet.testing.check import check
from graphnet.testing.leaves import Named, leaves, specs_of
from graphnet.testing.outcome import CheckFailure, NotApplicable


@dataclass(frozen=True, slots=True)
class LayerCost:
    """The cost of forward, and of backward with all gradients; None if there is no backward.

    >>> LayerCost(forward=Cost(flops=2), backward=None).forward.flops
    2
    """

    forward: Cost
    backward: Cost | None

    def __str__(self) -> str:
        return f"forward {self.forward}; backward {self.backward or 'none'}"


def observed_cost(layer: Layer, specs: Mapping[str, Any]) -> LayerCost:
    """Count the cost of a layer on meta tensors of these specs, those of the parameters included.

    >>> from graphnet.sdk.intrinsics import Accumulate
    >>> observed_cost(Accumulate(), {"xs": (Spec((2, 3)), Spec((2, 3)))}).forward
    Cost(flops=6, bytes_read=48, bytes_written=24, peak_bytes=0)
    """
    named = {name: _empty(spec) for name, spec in specs.items()}
    named["key"] = torch.empty(2, dtype=torch.int32, device=META)
    values = {**named, "specs": specs_of(named)}
    asked = {name: values[name] for name in layer.signature.forward}
    returned, forward = count(lambda: invoke(layer, "forward", values), leaves(asked).values())
    if not layer.signature.backward:
        return LayerCost(forward, None)
    results = dict(zip(layer.outputs + layer.saves, returned, strict=False))
    return LayerCost(forward, _backward_cost(layer, named, results))


def _backward_cost(layer: Layer, named: Named, results: Named) -> Cost:
    specs = specs_of(named)
    wanted = frozenset(
        name
        for name in gradient_names(layer, {n: specs[n] for n in layer.signature.tensors})
        if name not in layer.nondifferentiable and named[name] is not None
    )
    grads = {f"grad_{name}": torch.empty_like(results[name]) for name in layer.outputs}
    values = {**named, **results, **grads, "wanted": wanted}
    values["specs"] = specs_of({**named, **results})
    asked = {name: values[name] for name in layer.signature.backward}
    return count(lambda: invoke(layer, "backward", values), leaves(asked).values())[1]


def _empty(spec: Any) -> Any:
    if isinstance(spec, tuple):
        return tuple(map(_empty, spec))
    return spec.on(META).empty() if isinstance(spec, Spec) else None


@check
def cost(case: Case) -> None:
    """A declared `cost` differs by at most 10 % from the counted operations."""
    declare = getattr(case.layer, "cost", None)
    specs = case.ports.specs
    counted = observed_cost(case.layer, specs)
    if declare is None:
        raise NotApplicable(f"the layer declares none; counted for {case}: {counted}")
    declared = declare(specs)
    stated = declared if isinstance(declared, Mapping) else {"forward": declared}
    for method, flops in stated.items():
        part = {"forward": counted.forward, "backward": counted.backward}.get(method)
        if part is None:
            raise CheckFailure(f"expected costs of forward and backward, found one of {method!r}")
        if not math.isclose(float(flops), part.flops, rel_tol=0.1):
            raise CheckFailure(
                f"expected {method} to take {part.flops} floating-point operations, as counted, found "
                f"{flops} declared. A multiply-add is 2; or declare no cost."
            )
