"""Layers against torch's own sample inputs, the ones that torch tests its operators with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet.builtin import MSE, AtenConv2d, Conv2d, ReLU, Sigmoid, TransposeConv2d
from graphnet.builtin.kernels.aten.activation import (
    AtenGELU,
    AtenLeakyReLU,
    AtenPReLU,
    AtenReLU,
    AtenSigmoid,
    AtenSiLU,
    AtenSoftplus,
    AtenTanh,
)
from graphnet.builtin.kernels.aten.convolution import AtenMSE, AtenTransposeConv2d
from graphnet.builtin.kernels.aten.linear import AtenLinear
from graphnet.builtin.kernels.aten.pool import AtenMaxPool2d
from graphnet.builtin.layers.activation import LeakyReLU, PReLU, Tanh
from graphnet.builtin.layers.linear import Linear
from graphnet.builtin.layers.merge import Add, Concat, Multiply, Subtract
from graphnet.builtin.layers.pool import MaxPool2d
from graphnet.builtin.layers.smooth import GELU, SiLU, Softplus
from graphnet.graph import as_tuple, invoke
from graphnet.sdk import Kernel, Layer, Spec
from tests.support.oracle import kernel_of, random_tensor, relative_error

Sample = tuple[Layer, Mapping[str, Any]]
"""A layer and its arguments by name: a tensor, a tuple of tensors for *xs, or None."""
SAME_COPY = "ignore:Using padding='same' with even kernel lengths:UserWarning"


@pytest.fixture(scope="module")
def op_infos() -> Mapping[str, Any]:
    # Imported here: it takes seconds, and collecting tests should not.
    from torch.testing._internal.common_methods_invocations import op_db

    return {op.name: op for op in op_db if not op.variant_test_name}


ELEMENTWISE: Mapping[str, type[Layer]] = {
    "nn.functional.relu": ReLU,
    "nn.functional.leaky_relu": LeakyReLU,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "nn.functional.gelu": GELU,
    "nn.functional.silu": SiLU,
    "nn.functional.softplus": Softplus,
}


def convolutions(layer_type: type[Layer], samples: Iterator[Any]) -> Iterator[tuple[Any, Sample]]:
    for sample in samples:
        weight, bias = sample.args
        if sample.input.ndim == 4:  # the others are without a batch
            options = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in sample.kwargs.items()
            }
            channels = weight.shape[0]
            if layer_type is TransposeConv2d:
                channels = weight.shape[1] * options.get("groups", 1)
            layer = layer_type(
                out_channels=channels,
                kernel_size=tuple(weight.shape[2:]),
                bias=bias is not None,
                **options,
            )
            yield sample, (layer, {"x": sample.input, "weight": weight, "bias": bias})


def translated(name: str, samples: Iterator[Any]) -> Iterator[tuple[Any, Sample]]:
    """Each sample that one of our layers takes, with that layer and its arguments."""
    match name:
        case "nn.functional.conv2d":
            yield from convolutions(Conv2d, samples)
        case "nn.functional.conv_transpose2d":
            yield from convolutions(TransposeConv2d, samples)
        case _ if name in ELEMENTWISE:
            yield from ((s, (ELEMENTWISE[name](**s.kwargs), {"x": s.input})) for s in samples)
        case "nn.functional.prelu":
            for s in samples:
                if s.args and s.args[0].ndim == 1:
                    (weight,) = s.args
                    layer = PReLU(num_parameters=weight.numel())
                    yield s, (layer, {"x": s.input, "weight": weight})
        case "nn.functional.linear":
            for s in samples:
                weight, bias = s.args if len(s.args) == 2 else (*s.args, None)
                linear = Linear(out_features=weight.shape[0], bias=bias is not None)
                yield s, (linear, {"x": s.input, "weight": weight, "bias": bias})
        case "nn.functional.mse_loss":
            for s in samples:
                if s.kwargs.get("reduction", "mean") == "mean":
                    yield s, (MSE(), {"prediction": s.input, "target": s.args[0]})
        case "nn.functional.max_pool2d":
            for s in samples:
                options = dict(s.kwargs)
                left_out = options.pop("ceil_mode"), options.pop("return_indices")
                if s.input.ndim == 4 and not any(left_out):
                    yield s, (MaxPool2d(**options), {"x": s.input})
        case "add":
            for s in samples:
                if s.input.shape == s.args[0].shape and not s.kwargs:
                    yield s, (Add(), {"xs": (s.input, s.args[0])})
        case "mul":
            for s in samples:
                if s.input.ndim == s.args[0].ndim:
                    yield s, (Multiply(), {"x": s.input, "other": s.args[0]})
        case "sub":
            for s in samples:
                if s.input.ndim == s.args[0].ndim and not s.kwargs:
                    yield s, (Subtract(), {"x": s.input, "other": s.args[0]})
        case "cat":
            for s in samples:
                if len({x.ndim for x in s.input}) == 1:  # torch also takes an empty 1-D tensor
                    dim = s.args[0] if s.args else s.kwargs.get("dim", 0)
                    yield s, (Concat(dim=dim), {"xs": tuple(s.input)})


def expected(op: Any, sample: Any) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """The output, a gradient for it, and the gradients of all tensors, input first."""
    y = op.op(sample.input, *sample.args, **sample.kwargs)
    grad_y = random_tensor(y.shape, seed=7, device=y.device)
    leaves = [t for t in (*as_tuple(sample.input), *sample.args) if isinstance(t, Tensor)]
    grads = torch.autograd.grad(y, leaves, grad_y)
    return y.detach(), grad_y, list(grads)


def found(
    layer: Layer, arguments: Mapping[str, Any], grad_output: Tensor, wanted: frozenset[str]
) -> tuple[Tensor, list[Tensor | None]]:
    """The output and the gradients of a layer, None for those that it does not give."""
    output, *saved = invoke(layer, "forward", arguments)
    named = {
        **arguments,
        "specs": {n: specs_in(value) for n, value in arguments.items()},
        "wanted": wanted,
        layer.outputs[0]: output,
        f"grad_{layer.outputs[0]}": grad_output,
        **dict(zip(layer.saves, saved, strict=True)),
    }
    grads = layer.backward(**{name: named[name] for name in layer.signature.backward})
    return output, list(as_tuple(grads))


def specs_in(value: Any) -> Any:
    if isinstance(value, Sequence):
        return tuple(map(specs_in, value))
    return None if value is None else Spec(tuple(value.shape), value.dtype, value.device)


@pytest.mark.filterwarnings(SAME_COPY)
@pytest.mark.parametrize(
    ("name", "kernel", "at_least"),
    [
        ("nn.functional.conv2d", AtenConv2d, 12),
        ("nn.functional.conv_transpose2d", AtenTransposeConv2d, 5),
        ("nn.functional.relu", AtenReLU, 4),
        ("nn.functional.leaky_relu", AtenLeakyReLU, 9),
        ("nn.functional.prelu", AtenPReLU, 4),
        ("sigmoid", AtenSigmoid, 3),
        ("tanh", AtenTanh, 1),
        ("nn.functional.gelu", AtenGELU, 8),
        ("nn.functional.silu", AtenSiLU, 3),
        ("nn.functional.softplus", AtenSoftplus, 3),
        ("nn.functional.linear", AtenLinear, 18),
        ("mul", None, 4),
        ("sub", None, 2),
        ("nn.functional.mse_loss", AtenMSE, 4),
        ("nn.functional.max_pool2d", AtenMaxPool2d, 200),
        ("cat", None, 6),
        ("add", None, 2),
    ],
)
def test_layer_equals_torch_on_the_sample_inputs_of_its_operator(
    name: str,
    kernel: type[Kernel] | None,
    at_least: int,
    op_infos: Mapping[str, Any],
    device: torch.device,
) -> None:
    torch.manual_seed(0)
    op, used, by_kernel = op_infos[name], 0, 0
    samples = op.sample_inputs(device, torch.float64, requires_grad=True)
    for sample, (layer, arguments) in translated(name, samples):
        y, grad_y, true_grads = expected(op, sample)
        plain = {n: detached(value) for n, value in arguments.items()}
        inputs = [t for v in plain.values() for t in as_tuple(v) if isinstance(t, Tensor)]
        other = None
        if kernel is not None:
            first = inputs[:2] if layer.outputs == ("loss",) else inputs[:1]
            other = kernel_of(kernel, layer, first)
        wanted = frozenset(n for n, v in plain.items() if v is not None)
        used, by_kernel = used + 1, by_kernel + (other is not None)
        for implementation in filter(None, (layer, other)):
            output, grads = found(implementation, plain, grad_y, wanted)
            assert relative_error(output, y) <= 1e-10
            given = [g for g in grads if g is not None]
            assert len(given) == len(true_grads) - len(layer.nondifferentiable)
            for grad, true in zip(given, true_grads, strict=False):
                assert relative_error(grad, true) <= 1e-10
    assert used >= at_least
    if kernel is not None:
        assert by_kernel >= at_least - 2  # uneven "same" padding stays with the reference


def detached(value: Any) -> Any:
    if isinstance(value, Sequence):
        return tuple(map(detached, value))
    return None if value is None else value.detach()
