"""Cost: floating-point operations and bytes of a layer, counted, and compared with what it declares.

A multiply-add is 2 operations. Matrix products and convolutions are counted by torch's formulas, an
elementwise operator as one operation for each element of its result, a reduction as one for each
element that it reads; moving and copying count nothing. Bytes are those of the arguments that are read
and the results that are written, each once: what no implementation can avoid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from graphnet.layer import Layer
from graphnet.observe import META, as_tuple, call_by_name, gradient_names
from graphnet.spec import Spec
from graphnet.testing.case import Case
from graphnet.testing.check import CheckFailure, NotApplicable, check
from graphnet.testing.leaves import Named, leaves, specs_of
from graphnet.testing.watch import Operation, operations_of, tensors_in

_aten = torch.ops.aten
_MOVES = frozenset(
    {_aten.clone, _aten.copy_, _aten._to_copy, _aten.fill_, _aten.fill, _aten.masked_fill}
    | {_aten.where, _aten.zeros_like, _aten.ones_like, _aten.full_like}
)
_ADDS = frozenset({_aten.col2im})  # it adds what it moves, one for each element that it reads


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call takes: floating-point operations, bytes read and written."""

    flops: int
    read_bytes: int
    written_bytes: int

    def __str__(self) -> str:
        return f"{self.flops} FLOPs, {self.read_bytes} bytes read, {self.written_bytes} written"


@dataclass(frozen=True, slots=True)
class LayerCost:
    """The cost of forward and, where there is one, of backward with every gradient wanted."""

    forward: Cost
    backward: Cost | None

    def __str__(self) -> str:
        return f"forward {self.forward}; backward {self.backward or 'none'}"


def observed_cost(layer: Layer, specs: Mapping[str, Any]) -> LayerCost:
    """Count on meta tensors, for arguments of these specs (as `ports.specs`: parameters included).

    >>> from graphnet.calls import Accumulate
    >>> observed_cost(Accumulate(), {"xs": (Spec((2, 3)), Spec((2, 3)))}).forward
    Cost(flops=6, read_bytes=48, written_bytes=24)
    """
    named = {name: _empty(spec) for name, spec in specs.items()}
    named["key"] = torch.empty(2, dtype=torch.int32, device=META)
    values = {**named, "specs": specs_of(named)}
    forward_values = {name: values[name] for name in layer.signature.forward}
    returned: list[Any] = []

    def forward() -> None:
        returned.extend(as_tuple(call_by_name(layer, "forward", forward_values)))

    with torch.no_grad():
        forward_cost = _cost(forward, forward_values, returned)
        if not layer.signature.backward:
            return LayerCost(forward_cost, None)
        results = dict(zip(layer.outputs + layer.saves, returned, strict=False))
        return LayerCost(forward_cost, _backward_cost(layer, named, results))


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
    returned: list[Any] = []

    def backward() -> None:
        returned.extend(as_tuple(layer.backward(**asked)))

    return _cost(backward, asked, returned)


def _cost(call: Callable[[], None], given: Named, returned: list[Any]) -> Cost:
    flops = sum(map(_flops, operations_of(call)))
    read = sum(tensor.nbytes for tensor in leaves(given).values())
    written = sum(tensor.nbytes for tensor in tensors_in(returned))
    return Cost(flops, read, written)


def _empty(spec: Any) -> Any:
    if isinstance(spec, tuple):
        return tuple(map(_empty, spec))
    return spec.on(META).empty() if isinstance(spec, Spec) else None


def _flops(operation: Operation) -> int:
    packet = operation.operator._overloadpacket
    if packet in flop_registry:
        formula = flop_registry[packet]
        return int(formula(*operation.arguments, **operation.options, out_val=operation.returned))
    if packet in _MOVES or operation.operator.is_view:
        return 0
    made = sum(tensor.numel() for tensor in operation.tensors() if tensor.is_floating_point())
    read = [tensor.numel() for tensor in tensors_in(operation.arguments)]
    if "reduction" in operation.tags or packet in _ADDS:
        return max(read, default=0)
    pointwise = "pointwise" in operation.tags or "inplace" in operation.tags
    return made if pointwise and read else 0


@check
def cost(case: Case) -> None:
    """A declared `cost` is within 10 % of the operations that are counted."""
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
