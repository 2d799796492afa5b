"""Contributions: the uses of a value in a training plan, whose gradients add up to the value's gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphnet.graph import Call, Const, Kind, flatten, gradient_names, gradients_are_bare, spec_of
from graphnet.plan import Plan
from graphnet.sdk import Constant, Layer, MultiTensorKernel


@dataclass(frozen=True, slots=True)
class Use:
    """A use of a value: the backward call, the gradient that it returns, and the gradients that it reads."""

    call: Call
    gradient: str
    outputs: Mapping[str, str]  # the gradient that backward reads -> the output that it belongs to


def uses_of(plan: Plan) -> dict[str, list[Use]]:
    """Return for each value its uses, as the backward calls of the plan state them."""
    calls = {step.call.name: step.call.pure() for step in plan.steps}
    forward = {
        name: call.ports()
        for name, call in calls.items()
        if isinstance(call.layer, Layer) and call.method == "forward"
    }
    copies = _gathered_casts(calls.values())
    for copy, source in copies.items():  # as if each parameter had a cast of its own
        forward[plan.values[copy].node] = {"x": source, "y": copy}
    found: dict[str, list[Use]] = {}
    for call in calls.values():
        if call.kind is not Kind.BACKWARD:
            continue
        layer = call.layer
        assert isinstance(layer, Layer)
        ports = forward[call.backward_of]
        given = dict(zip(layer.signature.backward, call.args, strict=True))
        outputs = {}
        for name in layer.outputs:
            gradient = given.get(f"grad_{name}")
            # The gradient of an unused output is zeros or None: no path goes through it.
            if isinstance(gradient, str) and plan.values[gradient].initializer != Constant(0.0):
                outputs[gradient] = str(ports[name])
        specs = {name: spec_of(ports[name], plan.values) for name in layer.signature.tensors}
        names = gradient_names(layer, specs)
        results = (call.results,) if gradients_are_bare(layer, specs) else call.results
        for name, result in zip(names, results, strict=True):
            port = ports[name]
            if isinstance(port, Const):
                continue
            values = port if isinstance(port, tuple) else (port,)
            gradients = result if isinstance(result, tuple) else (result,)
            for value, one in zip(values, gradients, strict=False):
                if isinstance(one, str):
                    found.setdefault(value, []).append(Use(call, one, outputs))
    for copy, source in copies.items():
        if copy in found:  # without a cast back the update itself reads the copy's gradient
            found.setdefault(source, found[copy])
    return found


def _gathered_casts(calls: Iterable[Call]) -> dict[str, str]:
    """Map the results of the calls that cast many parameters at once to the parameters."""
    return {
        copy: source
        for call in calls
        if isinstance(call.layer, MultiTensorKernel) and call.kind is Kind.LAYER
        for copy, source in zip(call.results, flatten(call.args), strict=True)
        if isinstance(copy, str)
    }
