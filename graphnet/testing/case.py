"""Case: a layer with sample inputs, and the calls that checks make of it.

All numbers are drawn from a seed, in float64 on the CPU, and converted afterwards, so every dtype and
device sees the same values. Inputs keep away from multiples of one half, where kinks usually are.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import LayerError
from graphnet.graph import Ports, as_tuple, bind_inputs, gradient_names, invoke
from graphnet.sdk import Kernel, Layer, ParameterSpec, Registry, Spec, StateSpec, random
from graphnet.testing.check import Check, undisturbed
from graphnet.testing.draw import draw, generator
from graphnet.testing.expression import CPU, Expression
from graphnet.testing.leaves import Named, floating, specs_of
from graphnet.testing.outcome import NotApplicable
from graphnet.testing.sample import Input


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward and backward: what went in and what came out, by name."""

    arguments: Named
    results: Named
    grads: Named
    gradients: Named


@dataclass(frozen=True, eq=False)
class Case:
    """A layer definition with sample inputs; everything that a check needs to run it.

    `name` is the layer's name in `registry`. For a kernel, `expression` is what it replaces.
    `siblings` are all cases of the same class.
    """

    layer: Layer
    name: str
    inputs: tuple[Input, ...]
    registry: Registry
    expression: Expression | None = None
    raises: type[Exception] | None = None
    skip: Mapping[str, str] = field(default_factory=dict)
    siblings: tuple[Case, ...] = ()

    def __str__(self) -> str:
        shapes = ", ".join(
            "x".join(map(str, x.shape if isinstance(x, Tensor) else x)) for x in self.inputs
        )
        layer = ", ".join(map(str, self.expression.layers)) if self.expression else self.layer
        return f"{layer} on {shapes or 'nothing'}"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of a description that run as this: itself, or those that a kernel replaces."""
        return self.expression.layers if self.expression else (self.layer,)

    # What the layer asks for.

    def input_specs(self, dtype: torch.dtype = torch.float64) -> tuple[Spec, ...]:
        """The specs of the inputs; floating ones in `dtype`."""
        return tuple(
            Spec(tuple(x.shape), dtype if x.is_floating_point() else x.dtype)
            if isinstance(x, Tensor)
            else Spec(x, dtype)
            for x in self.inputs
        )

    def ports_in(self, dtype: torch.dtype) -> Ports:
        """Inputs, parameters and states, as the layer declares them for inputs of this dtype."""
        if self.expression is not None:
            return self.expression.ports(self.input_specs(dtype), dtype)
        return bind_inputs(self.layer, self.input_specs(dtype), dtype)

    @functools.cached_property
    def ports(self) -> Ports:
        return self.ports_in(torch.float64)

    @property
    def differentiable(self) -> frozenset[str]:
        """The inputs and parameters whose gradients backward must return."""
        specs = self.ports.specs
        return frozenset(
            name
            for name in gradient_names(self.layer, specs)
            if name not in self.layer.nondifferentiable
            and any(s is not None and s.dtype.is_floating_point for s in as_tuple(specs[name]))
        )

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that are there."""
        return tuple(name for name, spec in self.ports.parameters.items() if spec is not None)

    @property
    def trainable(self) -> bool:
        """Whether there is a backward and something to differentiate by."""
        return bool(self.layer.signature.backward and self.differentiable)

    def require_backward(self) -> None:
        """Raise NotApplicable for a layer that cannot be trained through."""
        if not self.layer.signature.backward:
            raise NotApplicable("the layer defines no backward")
        if not self.differentiable:
            raise NotApplicable("the layer has nothing to differentiate by")

    @functools.cached_property
    def usable(self) -> bool:
        """Whether forward and backward run at all; if not, only the check that says so is run."""
        try:
            with undisturbed():
                self.forward(self.arguments())
                if self.trainable:
                    self.run()
        except Exception:  # reported by the check `runs`
            return False
        return True

    def excuse(self, check: Check[Case]) -> str:
        """Why a check does not concern this case; empty if it does."""
        if check.name in self.skip:
            return self.skip[check.name]
        if (self.raises is not None) != (check.name == "declared_errors"):
            return "the sample must be refused" if self.raises else "no sample declares an error"
        early = check.name in ("kernel_names", "runs", "declared_errors")
        return "" if early or self.usable else "the layer does not run"

    # Tensors.

    def arguments(
        self, *, seed: int = 0, dtype: torch.dtype = torch.float64, device: torch.device = CPU
    ) -> Named:
        """Fresh tensors for everything that forward may name."""
        ports = self.ports_in(dtype)
        drawn: Named = {}
        position = 0
        for name in ports.inputs:
            count = len(as_tuple(ports.specs[name]))
            tensors = tuple(self._input(position + i, seed, dtype).to(device) for i in range(count))
            drawn[name] = tensors if isinstance(ports.specs[name], tuple) else tensors[0]
            position += count
        for name, spec in (*ports.parameters.items(), *ports.states.items()):
            bound = ports.specs[name]
            assert not isinstance(bound, tuple)
            if spec is None or bound is None:
                drawn[name] = None
            else:
                drawn[name] = _initial(spec, bound.dtype, name, seed).to(device)
        drawn["key"] = random.key(torch.tensor(seed), torch.tensor(3), 7).to(device)
        return drawn

    def _input(self, position: int, seed: int, dtype: torch.dtype) -> Tensor:
        given = self.inputs[position]
        if not isinstance(given, Tensor):
            return draw(given, f"input {position}", seed).to(dtype)
        tensor = given.roll(seed, 0).clone() if given.ndim else given.clone()
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    def grads(self, results: Mapping[str, Any], *, seed: int = 0) -> Named:
        """A random gradient for each output; zeros for an output of integers."""
        return {
            f"grad_{name}": draw(tuple(y.shape), f"grad_{name}", seed).to(y.device, y.dtype)
            if y.is_floating_point()
            else torch.zeros_like(y)
            for name, y in ((name, results[name]) for name in self.layer.outputs)
        }

    # Calls.

    @property
    def result_names(self) -> tuple[str, ...]:
        """Outputs, saves, and `<state>_next` for the states in `updates`."""
        layer = self.layer
        return layer.outputs + layer.saves + tuple(f"{state}_next" for state in layer.updates)

    def forward(self, arguments: Named) -> Named:
        """What forward returns, by name."""
        values = {**arguments, "specs": specs_of(arguments)}
        return self.named("forward", self.result_names, invoke(self.layer, "forward", values))

    def inference(self, arguments: Named) -> Named:
        """What inference returns, by name."""
        values = {**arguments, "specs": specs_of(arguments)}
        return self.named("inference", self.layer.outputs, invoke(self.layer, "inference", values))

    def backward(
        self, arguments: Named, results: Named, grads: Named, wanted: frozenset[str] | None = None
    ) -> Named:
        """What backward returns, by the names of forward's inputs and parameters."""
        values = {
            **arguments,
            **{name: results[name] for name in self.layer.outputs + self.layer.saves},
            **grads,
        }
        values["specs"] = specs_of({**arguments, **results})
        values["wanted"] = self.differentiable if wanted is None else wanted
        names = gradient_names(self.layer, self.ports.specs)
        return self.named("backward", names, invoke(self.layer, "backward", values))

    def forward_in_place(self, arguments: Named) -> Named:
        """What `forward_` returns, by name; it writes to arguments."""
        values = {**arguments, "specs": specs_of(arguments)}
        return self.named("forward_", self.result_names, invoke(self.layer, "forward_", values))

    def backward_in_place(self, values: Named) -> Named:
        """What `backward_` returns, as `grad_<name>`, for arguments, results and gradients by name."""
        known = {**values, "specs": specs_of(values), "wanted": self.differentiable}
        names = [f"grad_{name}" for name in gradient_names(self.layer, self.ports.specs)]
        return self.named("backward_", names, invoke(self.layer, "backward_", known))

    def named(self, method: str, names: Sequence[str], results: Sequence[Any]) -> Named:
        """Results by name. Raises LayerError for another number of them."""
        if len(results) != len(names):
            raise LayerError(
                f"{method} must return {len(names)} tensors ({', '.join(names)}), "
                f"returned {len(results)}"
            )
        return dict(zip(names, results, strict=True))

    def run(self, *, seed: int = 0, arguments: Named | None = None) -> Pass:
        """One forward and backward; raises NotApplicable where there is no backward."""
        self.require_backward()
        arguments = self.arguments(seed=seed) if arguments is None else arguments
        results = self.forward(arguments)
        grads = self.grads(results, seed=seed)
        return Pass(arguments, results, grads, self.backward(arguments, results, grads))

    def outputs(self, results: Named) -> dict[str, Tensor]:
        """The floating outputs among the results."""
        return floating(results, self.layer.outputs)

    # Other inputs for the same layer.

    def with_inputs(self, inputs: Sequence[Input]) -> Case:
        """The same layer on other inputs. Raises GraphError where they do not fit it."""
        case = replace(self, inputs=tuple(inputs))
        if self.expression is None or not isinstance(self.layer, Kernel):
            return case
        kernel = self.expression.match(type(self.layer), case.input_specs())
        if kernel is None:
            raise NotApplicable("the kernel does not match these inputs")
        return replace(case, layer=kernel)


def _initial(spec: ParameterSpec | StateSpec, dtype: torch.dtype, name: str, seed: int) -> Tensor:
    """The initial value, moved by up to 30 % (0 by up to 0.3), so that no gradient hides behind it."""
    source = generator(name, seed)
    if not dtype.is_floating_point:
        return spec.initializer(torch.empty(spec.shape, dtype=dtype), source)
    start = spec.initializer(torch.empty(spec.shape, dtype=torch.float64), source)
    jitter = 0.3 * (2.0 * torch.rand(spec.shape, generator=source, dtype=torch.float64) - 1.0)
    return torch.where(start == 0.0, jitter, start * (1.0 + jitter)).to(dtype)


def is_kernel(case: Case) -> bool:
    """Whether the case is about a kernel, which no description names."""
    return isinstance(case.layer, Kernel)
