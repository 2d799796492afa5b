"""Opaque: a layer that runs one operator of torch, for operators that no layer computes.

Its forward runs the operator, and its backward is torch's own derivative of it, by torch.func.vjp.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor
from torch._ops import OpOverload

from graphnet.bridges.torch_layer import TorchLayer, from_torch_module
from graphnet.bridges.trace import Operation, Trace
from graphnet.sdk import Operand


@dataclass(frozen=True)
class _Argument:
    """Stands for an input of the layer, or for a tensor that the layer owns."""

    number: int | str


@dataclass(frozen=True)
class _Computed:
    """Stands for a size: an expression of symbols, which are sizes of inputs (number, axis)."""

    expression: sympy.Expr
    symbols: tuple[tuple[str, int, int], ...]

    def value(self, inputs: Sequence[Tensor]) -> int:
        if isinstance(self.expression, sympy.Symbol):  # no need of sympy, which is slow
            ((_, i, axis),) = self.symbols
            return inputs[i].shape[axis]
        sizes = {sympy.Symbol(n, **_POSITIVE): inputs[i].shape[axis] for n, i, axis in self.symbols}
        return int(self.expression.subs(sizes))


_POSITIVE = {"integer": True, "positive": True}


@dataclass(frozen=True)
class OpaqueCall:
    """An operator with its arguments, except the tensors; it distinguishes opaque layers from each other.

    Args:
        target: the operator.
        training: the arguments in train mode, `_Argument` and `_Computed` in the place of tensors and sizes.
        evaluation: the same in eval mode.
        dtypes: the dtypes of the inputs.
        owned: the names of the operator's arguments that are parameters and buffers of the layer, since the
            operator changes some of them.
    """

    target: OpOverload
    training: tuple[tuple[str, Any], ...]
    evaluation: tuple[tuple[str, Any], ...]
    dtypes: tuple[torch.dtype, ...]
    owned: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The operator's name without its overload."""
        return str(self.target._schema.name.rpartition("::")[2])

    @property
    def version(self) -> int:
        """A number that differs for other calls, so that a saved model is not loaded with another layer."""
        text = repr((str(self.target), self.training, self.evaluation, self.dtypes))
        return zlib.crc32(text.encode())


_CHANGES_STATES = frozenset({"aten::batch_norm", "aten::instance_norm"})
"""Operators whose schema does not say that they write running statistics."""
_READS_STRIDES = frozenset(
    {"aten::view", "aten::_unsafe_view", "aten::view_as_complex", "aten::as_strided"}
)
"""Operators that fail, or find other numbers, where a plan lays tensors otherwise than the module does."""


def opaque_call(
    operation: Operation, traced: Trace
) -> tuple[OpaqueCall, tuple[Operand, ...], dict[str, Operand]]:
    """What an operation computes, the tensors that it reads, and those that its layer owns, by name.

    Sizes that depend on the inputs are read off the tensors; where none of these has them, the inputs of the
    module are read too.
    """
    inputs: list[Operand] = []
    owned: dict[str, Operand] = {}
    owns = operation.target._schema.name in _CHANGES_STATES
    axes = traced.axes()

    def place(operand: Operand) -> int:
        if operand not in inputs:
            inputs.append(operand)
        return inputs.index(operand)

    def computed(expression: sympy.Expr) -> _Computed:
        names = {}
        symbols: list[tuple[str, int, int]] = []
        for symbol in sorted(expression.free_symbols, key=str):
            number, axis = axes[symbol]
            at = next(
                ((i, x.shape.index(symbol)) for i, x in enumerate(inputs) if symbol in x.shape),
                None,
            )
            i, found = at if at is not None else (place(traced.inputs[number]), axis)
            names[symbol] = sympy.Symbol(f"s{len(symbols)}", **_POSITIVE)
            symbols.append((f"s{len(symbols)}", i, found))
        return _Computed(expression.subs(names), tuple(symbols))

    def template(value: Any) -> Any:
        if isinstance(value, Operand):
            return _Argument(place(value))
        if isinstance(value, sympy.Expr):
            return computed(value)
        return tuple(map(template, value)) if isinstance(value, tuple) else value

    def filled(arguments: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        found = []
        for name, value in sorted(arguments.items(), key=lambda item: _holds_sizes(item[1])):
            if name == "device":
                continue  # that of the inputs
            if owns and isinstance(value, Operand) and value.is_slot:
                owned[name] = value
                found.append((name, _Argument(name)))
            else:
                found.append((name, template(value)))
        return tuple(found)

    training, evaluation = filled(operation.arguments), filled(operation.evaluation)
    if not inputs:
        place(traced.inputs[0])  # for its device
    call = OpaqueCall(
        operation.target, training, evaluation, tuple(x.dtype for x in inputs), tuple(owned)
    )
    return call, tuple(inputs), owned


def _holds_sizes(value: Any) -> bool:
    """Whether an argument holds sizes; these are read last, when the tensors are known."""
    if isinstance(value, tuple):
        return any(map(_holds_sizes, value))
    return isinstance(value, sympy.Expr)


def opaque_layer(
    call: OpaqueCall,
    name: str,
    inputs: Sequence[Operand],
    owned: Mapping[str, Tensor],
    traced: Trace,
) -> TorchLayer:
    """The layer of a call; `owned` are the tensors that it starts from."""
    module = _Operator(call, owned)
    return from_torch_module(module, *_examples(inputs, traced), name=name)


def _examples(inputs: Sequence[Operand], traced: Trace) -> list[Tensor]:
    axes = traced.axes()
    sizes = {symbol: traced.examples[n].shape[axis] for symbol, (n, axis) in axes.items()}
    shapes = [
        tuple(int(size.subs(sizes)) if isinstance(size, sympy.Expr) else size for size in x.shape)
        for x in inputs
    ]
    return [torch.ones(shape, dtype=x.dtype) for shape, x in zip(shapes, inputs, strict=True)]


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Run torch's own operators: the lstm of oneDNN has no derivative under torch.func.vjp."""
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        yield


class _Operator(torch.nn.Module):
    """One operator as a module: what from_torch_module makes a layer of."""

    takes_any_strides = True

    def __init__(self, call: OpaqueCall, owned: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.call = call
        for name, tensor in owned.items():
            if isinstance(tensor, torch.nn.Parameter):
                self.register_parameter(name, torch.nn.Parameter(tensor.detach().clone()))
            else:
                self.register_buffer(name, tensor.detach().clone())

    def __deepcopy__(self, memo: Any) -> _Operator:
        copied = _Operator(self.call, {name: getattr(self, name) for name in self.call.owned})
        return copied.train(self.training)

    def forward(self, *inputs: Tensor) -> Any:
        """Run the operator with the arguments of the module's mode."""
        if self.call.target._schema.name in _READS_STRIDES:
            inputs = tuple(x.contiguous() for x in inputs)
        arguments = self.call.training if self.training else self.call.evaluation
        named = {name: self._filled(value, inputs) for name, value in arguments}
        schema = self.call.target._schema.arguments
        if any(argument.name == "device" for argument in schema):
            named["device"] = inputs[0].device
        positional = [named[argument.name] for argument in schema if not argument.kwarg_only]
        others = {argument.name: named[argument.name] for argument in schema if argument.kwarg_only}
        with _without_onednn() if self.call.target._schema.name == "aten::lstm" else nullcontext():
            return self.call.target(*positional, **others)

    def _filled(self, value: Any, inputs: Sequence[Tensor]) -> Any:
        match value:
            case _Argument(number=str() as name):
                return getattr(self, name)
            case _Argument(number=int() as number):
                return inputs[number]
            case _Computed():
                return value.value(inputs)
            case tuple():
                return [self._filled(item, inputs) for item in value]
        return value
