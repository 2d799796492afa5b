"""What the tests of layers share: random tensors of any strides, and errors measured against torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from graphnet.layer import Kernel, Layer, Site
from graphnet.observe import bind_inputs
from graphnet.spec import Spec

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
