"""JAX: the same networks, weights and optimizers, the whole step jitted with donated tensors, N H W C.

bfloat16 computes in bfloat16 over float32 parameters, with the loss in float32, as the others do; float32
multiplies float32, which on a GPU is not what JAX does by itself. It takes memory as it needs it, like torch.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.networks import Network
from benchmarks.timing import Run
from benchmarks.torch_networks import Residual, UNet
from benchmarks.workloads import Contender, Side, Task, Unavailable, Workload

Array = Any  # jax may not be installed
Weights = Mapping[str, Array]


def contenders(workload: Workload, device: torch.device) -> list[Contender]:
    """JAX's contenders for a workload."""
    build = training if workload.task is Task.TRAIN else inference

    def builder(precision: str) -> Callable[[], Run]:
        return lambda: build(workload, precision, device)

    return [
        Contender(Side.JAX, "jit channels_last", precision, builder(precision), compiled=True)
        for precision in workload.precisions
    ]


def training(workload: Workload, precision: str, device: torch.device) -> Run:
    """One jitted training step."""
    jax = _jax(device)
    jnp = jax.numpy
    forward = _forward(jax, workload.network.module(), precision)
    update, moments = _update(jax, workload.network)
    x, target = (jnp.asarray(_nhwc(image)) for image in workload.images(torch.device("cpu")))

    def step(weights: Weights, state: Array, x: Array, target: Array) -> tuple[Array, Array, Array]:
        def loss_of(weights: Weights) -> Array:
            return jnp.mean((forward(weights, x) - target) ** 2)

        loss, gradients = jax.value_and_grad(loss_of)(weights)
        return loss, *update(weights, gradients, state)

    jitted = jax.jit(step, donate_argnums=(0, 1))
    weights = weights_of(workload.network.module(), jnp)
    carried = [weights, moments(weights)]

    def run() -> Array:
        loss, carried[0], carried[1] = jitted(carried[0], carried[1], x, target)
        return loss.block_until_ready()

    return run


def inference(workload: Workload, precision: str, device: torch.device) -> Run:
    """One jitted forward pass."""
    jax = _jax(device)
    jitted = jax.jit(_forward(jax, workload.network.module(), precision))
    weights = weights_of(workload.network.module(), jax.numpy)
    x = jax.numpy.asarray(_nhwc(workload.images(torch.device("cpu"))[0]))
    return lambda: jitted(weights, x).block_until_ready()


def _jax(device: torch.device) -> Any:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        jax = importlib.import_module("jax")
    except ImportError:
        raise Unavailable(
            "jax is not installed; pip install 'graphnet-framework[benchmarks]'"
        ) from None
    platform = jax.default_backend()
    if (platform == "gpu") != (device.type == "cuda"):
        raise Unavailable(f"jax runs on {platform}, the benchmark on {device.type}")
    jax.config.update("jax_default_matmul_precision", "highest")
    return jax


def weights_of(module: nn.Module, jnp: Any) -> dict[str, Array]:
    """A torch module's parameters by name; kernels as H W I O."""
    return {
        name: jnp.asarray(
            (p.permute(2, 3, 1, 0) if p.ndim == 4 else p).detach().contiguous().numpy()
        )
        for name, p in module.named_parameters()
    }


def _forward(jax: Any, module: nn.Module, precision: str) -> Callable[[Weights, Array], Array]:
    dtype = jax.numpy.dtype(precision)

    def forward(weights: Weights, x: Array) -> Array:
        lowered = {name: weight.astype(dtype) for name, weight in weights.items()}
        return apply(jax, module, lowered, x.astype(dtype)).astype("float32")

    return forward


def apply(jax: Any, module: nn.Module, weights: Weights, x: Array, path: str = "") -> Array:
    """What a torch module computes, for x as N H W C."""

    def inner(name: str, x: Array) -> Array:
        return apply(jax, module.get_submodule(name), weights, x, f"{path}{name}.")

    match module:
        case nn.Conv2d() | nn.ConvTranspose2d():
            y = _convolve(jax.lax, module, weights[f"{path}weight"], x)
            return y if module.bias is None else y + weights[f"{path}bias"]
        case nn.ReLU():
            return jax.nn.relu(x)
        case nn.Sigmoid():
            return jax.nn.sigmoid(x)
        case Residual():
            return x + inner("body", x)
        case nn.Sequential():
            for name, _ in module.named_children():
                x = inner(name, x)
            return x
        case UNet():
            skips = [inner("head", x)]
            for level in range(len(module.downs)):
                skips.append(inner(f"downs.{level}", skips[-1]))
            x = inner("body", skips[-1])
            for level in range(len(module.ups)):
                x = inner(f"ups.{level}", x + skips.pop())
            return inner("tail", x + skips.pop())
    raise Unavailable(f"{type(module).__name__} has no counterpart in jax here")


def _convolve(lax: Any, module: nn.Conv2d | nn.ConvTranspose2d, kernel: Array, x: Array) -> Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    if isinstance(module, nn.ConvTranspose2d):  # its kernel lies as the convolution's it transposes
        return lax.conv_transpose(
            x, kernel, module.stride, "VALID", dimension_numbers=numbers, transpose_kernel=True
        )
    sides = [(int(p), int(p)) for p in module.padding]
    return lax.conv_general_dilated(x, kernel, module.stride, sides, dimension_numbers=numbers)


def _update(
    jax: Any, network: Network
) -> tuple[Callable[[Weights, Weights, Array], tuple[Weights, Array]], Callable[[Weights], Array]]:
    """The optimizer's step, and the state that it begins with."""
    jnp, each, lr = jax.numpy, jax.tree_util.tree_map, network.lr

    def sgd(weights: Weights, gradients: Weights, state: Array) -> tuple[Weights, Array]:
        return each(lambda w, g: w - lr * g, weights, gradients), state

    def adam(weights: Weights, gradients: Weights, state: Array) -> tuple[Weights, Array]:
        count, first, second = state
        count = count + 1
        first = each(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = each(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
        rate, root = lr / (1 - 0.9**count), jnp.sqrt(1 - 0.999**count)
        weights = each(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) / root + 1e-8), weights, first, second
        )
        return weights, (count, first, second)

    def moments(weights: Weights) -> Array:
        return jnp.zeros(()), each(jnp.zeros_like, weights), each(jnp.zeros_like, weights)

    return (sgd, lambda weights: ()) if network.optimizer == "sgd" else (adam, moments)


def _nhwc(image: torch.Tensor) -> Any:
    return image.permute(0, 2, 3, 1).contiguous().numpy()
