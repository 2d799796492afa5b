"""Expression: compute what a kernel replaces with the layers in its pattern, forward and backward.

The results are the expected values for the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import ContractError, GraphError
from graphnet.graph import (
    Bound,
    Ports,
    bind_inputs,
    gradient_names,
    invoke,
    observe,
)
from graphnet.sdk import (
    CHAIN,
    Kernel,
    Layer,
    ParameterSpec,
    Pattern,
    Site,
    Spec,
    StateSpec,
    layer_names,
)
from graphnet.testing.leaves import Named, specs_of
from graphnet.testing.outcome import NotApplicable

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Node:
    """One layer of the expression; its arguments are names or other nodes.

    A layer of a chain has one argument, its input; it takes its parameters from the tuple `parameters`.
    """

    layer: Layer
    arguments: tuple[Node | str, ...]
    parameters: str = ""

    @property
    def spread(self) -> bool:
        """Whether the pattern lists the single arguments of the layer's `*xs`."""
        return bool(self.layer.signature.variadic) and len(self.arguments) > 1


class Expression:
    """A tree of a pattern's layers, which are given outermost first, with the pattern's names as leaves.

    Raises ContractError if the number of layers is not that of the pattern.
    """

    def __init__(self, pattern: Pattern, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.chained = len(self.layers) - len(list(layer_names(pattern)))
        remaining = iter(self.layers)
        root = self._node(pattern, remaining)
        if isinstance(root, str) or next(remaining, None) is not None:
            raise ContractError(
                f"the pattern {pattern} has fewer layers than the {len(layers)} given"
            )
        self.root = root

    def _node(self, pattern: Pattern, remaining: Iterator[Layer]) -> Node | str:
        if isinstance(pattern, str):
            return pattern
        if pattern[0] == CHAIN:
            _, x, parameters = pattern
            return self._chain(x, parameters, [next(remaining) for _ in range(self.chained)])
        layer = next(remaining, None)
        if layer is None:
            raise ContractError(f"no layer is given for {pattern[0]!r} in the kernel's pattern")
        return Node(layer, tuple(self._node(part, remaining) for part in pattern[1:]))

    def _chain(self, x: str, parameters: str, layers: Sequence[Layer]) -> Node | str:
        """Make the nodes of a chain from its layers, the outermost first."""
        node: Node | str = x
        for layer in reversed(layers):
            node = Node(layer, (node,), parameters)
        return node

    def ports(self, inputs: Sequence[Spec], dtype: torch.dtype) -> Ports:
        """Return the pattern's inputs, parameters and states; raises GraphError if shapes do not fit."""
        binder = _Binder(list(inputs), dtype)
        binder.spec(self.root)
        if binder.inputs:
            raise GraphError(f"the kernel's pattern leaves {len(binder.inputs)} inputs unused")
        return Ports(
            tuple(binder.taken),
            MappingProxyType(binder.parameters),
            MappingProxyType(binder.states),
            MappingProxyType(binder.specs),
        )

    def match(
        self, kernel: type[Kernel], inputs: Sequence[Spec], *, device: torch.device = CPU
    ) -> Kernel | None:
        """Return the kernel's instance for these inputs on a device; None if the kernel does not match."""
        specs: dict[str, Any] = dict(self.ports(inputs, inputs[0].dtype).specs)
        on_device = {
            name: spec.on(device) if isinstance(spec, Spec) else spec
            for name, spec in specs.items()
        }
        return kernel.match(Site(self.layers, MappingProxyType(on_device), device))

    def run(
        self, arguments: Named, grads: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Named, Named]:
        """Return the outputs, the gradients by name, and the new states by name; `grads` are the outputs'."""
        evaluation = _Evaluation(arguments)
        outputs = evaluation.forward(self.root)
        evaluation.backward(self.root, grads)
        for name, own in evaluation.chained.items():
            evaluation.gradients[name] = tuple(evaluation.gradients.pop(one) for one in own)
        return outputs, evaluation.gradients, evaluation.states

    def predict(self, arguments: Named) -> tuple[Tensor, ...]:
        """Return the outputs for inference."""
        return _Evaluation(arguments).inference(self.root)


def expression_for(kernel: type[Kernel], layers: Sequence[Layer]) -> Expression:
    """Make the expression that a kernel replaces, from these layers."""
    return Expression(kernel.pattern, layers)


@dataclass
class _Binder:
    """Finds the spec of each name in the pattern; inputs are taken in the order in which they occur."""

    inputs: list[Spec]
    dtype: torch.dtype
    taken: dict[str, None] = field(default_factory=dict)
    parameters: dict[str, ParameterSpec | None] = field(default_factory=dict)
    states: dict[str, StateSpec] = field(default_factory=dict)
    specs: dict[str, Bound] = field(default_factory=dict)

    def spec(self, node: Node) -> Spec:
        """Return the spec of a node's first output, and bind the names below the node."""
        names = node.layer.signature.tensors
        if node.parameters:
            return observe(node.layer, "forward", self.link(node).specs)[0].spec
        if node.spread:
            return observe(node.layer, "forward", self.bind(node).specs)[0].spec
        if len(names) != len(node.arguments):
            raise ContractError(
                f"the pattern gives {type(node.layer).__name__} {len(node.arguments)} arguments, "
                f"its forward takes {', '.join(names)}"
            )
        ports = self.bind(node)
        for name, argument in list(zip(names, node.arguments, strict=True))[len(ports.inputs) :]:
            if not isinstance(argument, str):
                raise NotApplicable(f"the pattern computes {name!r} of a layer")
            if name in ports.states:
                self.states[argument] = ports.states[name]
            else:
                self.parameters[argument] = ports.parameters[name]
            self.specs[argument] = ports.specs[name]
        return observe(node.layer, "forward", ports.specs)[0].spec

    def link(self, node: Node) -> Ports:
        """Take the next inputs as the parameters of a layer of a chain."""
        (argument,) = node.arguments
        given = self.spec(argument) if isinstance(argument, Node) else self.leaf(argument)
        ports = bind_inputs(node.layer, [given], self.dtype)
        self.taken[node.parameters] = None
        own = []
        for name in (name for name, spec in ports.parameters.items() if spec is not None):
            own.append(self.next(node.parameters))
            if own[-1].shape != ports.specs[name].shape:  # type: ignore[union-attr]
                raise GraphError(f"{name!r} of {node.layer} cannot be {own[-1]}")
        known = self.specs.get(node.parameters, ())
        assert isinstance(known, tuple)
        self.specs[node.parameters] = (*known, *own)
        return ports

    def bind(self, node: Node) -> Ports:
        """Find out how many inputs the layer takes, and return its ports for them."""
        if node.spread:
            spelled_out = tuple(
                self.spec(argument) if isinstance(argument, Node) else self.leaf(argument)
                for argument in node.arguments
            )
            return bind_inputs(node.layer, spelled_out, self.dtype)
        if node.layer.signature.variadic:
            (name,) = node.arguments
            specs = tuple(self.inputs)
            self.inputs.clear()
            self.taken[str(name)] = None
            self.specs[str(name)] = specs
            return bind_inputs(node.layer, specs, self.dtype)
        given: list[Spec] = []
        for argument in node.arguments:
            given.append(self.spec(argument) if isinstance(argument, Node) else self.leaf(argument))
            try:
                return bind_inputs(node.layer, given, self.dtype)
            except GraphError:
                if len(given) == len(node.arguments):
                    raise
        raise ContractError(f"{type(node.layer).__name__} in the pattern has no input")

    def next(self, name: str) -> Spec:
        if not self.inputs:
            raise GraphError(f"no input is given for {name!r} of the kernel's pattern")
        return self.inputs.pop(0)

    def leaf(self, name: str) -> Spec:
        if name not in self.specs:
            self.specs[name] = self.next(name)
            self.taken[name] = None
        spec = self.specs[name]
        assert isinstance(spec, Spec)
        return spec


class _Evaluation:
    """One evaluation: the arguments and results of each node, the gradients and new states by name."""

    def __init__(self, arguments: Named) -> None:
        self.arguments = arguments
        self.values: dict[Node, Named] = {}
        # Each parameter of a chain has its own name; `owned` maps the ports of a layer to these names.
        self.chained: dict[str, list[str]] = {}
        self.owned: dict[Node, dict[str, str]] = {}
        self.gradients: Named = {}
        self.states: Named = {}

    def forward(self, node: Node) -> tuple[Tensor, ...]:
        layer = node.layer
        named = self.named(node, self.forward)
        results = invoke(layer, "forward", named)
        saved = len(layer.outputs + layer.saves)
        named |= zip(layer.outputs + layer.saves, results[:saved], strict=True)
        whole = not node.spread and not node.parameters
        kept_in = dict(zip(layer.signature.tensors, node.arguments, strict=whole))
        for state, moved in zip(layer.updates, results[saved:], strict=True):
            self.states[f"{kept_in[state]}_next"] = moved
        self.values[node] = named
        return results[: len(layer.outputs)]

    def inference(self, node: Node) -> tuple[Tensor, ...]:
        method = "inference" if node.layer.signature.inference else "forward"
        results = invoke(node.layer, method, self.named(node, self.inference))
        return results[: len(node.layer.outputs)]

    def named(self, node: Node, evaluate: Callable[[Node], tuple[Tensor, ...]]) -> Named:
        """Return a node's arguments by the names that its layer uses."""
        layer = node.layer
        if "key" in layer.signature.forward:
            raise NotApplicable("the pattern holds a random layer")
        given = [
            evaluate(part)[0] if isinstance(part, Node) else self.arguments[part]
            for part in node.arguments
        ]
        if node.parameters:
            return self.link(node, *given)
        bound = [tuple(given)] if node.spread else given
        named: Named = dict(zip(layer.signature.tensors, bound, strict=True))
        named["specs"] = specs_of(named)
        return named

    def link(self, node: Node, x: Tensor) -> Named:
        """Return the arguments of a layer of a chain: its input, and the next parameters of the chain."""
        port = next(iter(node.layer.signature.tensors))
        declared = node.layer.parameters(specs_of({port: x}))
        names = self.chained.setdefault(node.parameters, [])
        named: Named = dict.fromkeys(declared)
        self.owned[node] = {}
        for parameter in (name for name, spec in declared.items() if spec is not None):
            named[parameter] = self.arguments[node.parameters][len(names)]
            self.owned[node][parameter] = f"{node.parameters}[{len(names)}]"
            names.append(self.owned[node][parameter])
        named = {port: x, **named}
        named["specs"] = specs_of(named)
        return named

    def backward(self, node: Node, grads: Sequence[Tensor]) -> None:
        """Compute the gradients of a node's arguments; the gradients of unused outputs are zeros."""
        layer, named = node.layer, dict(self.values[node])
        for i, output in enumerate(layer.outputs):
            y = named[output]
            named[f"grad_{output}"] = grads[i] if i < len(grads) else torch.zeros_like(y)
        names = gradient_names(layer, {n: named[n] for n in layer.signature.tensors})
        differentiable = (n for n in names if n not in layer.nondifferentiable)
        named["wanted"] = frozenset(n for n in differentiable if named[n] is not None)
        named["specs"] = specs_of(self.values[node])
        results = dict(zip(names, invoke(layer, "backward", named), strict=True))
        if node.spread:
            assert layer.signature.variadic is not None
            for argument, gradient in zip(
                node.arguments, results[layer.signature.variadic], strict=True
            ):
                self.send(argument, gradient)
            return
        reached = dict(zip(layer.signature.tensors, node.arguments, strict=not node.parameters))
        for name, argument in (reached | self.owned.get(node, {})).items():
            if name in named["wanted"]:
                self.send(argument, results[name])

    def send(self, argument: Node | str, gradient: Any) -> None:
        if isinstance(argument, Node):
            self.backward(argument, (gradient,))
        elif argument in self.gradients:
            self.gradients[argument] = self.gradients[argument] + gradient
        else:
            self.gradients[argument] = gradient
