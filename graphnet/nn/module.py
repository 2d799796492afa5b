"""Module: one eager layer with the interface of the paper.

`forward` saves the tensors that `backward` needs. `backward` returns the gradients of the inputs, and adds
the gradients of the parameters to those of earlier calls, until `zero_grad`. Autograd is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import InputError, LayerError, blame, shown
from graphnet.graph import as_tuple, bind_inputs, gradient_names, has_slots, invoke
from graphnet.nn.choice import Choice, choose
from graphnet.nn.fixed import fixed_inputs
from graphnet.nn.tree import Pair, Tree, attach
from graphnet.sdk import Layer, Spec, changed_fields, check_dtype, check_tensors, random
from graphnet.system import resolve_device


@dataclass(frozen=True, slots=True)
class _Context:
    """The values that a forward saves for its backward; `choice` is None if it was in evaluation mode."""

    choice: Choice | None
    named: Mapping[str, Any]


_NOTHING = _Context(None, {})


class Module(Tree):
    """One layer, of any kind, with its own parameters, gradients and states.

    Parameters are attributes, such as `module.weight`, and so are the layer's fields, such as
    `module.kernel_size`. Parameters are made at once if the fields alone fix their shapes, as `in_channels`
    does; otherwise they are made in the first forward.

    Args:
        layer: the definition of the layer.
        specs: the specs of the inputs; None makes the parameters when their shapes are known.
        device, dtype: those of the parameters; None is the CPU, and torch's default dtype.
        generator: the source of their random numbers; None is torch's default generator.
        tensors: initial values by name, of which copies are used in place of random numbers.

    >>> from graphnet.nn import make
    >>> module = make("relu")
    >>> module(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    >>> module.backward(torch.ones(2))
    tensor([0., 1.])
    """

    def __init__(
        self,
        layer: Layer | None = None,
        *,
        specs: Sequence[Spec] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        if not isinstance(layer, Layer):
            found = "none" if layer is None else f"{shown(layer)}"
            raise InputError(
                f"{type(self).__name__}: expected a layer, found {found}. Without autograd, modules are "
                f"combined by nn.Sequential or nn.Network; nn.make(name) makes one by its name."
            )
        self._pairs: dict[str, Pair] = {}
        self._states: dict[str, Tensor] = {}
        self._modules: dict[str, Tree] = {}
        self._device = resolve_device("cpu" if device is None else device)
        self._dtype = torch.get_default_dtype() if dtype is None else dtype
        check_dtype(self._dtype, f"{type(self).__name__}: dtype")
        self._generator = generator
        self._made = False
        self._absent: tuple[str, ...] = ()
        self._context: Any = None
        self.layer = layer
        if specs is None:
            specs = fixed_inputs(layer, self._dtype)
        if specs is not None:
            self._make(specs, tensors or {})

    @property
    def title(self) -> str:
        """The name of the class, for messages: the layer's, if the module has no class of its own."""
        return type(self.layer if type(self) is Module else self).__name__

    def extra_repr(self) -> str:
        """Return the fields that differ from their defaults."""
        return ", ".join(f"{name}={value!r}" for name, value in changed_fields(self.layer).items())

    def _check_made(self) -> None:
        if not self._made and has_slots(self.layer):
            raise InputError(
                f"{self!r} has no parameters yet: their shapes depend on the inputs. Call it once, or "
                f"give `specs`."
            )

    @torch.inference_mode(
        mode=False
    )  # the tensors live longer than this call and are written later
    @torch.no_grad()
    def _move(
        self, device: torch.device | None, dtype: torch.dtype | None, *, non_blocking: bool
    ) -> None:
        self._device = device or self._device
        self._dtype = dtype or self._dtype
        for pair in self._pairs.values():
            attach(pair)
            pair[0].grad = None  # torch wants the dtype and device of the parameter
        pairs = (tensor for pair in self._pairs.values() for tensor in pair)
        for value in (*pairs, *self._states.values()):
            to = self._dtype if value.is_floating_point() else None
            value.data = value.to(self._device, to, non_blocking=non_blocking)
        for parameter, gradient in self._pairs.values():
            parameter.grad = gradient
        self._context = None

    def __getattr__(self, name: str) -> Any:
        """Return a parameter, state or field by its name; None for a parameter that is absent."""
        own = self.__dict__
        if name in own.get("_pairs", {}):
            return own["_pairs"][name][0]
        if name in own.get("_states", {}):
            return own["_states"][name]
        if name in own.get("_absent", ()):
            return None
        layer = own.get("layer")
        if layer and name in layer.field_names() and name not in layer.signature.tensors:
            return getattr(layer, name)
        raise AttributeError(f"{type(self).__name__} has no attribute or parameter {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Copy a tensor into the parameter or state of this name; other attributes are set as usual."""
        layer = self.__dict__.get("layer")
        if layer is None or name in self.__dict__:
            super().__setattr__(name, value)
            return
        if name not in layer.signature.tensors:
            if name in layer.field_names():
                raise InputError(
                    f"{self!r}: {name} cannot be set, since a layer is frozen. Make another module with "
                    f"{name}={value!r}."
                )
            super().__setattr__(name, value)
            return
        mine = getattr(self, name, None)
        if mine is None:
            reason = "it was made without" if self._made else "call it once to make its parameters"
            raise InputError(f"{self!r} has no {name!r} to set: {reason}")
        if not isinstance(value, Tensor) or value.shape != mine.shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else value
            raise InputError(f"{name}: expected a tensor of shape {tuple(mine.shape)}, got {found}")
        with torch.no_grad():
            mine.copy_(value)

    def tie(self, other: Module) -> None:
        """Use the parameters and states of another module in place of one's own.

        Raises:
            InputError: one of them has no parameters yet, or they differ in a name, shape or dtype.
        """
        mine, theirs = self.state_dict(), other.state_dict()
        if {n: (t.shape, t.dtype) for n, t in mine.items()} != {
            n: (t.shape, t.dtype) for n, t in theirs.items()
        }:
            raise InputError(
                f"{self!r} cannot be tied to {other!r}: their parameters have other names, shapes or dtypes"
            )
        self._pairs, self._states = other._pairs, other._states
        self._device, self._dtype, self._context = other._device, other._dtype, None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for parameter, gradient in self._pairs.values():
            parameter.grad = gradient  # pickle drops it

    # -- forward and backward with an explicit context ----------------------------------------------

    def run(self, inputs: Sequence[Tensor]) -> tuple[Any, Any]:
        if not self.training:
            return self.infer(inputs), _NOTHING
        choice, named = self._bind(inputs)
        layer = choice.layer
        results = self._call(layer, "forward", named)
        names = layer.outputs + layer.saves
        named.update(zip(names, results, strict=False))
        for name, value in zip(layer.updates, results[len(names) :], strict=True):
            self._states[name].copy_(value)
        asked = {name: named[name] for name in layer.signature.backward if name in named}
        outputs = tuple(results[: len(layer.outputs)])
        return outputs[0] if len(outputs) == 1 else outputs, _Context(choice, asked)

    def run_backward(
        self, context: Any, grad_outputs: Sequence[Tensor | None]
    ) -> tuple[Tensor | None, ...]:
        if context.choice is None:
            raise InputError(
                f"{self!r}: it was in evaluation mode, in which forward keeps nothing for backward. "
                f"Call train(), then forward, then backward."
            )
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
            if name in self._pairs:
                if gradient is not None:
                    attach(self._pairs[name]).add_(gradient)
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
                f"{self.title}.backward: expected {len(outputs)} gradients "
                f"({', '.join(outputs)}), got {len(given)}"
            )
        check_tensors((g for g in given if g is not None), f"{self.title}.backward")
        named: dict[str, Tensor | None] = {}
        for output, spec, gradient in zip(outputs, choice.outputs, given, strict=True):
            name = f"grad_{output}"
            if gradient is None and name not in choice.layer.signature.optional:
                gradient = torch.zeros(spec.shape, dtype=spec.dtype, device=spec.device)
            if gradient is not None and tuple(gradient.shape) != spec.shape:
                raise InputError(
                    f"{self.title}.backward: expected a gradient of shape {spec.shape} for "
                    f"{output!r}, got {tuple(gradient.shape)}"
                )
            named[name] = gradient
        return named

    def infer(self, inputs: Sequence[Tensor]) -> Any:
        choice, named = self._bind(inputs)
        layer = choice.layer
        if layer.signature.inference:
            results = self._call(layer, "inference", named)
        else:
            results = self._call(layer, "forward", named)[: len(layer.outputs)]
        return results[0] if len(results) == 1 else results

    def differentiable(self, count: int) -> list[bool]:
        signature = self.layer.signature
        names = [signature.variadic] * count if signature.variadic else signature.tensors[:count]
        return [name not in self.layer.nondifferentiable for name in names]

    def input_names(self) -> tuple[str, ...] | None:
        """Return the names that the layer gives its inputs; None if it takes any number of them."""
        self._check_made()
        if self.layer.signature.variadic:
            return None
        others = (*self._pairs, *self._states, *self._absent)
        return tuple(name for name in self.layer.signature.tensors if name not in others)

    def _bind(self, inputs: Sequence[Tensor]) -> tuple[Choice, dict[str, Any]]:
        """Return the layer or kernel that runs on these inputs, and its arguments by name."""
        check_tensors(inputs, repr(self))
        specs = tuple(Spec.of(x) for x in inputs)
        with blame(f"{self!r}: ", "forward"):
            if not self._made:
                self._make(specs, {})
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
            named[name] = self._pairs[name][0] if name in self._pairs else None
        named.update(self._states)
        return choice, named

    def _call(self, layer: Layer, method: str, named: Mapping[str, Any]) -> tuple[Any, ...]:
        with blame(f"{self!r}: ", method):
            return invoke(layer, method, named)

    @torch.inference_mode(
        mode=False
    )  # the tensors live longer than this call and are written later
    @torch.no_grad()
    def _make(self, specs: Sequence[Spec], given: Mapping[str, Tensor]) -> None:
        """Make the parameters and states for inputs of these specs."""
        ports = bind_inputs(self.layer, specs, self._dtype)
        generator = self._generator or torch.default_generator
        self._absent = tuple(name for name, spec in ports.parameters.items() if spec is None)
        slots = {**ports.parameters, **ports.states}
        for name, slot in slots.items():
            if slot is None:
                continue
            dtype = ports.states[name].dtype if name in ports.states else None
            value = torch.empty(slot.shape, dtype=dtype or self._dtype)
            value = (
                value.copy_(given[name]) if name in given else slot.initializer(value, generator)
            )
            value = value.to(self._device)
            if name in ports.states:
                self._states[name] = value
            else:
                self._pairs[name] = (value, torch.zeros_like(value))
                value.grad = self._pairs[name][1]
        self._made = True

    def _key(self, inputs: Sequence[Tensor]) -> Tensor:
        """Draw a new random key for one forward."""
        device = inputs[0].device if inputs else self._device
        seed = torch.randint(2**63 - 1, (), generator=self._generator).to(device)
        return random.key(seed, torch.zeros_like(seed), 0)
