"""Case: a layer with sample inputs, and the calls by which checks run it.

All numbers are drawn from a seed, in float64 on the CPU, and converted afterwards, so they are the same for
every dtype and device. Inputs are not near multiples of one half, where functions often have kinks.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import LayerError
from graphnet.graph import (
    Ports,
    as_tuple,
    bind_inputs,
    gradient_names,
    invoke,
    wrong_results,
)
from graphnet.sdk import Kernel, Layer, ParameterSpec, Registry, Spec, StateSpec, random
from graphnet.testing.check import Check, undisturbed
from graphnet.testing.draw import draw, generator
from graphnet.testing.expression import CPU, Expression
from graphnet.testing.leaves import Named, floating, specs_of
from graphnet.testing.outcome import NotApplicable
from graphnet.testing.sample import Expected, Input

_TRACED = ("compiles", "inductor", "executors")


@dataclass(frozen=True, eq=False)
class Pass:
    """The arguments and results of one forward and backward, by name."""

    arguments: Named
    results: Named
    grads: Named
    gradients: Named


@dataclass(frozen=True, eq=False)
class Case:
    """A layer definition with sample inputs, and everything that a check needs to run it.

    `name` is the layer's name in `registry`. For a kernel, `expression` has the layers that it replaces.
    `siblings` are all cases of the same class.

    >>> from graphnet.builtin import ReLU
    >>> from graphnet.testing import cases_for
    >>> cases_for(ReLU())[0].name
    'relu'
    """

    layer: Layer
    name: str
    inputs: tuple[Input, ...]
    registry: Registry
    expression: Expression | None = None
    raises: type[Exception] | None = None
    skip: Mapping[str, str] = field(default_factory=dict)
    expected: Expected | None = None
    starts: Mapping[str, float] = field(default_factory=dict)
    untried: str = ""  # the reason if it cannot run on this machine
    varied: bool = False  # whether the kit has changed fields of the author's sample
    siblings: tuple[Case, ...] = ()

    def __str__(self) -> str:
        shapes = ", ".join(
            "x".join(map(str, x.shape if isinstance(x, Tensor) else x)) for x in self.inputs
        )
        layer = ", ".join(map(str, self.expression.layers)) if self.expression else self.layer
        return f"{layer} on {shapes or 'nothing'}"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layer itself, or the layers that a kernel replaces."""
        return self.expression.layers if self.expression else (self.layer,)

    # What the layer declares.

    def input_specs(self, dtype: torch.dtype = torch.float64) -> tuple[Spec, ...]:
        """Return the specs of the inputs; those of floating point have this dtype."""
        return tuple(
            Spec(tuple(x.shape), dtype if x.is_floating_point() else x.dtype)
            if isinstance(x, Tensor)
            else Spec(x, dtype)
            for x in self.inputs
        )

    def ports_in(self, dtype: torch.dtype) -> Ports:
        """Return the inputs, parameters and states that the layer declares for inputs of this dtype."""
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
        """The parameters that this layer has."""
        return tuple(name for name, spec in self.ports.parameters.items() if spec is not None)

    @property
    def trainable(self) -> bool:
        """Whether the layer has a backward, and an input or parameter that needs a gradient."""
        return bool(self.layer.signature.backward and self.differentiable)

    def require_backward(self) -> None:
        """Raise NotApplicable if the layer computes no gradients."""
        if not self.layer.signature.backward:
            raise NotApplicable("the layer defines no backward")
        if not self.differentiable:
            raise NotApplicable("the layer has nothing to differentiate by")

    @functools.cached_property
    def usable(self) -> bool:
        """Whether all methods run at all; if not, only the check `runs` reports it."""
        try:
            with undisturbed():
                self.run_all()
        except Exception:  # the check `runs` reports it
            return False
        return True

    def run_all(self) -> None:
        """Run forward, backward and inference once, as far as the layer has them."""
        if self.trainable:
            self.run()
        else:
            self.forward(self.arguments())
        if self.layer.signature.inference:
            self.inference(self.arguments())

    def excuse(self, check: Check[Case]) -> str:
        """Return why a check does not apply to this case; an empty text if it applies."""
        if self.untried:
            return self.untried
        if check.name in self.skip:
            return self.skip[check.name]
        if (self.raises is not None) != (check.name == "declared_errors"):
            return "the sample must be refused" if self.raises else "no sample declares an error"
        if self.varied and check.name in _TRACED:
            return "torch.compile takes its time: it is tried on the samples as they are given"
        early = check.name in ("kernel_names", "runs", "declared_errors")
        return "" if early or self.usable else "the layer does not run: see the check `runs`"

    # Tensors.

    def arguments(
        self, *, seed: int = 0, dtype: torch.dtype = torch.float64, device: torch.device = CPU
    ) -> Named:
        """Draw tensors for all arguments that forward may name."""
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
        """Draw a gradient for each output; it is zero for an output of integers."""
        return {
            f"grad_{name}": draw(tuple(y.shape), f"grad_{name}", seed).to(y.device, y.dtype)
            if y.is_floating_point()
            else torch.zeros_like(y)
            for name, y in ((name, results[name]) for name in self.layer.outputs)
        }

    # Calls.

    @property
    def result_names(self) -> tuple[str, ...]:
        """The names of forward's results: outputs, saves, and `<state>_next` for states in `updates`."""
        layer = self.layer
        return layer.outputs + layer.saves + tuple(f"{state}_next" for state in layer.updates)

    def forward(self, arguments: Named) -> Named:
        """Run forward, and return its results by name."""
        values = {**arguments, "specs": specs_of(arguments)}
        return self.named("forward", self.result_names, invoke(self.layer, "forward", values))

    def inference(self, arguments: Named) -> Named:
        """Run inference, and return its results by name."""
        values = {**arguments, "specs": specs_of(arguments)}
        return self.named("inference", self.layer.outputs, invoke(self.layer, "inference", values))

    def backward(
        self, arguments: Named, results: Named, grads: Named, wanted: frozenset[str] | None = None
    ) -> Named:
        """Run backward, and return the gradients by the names of the inputs and parameters."""
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
        """Run `forward_`, which writes to arguments, and return its results by name."""
        values = {**arguments, "specs": specs_of(arguments)}
        return self.named("forward_", self.result_names, invoke(self.layer, "forward_", values))

    def backward_in_place(self, values: Named) -> Named:
        """Run `backward_` on arguments, results and gradients by name; return `grad_<name>` by name."""
        known = {**values, "specs": specs_of(values), "wanted": self.differentiable}
        names = [f"grad_{name}" for name in gradient_names(self.layer, self.ports.specs)]
        return self.named("backward_", names, invoke(self.layer, "backward_", known))

    def named(self, method: str, names: Sequence[str], results: Sequence[Any]) -> Named:
        """Return results by name; raises LayerError if their number is wrong."""
        if len(results) != len(names):
            if method in ("forward", "inference"):
                raise LayerError(wrong_results(self.layer, method, results))
            raise LayerError(
                f"{method} must return {len(names)} tensors ({', '.join(names)}), "
                f"returned {len(results)}"
            )
        return dict(zip(names, results, strict=True))

    def run(self, *, seed: int = 0, arguments: Named | None = None) -> Pass:
        """Run forward and backward once; raises NotApplicable if the layer computes no gradients."""
        self.require_backward()
        arguments = self.arguments(seed=seed) if arguments is None else arguments
        results = self.forward(arguments)
        grads = self.grads(results, seed=seed)
        return Pass(arguments, results, grads, self.backward(arguments, results, grads))

    def outputs(self, results: Named) -> dict[str, Tensor]:
        """Return the outputs of floating point among the results."""
        return floating(results, self.layer.outputs)

    # Other inputs for the same layer.

    def with_inputs(self, inputs: Sequence[Input]) -> Case:
        """Return a case of the same layer with other inputs; raises GraphError if they do not fit."""
        case = replace(self, inputs=tuple(inputs))
        if self.expression is None or not isinstance(self.layer, Kernel):
            return case
        kernel = self.expression.match(type(self.layer), case.input_specs())
        if kernel is None:
            raise NotApplicable("the kernel does not match these inputs")
        return replace(case, layer=kernel)


def _initial(spec: ParameterSpec | StateSpec, dtype: torch.dtype, name: str, seed: int) -> Tensor:
    """Draw the initial value and change it by up to 30 %, and 0 by up to 0.3: 0 and 1 may hide an error."""
    source = generator(name, seed)
    if not dtype.is_floating_point:
        return spec.initializer(torch.empty(spec.shape, dtype=dtype), source)
    start = spec.initializer(torch.empty(spec.shape, dtype=torch.float64), source)
    jitter = 0.3 * (2.0 * torch.rand(spec.shape, generator=source, dtype=torch.float64) - 1.0)
    return torch.where(start == 0.0, jitter, start * (1.0 + jitter)).to(dtype)


def is_kernel(case: Case) -> bool:
    """Return whether the case is for a kernel; descriptions cannot name kernels."""
    return isinstance(case.layer, Kernel)
