"""Explicit: one use of a layer as a torch.autograd.Function that runs the layer's own backward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import GraphnetError, LayerError
from graphnet.graph import gradient_names, invoke
from graphnet.sdk import Layer


@dataclass(frozen=True)
class Use:
    """One layer applied to named values.

    `arguments` holds the value for each of `layer.signature.tensors`: a name, a tuple of names for
    `*xs`, None for an absent parameter. `results` are the names of the outputs, `written` the slots of
    the states in `layer.updates`. `reads` are the values that go in, flat; `keeps` the names that
    backward asks for; `gradients` the arguments that it returns gradients for. `is_loss` holds for a
    kernel in the place of a loss, too.
    """

    layer: Layer
    title: str
    is_loss: bool
    arguments: Mapping[str, str | tuple[str, ...] | None]
    results: tuple[str, ...]
    written: tuple[str, ...]
    specs: Mapping[str, Any]
    reads: tuple[str, ...]
    keeps: tuple[str, ...]
    gradients: tuple[str, ...]


def make_use(
    layer: Layer,
    *,
    title: str,
    is_loss: bool,
    arguments: Mapping[str, str | tuple[str, ...] | None],
    results: tuple[str, ...],
    written: tuple[str, ...],
    specs: Mapping[str, Any],
) -> Use:
    """A Use with what follows from its layer."""
    signature = layer.signature
    known = {*signature.tensors, "key", *layer.outputs, *layer.saves}
    return Use(
        layer=layer,
        title=title,
        is_loss=is_loss,
        arguments=arguments,
        results=results,
        written=written,
        specs=specs,
        reads=_spread(arguments, signature.tensors),
        keeps=tuple(name for name in signature.backward if name in known),
        gradients=gradient_names(layer, specs),
    )


def run_forward(use: Use, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Outputs, saves and new states of a layer; records its backward where a tensor needs a gradient."""
    if not _needs_gradient(tensors):
        with torch.no_grad():
            return _forward(use, tensors)
    if torch.compiler.is_compiling():  # dynamo refuses a tensor that is given to a Function twice
        tensors = [
            tensor.view_as(tensor) if any(tensor is other for other in tensors[:i]) else tensor
            for i, tensor in enumerate(tensors)
        ]
    results: tuple[Tensor, ...] = _Forward.apply(use, *tensors)  # type: ignore[no-untyped-call]
    return results


def run_inference(use: Use, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The outputs that a layer's own `inference` makes."""
    # Dynamo traces no backward that only raises; there, torch says that nothing requires a gradient.
    if torch.compiler.is_compiling() or not _needs_gradient(tensors):
        with torch.no_grad():
            return _infer(use, tensors)
    results: tuple[Tensor, ...] = _Inference.apply(use, *tensors)  # type: ignore[no-untyped-call]
    return results


class _Forward(torch.autograd.Function):
    """forward(use, *tensors): the values that `use.reads` names, then the key if forward asks for it.

    It returns outputs, saves and new states: autograd keeps only a Function's inputs and results, so
    the saves are results nobody else sees.
    """

    @staticmethod
    def forward(use: Use, *tensors: Tensor) -> tuple[Tensor, ...]:
        results = _forward(use, tensors)
        count = len(use.layer.outputs)
        # A save may be the very object that is an output or an argument; autograd must not take it so.
        return results[:count] + tuple(result.detach() for result in results[count:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        use: Use = inputs[0]
        layer = use.layer
        named = {
            **_forward_arguments(use, inputs[1:]),
            **dict(zip(layer.outputs, output, strict=False)),
        }
        named.update(zip(layer.saves, output[len(layer.outputs) :], strict=False))
        ctx.use = use
        ctx.save_for_backward(*_spread(named, use.keeps))
        integers = [y for y in output[: len(layer.outputs)] if not y.is_floating_point()]
        ctx.mark_non_differentiable(*integers, *output[len(layer.outputs) :])
        if layer.signature.optional:
            ctx.set_materialize_grads(False)
            ctx.like = [(y.shape, y.dtype, y.device) for y in output[: len(layer.outputs)]]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        use: Use = ctx.use
        layer = use.layer
        given = list(grads[: len(layer.outputs)])
        if layer.signature.optional:
            for i, name in enumerate(layer.outputs):
                if given[i] is None and f"grad_{name}" not in layer.signature.optional:
                    shape, dtype, device = ctx.like[i]
                    given[i] = torch.zeros(shape, dtype=dtype, device=device)
        needs = _gather(use, layer.signature.tensors, ctx.needs_input_grad[1:])
        wanted = frozenset(
            name
            for name in use.gradients
            if name not in layer.nondifferentiable
            and (any(needs[name]) if isinstance(needs[name], tuple) else needs[name])
        )
        absent = tuple(gradient is None for gradient in given)
        tensors = (*(g for g in given if g is not None), *ctx.saved_tensors)
        # A second derivative can only follow where autograd records this backward (create_graph=True).
        # Dynamo cannot trace a Function inside a backward; there, torch itself refuses.
        recorded = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        run = _Backward.apply if recorded else _backward
        return (None, *run(use, wanted, absent, *tensors))


class _Backward(torch.autograd.Function):
    """The layer's backward as a function of its own, so that a derivative of it is a clear error."""

    @staticmethod
    def forward(
        use: Use, wanted: frozenset[str], absent: tuple[bool, ...], *tensors: Tensor
    ) -> tuple[Tensor | None, ...]:
        return _backward(use, wanted, absent, *tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.use = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise LayerError(
            f"{ctx.use.title}: the derivative of its backward was asked for (a gradient penalty, a "
            f"Hessian), but a graphnet layer states first derivatives only. Leave this layer out of "
            f"that term, or write it in plain torch there."
        )


class _Inference(torch.autograd.Function):
    """A layer's `inference`, which states no backward."""

    @staticmethod
    def forward(use: Use, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _infer(use, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.use = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise LayerError(
            f"{ctx.use.title}: a gradient was asked for in eval mode, where its `inference` runs, which "
            f"states no backward. Call .train() on the module before the forward pass."
        )


def _backward(
    use: Use, wanted: frozenset[str], absent: tuple[bool, ...], *tensors: Tensor
) -> tuple[Tensor | None, ...]:
    """One gradient or None for each tensor that forward was given."""
    layer = use.layer
    rest = iter(tensors)
    gradients = [None if missing else next(rest) for missing in absent]
    named: dict[str, Any] = _gather(use, use.keeps, tuple(rest))
    named.update(zip((f"grad_{name}" for name in layer.outputs), gradients, strict=True))
    named.update(specs=use.specs, wanted=wanted)
    returned = _call(use, "backward", named)
    found = {name: g for name, g in zip(use.gradients, returned, strict=True) if name in wanted}
    flat: list[Tensor | None] = []
    for name in layer.signature.tensors:
        arg = use.arguments[name]
        if isinstance(arg, tuple):
            flat.extend(found.get(name, (None,) * len(arg)))
        elif arg is not None:
            flat.append(found.get(name))
    return (*flat, None) if "key" in layer.signature.forward else tuple(flat)


def _needs_gradient(tensors: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _forward(use: Use, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return _call(use, "forward", _forward_arguments(use, tensors))


def _infer(use: Use, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return _call(use, "inference", _forward_arguments(use, tensors))


def _forward_arguments(use: Use, tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Forward's arguments by name, in its order."""
    layer = use.layer
    named = _gather(use, layer.signature.tensors, tensors)
    named.update(specs=use.specs, key=tensors[-1])
    return {name: named[name] for name in (*layer.signature.forward, "specs")}


def _call(use: Use, method: str, named: dict[str, Any]) -> tuple[Any, ...]:
    try:
        return invoke(use.layer, method, named)
    except GraphnetError:
        raise
    except Exception as error:  # the plugin's own code
        raise LayerError(
            f"{use.title}: {method} failed: {type(error).__name__}: {error}"
        ) from error


def _spread(named: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    """The values of these names, flat, without those that are absent."""
    flat: list[Any] = []
    for name in names:
        value = named[name]
        if isinstance(value, tuple):
            flat.extend(value)
        elif value is not None:
            flat.append(value)
    return tuple(flat)


def _gather(use: Use, names: Sequence[str], tensors: Sequence[Any]) -> dict[str, Any]:
    """Flat tensors by name again: a tuple for `*xs`, None for what is absent."""
    named: dict[str, Any] = {}
    position = 0
    for name in names:
        arg = use.arguments.get(name, name)
        if arg is None:
            named[name] = None
        elif isinstance(arg, tuple):
            named[name] = tuple(tensors[position : position + len(arg)])
            position += len(arg)
        else:
            named[name] = tensors[position]
            position += 1
    return named
