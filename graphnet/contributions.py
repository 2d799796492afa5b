"""Contributions: which uses of a value its gradient is the sum of, read off a training plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphnet.graph import Arg, Call, Const, Kind, flatten
from graphnet.layer import Layer
from graphnet.multitensor import MultiTensorKernel
from graphnet.observe import gradient_names
from graphnet.plan import Plan
from graphnet.spec import Constant


@dataclass(frozen=True, slots=True)
class Use:
    """A use of a value: the backward call, the gradient it returns for it, its outputs' gradients."""

    call: Call
    gradient: str
    outputs: Mapping[str, str]  # the gradient value that backward reads -> the output's value


def uses_of(plan: Plan) -> dict[str, list[Use]]:
    """Value -> its uses whose gradients add up to its own, as the backward calls state them."""
    calls = {step.call.name: step.call.pure() for step in plan.steps}
    found: dict[str, list[Use]] = {}
    for call in calls.values():
        if call.kind is not Kind.BACKWARD or call.name.removesuffix(":backward") not in calls:
            continue  # the other way round of a cast that was gathered with others
        layer = call.layer
        assert isinstance(layer, Layer)
        ports = calls[call.name.removesuffix(":backward")].ports()
        given = dict(zip(layer.signature.backward, call.args, strict=True))
        outputs = {}
        for name in layer.outputs:
            gradient = given.get(f"grad_{name}")
            # An output that nobody used has zeros or None for its gradient: no path goes there.
            if isinstance(gradient, str) and plan.values[gradient].initializer != Constant(0.0):
                outputs[gradient] = str(ports[name])
        specs = {name: _spec(plan, ports[name]) for name in layer.signature.tensors}
        names = gradient_names(layer, specs)
        alone = names == (layer.signature.variadic,)  # then its gradients are the bare results
        results = (call.results,) if alone else call.results
        for name, result in zip(names, results, strict=True):
            port = ports[name]
            if isinstance(port, Const):
                continue
            values = port if isinstance(port, tuple) else (port,)
            gradients = result if isinstance(result, tuple) else (result,)
            for value, one in zip(values, gradients, strict=False):
                if isinstance(one, str):
                    found.setdefault(value, []).append(Use(call, one, outputs))
    for call in calls.values():
        if isinstance(call.layer, MultiTensorKernel) and call.kind is not Kind.UPDATE:
            casts = zip(flatten(call.args), call.results, strict=True)
            found |= {source: found[copy] for source, copy in casts if copy in found}
    return found


def _spec(plan: Plan, arg: Arg) -> Any:
    if isinstance(arg, Const):
        return None
    if isinstance(arg, tuple):
        return tuple(plan.values[name].spec for name in arg)
    return plan.values[arg].spec
