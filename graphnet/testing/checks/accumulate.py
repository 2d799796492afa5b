"""Check that gradients are summed in a real plan in which two calls of a layer read the same values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphnet.description import expand
from graphnet.errors import CompileError
from graphnet.executors import Eager, Inductor, Reference
from graphnet.graph import SEED, STEP, Graph, Kind, Value, build
from graphnet.model import Builder
from graphnet.passes import differentiate
from graphnet.plan import Plan, schedule, verify
from graphnet.sdk import (
    Constant,
    Entry,
    Layer,
    ParameterSpec,
    Plugin,
    Registry,
    Run,
    Spec,
    Specs,
    random,
)
from graphnet.testing.case import Case, is_kernel
from graphnet.testing.check import check, slow_check
from graphnet.testing.compare import expect_close
from graphnet.testing.draw import draw
from graphnet.testing.leaves import floating, leaves
from graphnet.testing.outcome import NotApplicable


class Hold(Layer):
    """Returns a parameter of x's shape, so that the plan computes a gradient for it."""

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec]:
        return {"held": ParameterSpec(specs["x"].shape, Constant(0.0))}

    def forward(self, x: Tensor, held: Tensor) -> Tensor:
        return held.clone()

    def backward(self, grad_y: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(grad_y), grad_y


class Weigh(Layer):
    """sum(x * weight), 0-dim; the gradient of x is `weight`."""

    nondifferentiable: ClassVar[tuple[str, ...]] = ("weight",)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return (x * weight).sum()

    def backward(self, grad_y: Tensor, weight: Tensor) -> tuple[Tensor, None]:
        return grad_y * weight, None


class Sum(Layer):
    """The sum of 0-dim tensors."""

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.stack(xs).sum()

    def backward(self, grad_y: Tensor, specs: Specs) -> tuple[Tensor, ...]:
        return (grad_y,) * len(specs["xs"])


_OURS = {"kit/hold": Hold, "kit/weigh": Weigh, "kit/sum": Sum}


@check
def accumulates(case: Case) -> None:
    """If two calls in a plan share inputs and parameters, each gradient is the sum over both calls."""
    planned = _planned(case)
    for executor in (Reference(), Eager()):
        _compare(planned, executor.prepare(planned.plan), type(executor).__name__.lower())


@slow_check
def executors(case: Case) -> None:
    """The compiled plan of `accumulates` gives the same gradients."""
    planned = _planned(case)
    try:
        run = Inductor().prepare(planned.plan)
        _compare(planned, run, "inductor")
    except CompileError as error:
        raise NotApplicable(f"inductor cannot run here: {error}") from error


@dataclass(frozen=True, eq=False)
class _Planned:
    """A plan that calls a layer twice, its arguments, and each gradient's name and expected value."""

    plan: Plan
    given: Sequence[Tensor]
    names: Sequence[str]
    expected: Mapping[str, Tensor]


def _planned(case: Case) -> _Planned:
    case.require_backward()
    if is_kernel(case):
        raise NotApplicable("a plan has a kernel only in the place of its layers")
    tensors = leaves(case.arguments(), case.ports.inputs)
    moving = set(floating(case.arguments(), sorted(case.differentiable))) & set(tensors)
    if not moving:
        raise NotApplicable("the layer has no input with a gradient")
    weights = _weights(case)
    done = differentiate(_forward_graph(case, tensors, weights))
    graph = replace(done, outputs=tuple(done.gradients.values()))
    plan = schedule(graph)
    verify(graph, plan)
    given = [_value(case, plan.values[name], tensors, weights) for name in plan.arguments]
    held = {f"hold_{i}": leaf for i, leaf in enumerate(tensors) if leaf in moving}
    slots = [plan.values[name] for name in done.gradients]
    names = [held.get(slot.node, slot.port) for slot in slots]
    return _Planned(plan, given, names, _sums(case, weights))


def _compare(planned: _Planned, run: Run, executor: str) -> None:
    given = [tensor.clone() for tensor in planned.given]
    expect_close(
        dict(zip(planned.names, run(*given), strict=True)),
        planned.expected,
        what=f"in a plan under {executor} that calls the layer twice, the gradient is not the sum of "
        "both calls'",
        advice="Let forward and backward depend on their arguments alone, and return every gradient.",
        tolerance=1e-9,
    )


def _weights(case: Case) -> dict[str, Tensor]:
    """Draw the factors of each floating output of the two calls, by the names of the inputs."""
    outputs = case.outputs(case.forward(case.arguments()))
    return {
        f"w_{call}_{name}": draw(tuple(y.shape), f"{call} {name}", 3).to(y.dtype)
        for call in ("a", "b")
        for name, y in outputs.items()
    }


def _forward_graph(
    case: Case, tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> Graph:
    """Build a graph of two calls `a` and `b` on the same inputs, and the weighted sum of their outputs."""
    names = [*(f"i{i}" for i in range(len(tensors))), *weights]
    inputs: dict[str, Any] = dict.fromkeys(names)
    net = Builder(**inputs)
    given = dict(zip((*tensors, *weights), net.inputs, strict=True))
    held = [
        net("kit/hold", given[leaf], id=f"hold_{i}") if t.is_floating_point() else given[leaf]
        for i, (leaf, t) in enumerate(tensors.items())
    ]
    config = case.layer.configuration()
    calls = {"a": net(case.name, *held, id="a", **config)}
    share = calls["a"] if case.parameters else None
    calls["b"] = net(case.name, *held, id="b", share=share, **config)
    weighed = []
    for weight in weights:
        _, call, output = weight.split("_", 2)
        weighed.append(net("kit/weigh", calls[call][output], given[weight]))
    net.outputs(net("kit/sum", *weighed))
    specs = [Spec(tuple(t.shape), t.dtype) for t in (*tensors.values(), *weights.values())]
    network = expand(net.description(), _registry(case))
    return build(network, inputs=specs, dtype=torch.float64)


def _registry(case: Case) -> Registry:
    plugin = Plugin("kit", "graphnet-framework", "0")
    known = {**_OURS, case.name: type(case.layer)}  # here, a loss may be a node too
    ours = {name: Entry(name, layer, 1, plugin) for name, layer in known.items()}
    return replace(case.registry, layers=MappingProxyType({**case.registry.layers, **ours}))


def _value(
    case: Case, value: Value, tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> Tensor:
    """Return the tensor for one argument of the plan."""
    if value.label in weights:
        return weights[value.label]
    for i, tensor in enumerate(tensors.values()):
        if value.label == f"i{i}" or value.node == f"hold_{i}":
            return tensor
    if value.kind is Kind.SCALAR:
        return torch.tensor({SEED: 5, STEP: 2}[value.name])
    if value.kind is Kind.CONSTANT:
        assert value.initializer is not None
        return value.initializer(value.spec.empty(), torch.Generator())
    argument: Tensor = case.arguments()[value.port]
    return argument


def _sums(case: Case, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute the gradients of each call alone, and return their sums."""
    total: dict[str, Tensor] = {}
    for call in ("a", "b"):
        arguments = case.arguments()
        seed, step = torch.tensor(5), torch.tensor(2)
        arguments["key"] = random.key(seed, step, random.node_constant(call))
        results = case.forward(arguments)
        grads = case.grads(results)
        for name in case.outputs(results):
            grads[f"grad_{name}"] = weights[f"w_{call}_{name}"]
        gradients = case.backward(arguments, results, grads)
        for leaf, gradient in floating(gradients, sorted(case.differentiable)).items():
            total[leaf] = total[leaf] + gradient if leaf in total else gradient
    return total
