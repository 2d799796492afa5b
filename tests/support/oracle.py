"""What the tests of layers share: random tensors of any strides, and errors measured against torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from graphnet.graph import as_tuple, bind_inputs
from graphnet.sdk import Kernel, Layer, Site, Spec

STRIDES = ("contiguous", "channels_last", "reversed", "sliced", "expanded")


def random_tensor(
    shape: Sequence[int],
    *,
    seed: int,
    strides: str = "contiguous",
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Normal numbers, drawn on the CPU so that every device sees the same ones."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(tuple(shape), generator=generator, dtype=torch.float64).to(device, dtype)
    match strides:
        case "channels_last":
            return values.contiguous(memory_format=torch.channels_last)
        case "reversed":
            axes = tuple(reversed(range(values.ndim)))
            return values.permute(axes).contiguous().permute(axes)
        case "sliced":  # every other element of a wider tensor, beginning with the second
            wide = values.new_zeros((*shape[:-1], 2 * shape[-1] + 1))
            return wide[..., 1::2].copy_(values)
        case "expanded":  # stride 0 along the first two axes
            return values[:1, :1].expand(*shape)
    return values


def specs_of(tensors: Mapping[str, Tensor | None]) -> dict[str, Spec | None]:
    return {
        name: None if tensor is None else Spec(tuple(tensor.shape), tensor.dtype, tensor.device)
        for name, tensor in tensors.items()
    }


def kernel_of(kernel: type[Kernel], layer: Layer, inputs: Sequence[Tensor]) -> Layer | None:
    """The kernel in the place of `layer` on these inputs, or None where it does not match."""
    specs = [Spec(tuple(x.shape), x.dtype, x.device) for x in inputs]
    ports = bind_inputs(layer, specs, inputs[0].dtype)
    named = {n: s for n, s in ports.specs.items() if not isinstance(s, tuple)}
    return kernel.match(Site((layer,), named, inputs[0].device))


def relative_error(found: Tensor, expected: Tensor) -> float:
    """max |found - expected| / max |expected|; where that is zero, the absolute error."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.device == expected.device
    if expected.numel() == 0:
        return 0.0
    scale = float(expected.abs().max())
    error = float((found - expected).abs().max())
    return error / scale if scale else error


def central_differences(
    function: Callable[[Tensor], Tensor], x: Tensor, grad_y: Tensor, *, step: float = 1e-6
) -> Tensor:
    """The gradient of sum(grad_y * function(x)), element by element; second-order accurate."""
    gradient = torch.zeros_like(x, memory_format=torch.contiguous_format)
    for i in range(x.numel()):
        shift = torch.zeros_like(gradient)
        shift.view(-1)[i] = step
        change = function(x + shift) - function(x - shift)
        gradient.view(-1)[i] = (grad_y * change).sum() / (2 * step)
    return gradient


def run(
    layer: Layer, arguments: Mapping[str, Tensor | None], grad_y: Tensor | None = None
) -> dict[str, Tensor]:
    """A layer's output y and, for a gradient of it, "grad_<name>" of every argument that is there."""
    asked = {name: arguments[name] for name in layer.signature.forward}
    results = dict(zip(layer.outputs + layer.saves, as_tuple(layer.forward(**asked)), strict=True))
    if grad_y is None:
        return {"y": results["y"]}
    there = frozenset(name for name, tensor in arguments.items() if tensor is not None)
    named = {**arguments, **results, "grad_y": grad_y}
    given = {**named, "specs": specs_of(named), "wanted": there}
    grads = layer.backward(**{name: given[name] for name in layer.signature.backward})
    named_grads = zip(layer.signature.tensors, as_tuple(grads), strict=True)
    return {"y": results["y"]} | {f"grad_{n}": g for n, g in named_grads if n in there}


def run_torch(
    function: Callable[..., Tensor], arguments: Mapping[str, Tensor | None], grad_y: Tensor
) -> dict[str, Tensor]:
    """What `run` returns, by a function of torch and its autograd."""
    sources = {
        n: t.detach().clone().requires_grad_() for n, t in arguments.items() if t is not None
    }
    y = function(**{name: sources.get(name) for name in arguments})
    grads = torch.autograd.grad(y, list(sources.values()), grad_y)
    return {"y": y.detach()} | {f"grad_{n}": g for n, g in zip(sources, grads, strict=True)}


def assert_near(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, bound: float
) -> None:
    """The same names, and relative errors within the bound."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        error = relative_error(found[name], tensor)
        assert error <= bound, f"{name}: {error}"
