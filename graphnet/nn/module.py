"""Module: one eager layer with the interface of the paper.

`forward` saves the tensors that `backward` needs. `backward` returns the gradients of the inputs, and adds
the gradients of the parameters to those of earlier calls, until `zero_grad`. Autograd is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from graphnet.errors import InputError, LayerError, blame
from graphnet.graph import as_tuple, bind_inputs, gradient_names, invoke
from graphnet.nn.choice import Choice, choose
from graphnet.nn.placement import Device, target_of
from graphnet.sdk import Layer, Spec, check_dtype, check_tensors, default_registry, random
from graphnet.system import resolve_device

Pair = tuple[Tensor, Tensor]
"""A parameter and its accumulated gradient, of the same shape and dtype."""


@dataclass(frozen=True, slots=True)
class _Context:
    """The values that a forward saves for its backward."""

    choice: Choice
    named: Mapping[str, Any]


class Module:
    """One layer, of any registered kind, with its own parameters, gradients and states.

    Parameters are attributes, such as `module.weight`. They are made when the shapes of the inputs are known.

    Args:
        layer: the definition of the layer.
        specs: the specs of the inputs; None makes the parameters in the first forward.
        device, dtype: those of the parameters; None is the CPU, and torch's default dtype.
        generator: the source of their random numbers; None is torch's default generator.

    >>> module = make("relu")
    >>> module(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    >>> module.backward(torch.ones(2))
    tensor([0., 1.])
    """

    def __init__(
        self,
        layer: Layer,
        *,
        specs: Sequence[Spec] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.parameters: dict[str, Pair] = {}
        self.states: dict[str, Tensor] = {}
        self._device = resolve_device(device or "cpu")
        self._dtype = dtype or torch.get_default_dtype()
        check_dtype(self._dtype, f"{type(self).__name__}: dtype")
        self._generator = generator
        self.made = False
        self._absent: tuple[str, ...] = ()
        self._context: Any = None
        self.layer = layer
        if specs is not None:
            self._make(specs)

    # -- the paper's interface ----------------------------------------------------------------------

    def __call__(self, *inputs: Tensor) -> Any:
        return self.forward(*inputs)

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Any:
        """Return the output, or a tuple of several; save the tensors that `backward` needs.

        Raises InputError if the inputs do not fit the layer.
        """
        outputs, self._context = self.run(inputs)
        return outputs

    @torch.no_grad()
    def backward(self, *grad_outputs: Tensor | None) -> Any:
        """Return the gradient of the input, or a tuple for several, and add the parameters' gradients.

        Args:
            grad_outputs: the gradients of the outputs of the last forward; a loss may omit it: then it is 1.
        """
        if self._context is None:
            raise InputError(f"{type(self).__name__}: call forward before backward")
        gradients = self.run_backward(self._context, grad_outputs)
        return gradients[0] if len(gradients) == 1 else gradients

    def param(self) -> list[Pair]:
        """Return (parameter, gradient) pairs; both tensors are only changed in place, so pairs stay valid."""
        if not self.made and type(self.layer).parameters is not Layer.parameters:
            raise InputError(
                f"{self!r} has no parameters yet: their shapes depend on the inputs. Call it once, or "
                f"give `specs`."
            )
        return list(self.parameters.values())

    @torch.no_grad()
    def zero_grad(self) -> None:
        """Set every parameter's gradient to zero."""
        for _, gradient in self.param():
            gradient.zero_()

    def to(
        self,
        *target: Device | torch.dtype | Tensor | None,
        device: Device | None = None,
        dtype: torch.dtype | None = None,
        tensor: Tensor | None = None,
        non_blocking: bool = False,
    ) -> Self:
        """Move parameters, gradients and states to a device and dtype, as torch.nn.Module.to does.

        The forms are `to(dtype)`, `to(device)`, `to(device, dtype)`, and `to(tensor)` for the device and
        dtype of a tensor. The tensors stay the same objects. Integer states keep their dtype. After `to`,
        call forward before backward. Raises InputError for other arguments or for a dtype that is not of
        floating point, DeviceError if the device does not exist; then nothing is moved.

        >>> make("relu").to(torch.float64)
        Module(ReLU())
        """
        given = target_of(target, device=device, dtype=dtype, tensor=tensor)
        self._move(*given, non_blocking=non_blocking)
        return self

    @torch.no_grad()
    def _move(
        self, device: torch.device | None, dtype: torch.dtype | None, *, non_blocking: bool
    ) -> None:
        self._device = device or self._device
        self._dtype = dtype or self._dtype
        for value in (
            *(tensor for pair in self.parameters.values() for tensor in pair),
            *self.states.values(),
        ):
            to = self._dtype if value.is_floating_point() else None
            value.data = value.to(self._device, to, non_blocking=non_blocking)
        self._context = None

    def float(self) -> Self:
        """`to(torch.float32)`."""
        return self.to(torch.float32)

    def double(self) -> Self:
        """`to(torch.float64)`."""
        return self.to(torch.float64)

    def half(self) -> Self:
        """`to(torch.float16)`."""
        return self.to(torch.float16)

    def bfloat16(self) -> Self:
        """`to(torch.bfloat16)`."""
        return self.to(torch.bfloat16)

    def cpu(self) -> Self:
        """`to("cpu")`."""
        return self.to("cpu")

    def cuda(self, device: Device | None = None) -> Self:
        """Move to torch's current GPU, or to the GPU of this number or name."""
        if device is None and torch.cuda.is_available():
            device = torch.cuda.current_device()
        return self.to("cuda" if device is None else device)

    def predict(self, *inputs: Tensor) -> Any:
        """Return the outputs for inference: nothing is saved, and states do not change."""
        with torch.no_grad():
            return self.infer(inputs)

    def __getattr__(self, name: str) -> Any:
        """Return a parameter or state by its name; None for a parameter that this layer does not have."""
        own = self.__dict__
        if name in own.get("parameters", {}):
            return own["parameters"][name][0]
        if name in own.get("states", {}):
            return own["states"][name]
        if name in own.get("_absent", ()):
            return None
        raise AttributeError(f"{type(self).__name__} has no attribute or parameter {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Copy a tensor into a parameter or state, so that the pairs of `param()` stay valid."""
        layer = self.__dict__.get("layer")
        if layer is None or name in self.__dict__ or name not in layer.signature.tensors:
            super().__setattr__(name, value)
            return
        mine = getattr(self, name, None)
        if mine is None:
            reason = "it was made without" if self.made else "call it once to make its parameters"
            raise InputError(f"{self!r} has no {name!r} to set: {reason}")
        if not isinstance(value, Tensor) or value.shape != mine.shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else value
            raise InputError(f"{name}: expected a tensor of shape {tuple(mine.shape)}, got {found}")
        with torch.no_grad():
            mine.copy_(value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.layer})"

    # -- forward and backward with an explicit context ----------------------------------------------

    def run(self, inputs: Sequence[Tensor]) -> tuple[Any, Any]:
        """Return the outputs, and the context that `run_backward` needs."""
        choice, named = self._bind(inputs)
        layer = choice.layer
        results = self._call(layer, "forward", named)
        names = layer.outputs + layer.saves
        named.update(zip(names, results, strict=False))
        for name, value in zip(layer.updates, results[len(names) :], strict=True):
            self.states[name].copy_(value)
        asked = {name: named[name] for name in layer.signature.backward if name in named}
        outputs = tuple(results[: len(layer.outputs)])
        return outputs[0] if len(outputs) == 1 else outputs, _Context(choice, asked)

    def run_backward(
        self, context: Any, grad_outputs: Sequence[Tensor | None]
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of the inputs, and add the gradients of the parameters."""
        layer, specs = context.choice.layer, context.choice.specs
        if not layer.signature.backward:
            raise LayerError(f"{type(self.layer).__name__} defines no backward")
        names = gradient_names(layer, specs)
        wanted = frozenset(
            n for n in names if n not in layer.nondifferentiable and specs[n] is not None
        )
        named = {**context.named, "specs": specs, "wanted": wanted}
        named.update(self._grad_outputs(context.choice, grad_outputs))
        with blame(f"{self!r}: ", "backward"):
            results = invoke(layer, "backward", named)
        gradients: list[Tensor | None] = []
        for name, gradient in zip(names, results, strict=True):
            if name in self.parameters:
                if gradient is not None:
                    self.parameters[name][1].add_(gradient)
            elif name not in (*layer.nondifferentiable, *self._absent):
                gradients.extend(as_tuple(gradient))
        return tuple(gradients)

    def _grad_outputs(
        self, choice: Choice, given: Sequence[Tensor | None]
    ) -> dict[str, Tensor | None]:
        """Return the gradients of the outputs by name: 1 for a loss without one, zeros for None."""
        outputs = choice.layer.outputs
        if not given and outputs == ("loss",):
            (spec,) = choice.outputs
            given = (torch.ones(spec.shape, dtype=spec.dtype, device=spec.device),)
        if len(given) != len(outputs):
            raise InputError(
                f"{type(self).__name__}.backward: expected {len(outputs)} gradients "
                f"({', '.join(outputs)}), got {len(given)}"
            )
        named: dict[str, Tensor | None] = {}
        for output, spec, gradient in zip(outputs, choice.outputs, given, strict=True):
            name = f"grad_{output}"
            if gradient is None and name not in choice.layer.signature.optional:
                gradient = torch.zeros(spec.shape, dtype=spec.dtype, device=spec.device)
            if gradient is not None and tuple(gradient.shape) != spec.shape:
                raise InputError(
                    f"{type(self).__name__}.backward: expected a gradient of shape {spec.shape} for "
                    f"{output!r}, got {tuple(gradient.shape)}"
                )
            named[name] = gradient
        return named

    def infer(self, inputs: Sequence[Tensor]) -> Any:
        """Return the outputs for inference."""
        choice, named = self._bind(inputs)
        layer = choice.layer
        if layer.signature.inference:
            results = self._call(layer, "inference", named)
        else:
            results = self._call(layer, "forward", named)[: len(layer.outputs)]
        return results[0] if len(results) == 1 else results

    def _bind(self, inputs: Sequence[Tensor]) -> tuple[Choice, dict[str, Any]]:
        """Return the layer or kernel that runs on these inputs, and its arguments by name."""
        check_tensors(inputs, repr(self))
        specs = tuple(Spec(tuple(x.shape), x.dtype, x.device) for x in inputs)
        with blame(f"{self!r}: ", "forward"):
            if not self.made:
                self._make(specs)
            ports = bind_inputs(self.layer, specs, self._dtype)
            choice = choose(self.layer, specs, self._dtype)
        named: dict[str, Any] = {"specs": choice.specs}
        if "key" in (*choice.layer.signature.forward, *choice.layer.signature.backward):
            named["key"] = self._key(inputs)
        if self.layer.signature.variadic:
            named[self.layer.signature.variadic] = tuple(inputs)
        else:
            named.update(zip(ports.inputs, inputs, strict=True))
        for name in ports.parameters:
            named[name] = self.parameters[name][0] if name in self.parameters else None
        named.update(self.states)
        return choice, named

    def _call(self, layer: Layer, method: str, named: Mapping[str, Any]) -> tuple[Any, ...]:
        with blame(f"{self!r}: ", method):
            return invoke(layer, method, named)

    @torch.no_grad()
    def _make(self, specs: Sequence[Spec]) -> None:
        """Make the parameters and states for inputs of these specs."""
        ports = bind_inputs(self.layer, specs, self._dtype)
        generator = self._generator or torch.default_generator
        options: dict[str, Any] = {"device": self._device, "dtype": self._dtype}
        self._absent = tuple(name for name, spec in ports.parameters.items() if spec is None)
        for name, spec in ports.parameters.items():
            if spec is not None:
                fresh = torch.empty(spec.shape, dtype=self._dtype)
                parameter = spec.initializer(fresh, generator).to(self._device)
                self.parameters[name] = (parameter, torch.zeros(spec.shape, **options))
        for name, state in ports.states.items():
            fresh = torch.empty(state.shape, dtype=state.dtype or self._dtype)
            self.states[name] = state.initializer(fresh, generator).to(self._device)
        self.made = True

    def _key(self, inputs: Sequence[Tensor]) -> Tensor:
        """Draw a new random key for one forward."""
        device = inputs[0].device if inputs else self._device
        seed = torch.randint(2**63 - 1, (), generator=self._generator).to(device)
        return random.key(seed, torch.zeros_like(seed), 0)


def layer_named(name: str, **config: Any) -> Layer:
    """Return the registered layer or loss of this name, with these fields."""
    kind = "losses" if name in default_registry().losses else "layers"
    layer: Layer = default_registry().make(kind, {name: config})
    return layer


def make(name: str, **config: Any) -> Module:
    """Make a module of a registered layer or loss.

    >>> make("leaky_relu", negative_slope=0.5)(torch.tensor([-1.0]))
    tensor([-0.5000])
    """
    return Module(layer_named(name, **config))
