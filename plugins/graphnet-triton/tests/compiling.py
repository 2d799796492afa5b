"""Compiles every program for a Hopper GPU, on a machine without one: `python compiling.py bfloat16`.

A driver takes the place of the GPU's; what the operators launch, on CPU tensors, is compiled and not run.
Prints the name of each. GRAPHNET_ALL_PROGRAMS=1 compiles them for more sizes.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from graphnet_triton import (
    affine,
    batch_norm,
    chain,
    convolution,
    fused_convolution,
    gate,
    layer_norm,
    mse,
    updates,
)
from test_operators import CHAINS, drawn
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.backends.nvidia.driver import ty_to_cpp
from triton.runtime import driver
from triton.runtime.jit import JITFunction


class Hopper(DriverBase):  # type: ignore[misc]
    """As much of a driver as the compiler asks for."""

    @classmethod
    def is_active(cls) -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        return str(ty_to_cpp(ty))

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self) -> Any:
        raise NotImplementedError("nothing runs here")


def compile_only(function: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
    """In the place of JITFunction.run, which would launch what it compiled."""
    kernel = RUN(function, *arguments, grid=grid, warmup=True, **options)
    name, shared = function.fn.__name__, kernel.metadata.shared
    if shared > SHARED_BYTES:
        raise ValueError(
            f"{name}: {shared} bytes of shared memory, and a program has {SHARED_BYTES}"
        )
    print(name)
    return kernel


ALL = "GRAPHNET_ALL_PROGRAMS" in os.environ
SIZES = (  # few rows, some, many and very many, for each of which a program takes other blocks
    *(
        (70, 20, 9),
        (1 << 11, 256, 256),
        (1 << 17, 12, 64),
        (1 << 15, 256, 256),
        (1 << 17, 256, 256),
    ),
    *(((1, 1, 1), (1 << 13, 12, 64), (1 << 13, 256, 256), (1 << 17, 12, 200)) if ALL else ()),
    *(((1 << 17, 64, 256), (100_000, 500, 500)) if ALL else ()),
)
PLAIN = ((70, 20, 9), (1 << 11, 256, 256), (1 << 17, 256, 256))  # one size of each program


def products(dtype: torch.dtype) -> None:
    for size in SIZES:
        _products(dtype, *size)
    for size in PLAIN:
        _plain_products(dtype, *size)
    if dtype == torch.float32:
        torch.backends.cuda.matmul.allow_tf32 = True
        for size in ((1 << 13, 12, 64), (1 << 11, 256, 256), (1 << 17, 256, 256)):
            _products(dtype, *size)
        torch.backends.cuda.matmul.allow_tf32 = False
        _products(torch.bfloat16, 1 << 17, 256, 256)  # those for very many rows are of 16 bits only


def _products(dtype: torch.dtype, m: int, k: int, n: int) -> None:
    """With bias and ReLU, which take the most registers and shared memory of a size."""
    x, w, bias, grad = _matrices(dtype, m, k, n)
    y = affine._affine(x, w.t(), bias, True)
    affine._gradients(grad, x, w.t(), y, True, True, True)


def _plain_products(dtype: torch.dtype, m: int, k: int, n: int) -> None:
    x, w, _, grad = _matrices(dtype, m, k, n)
    affine._affine(x, w.t(), None, False)
    affine._gradients(grad, x, w.t(), None, True, False, False)


def _matrices(dtype: torch.dtype, m: int, k: int, n: int) -> tuple[Tensor, ...]:
    return tuple(torch.empty(s, dtype=dtype) for s in ((m, k), (n, k), n, (m, n)))


def norms(dtype: torch.dtype) -> None:
    for channels in (3, 40):
        x, weight = torch.zeros(2, channels, 9, 7, dtype=dtype), torch.zeros(channels, dtype=dtype)
        running = torch.zeros(channels)
        for one in (weight, None):
            _, mean, scale = layer_norm._layer_norm(x, one, one, 1e-6, one is not None)
            layer_norm._layer_norm_gradient(x, x, one, mean, scale, one is not None)
            y, mean, scale, *_ = batch_norm._batch_norm_relu(
                x, one, one, running, running, 0.1, 1e-5
            )
            batch_norm._batch_norm_relu_gradient(x, x, y, one, mean, scale)


def others(dtype: torch.dtype) -> None:
    x, half = torch.zeros(2, 10, 7, 5, dtype=dtype), torch.zeros(2, 5, 7, 5, dtype=dtype)
    gate._gate(x)
    weight, bias = torch.zeros(4, 10, 3, 3, dtype=dtype), torch.zeros(4, dtype=dtype)
    convolution._conv2d_relu(x, weight, bias, (1, 1), (1, 1), (1, 1), 1)
    convolution._mask_and_sum(x, x)
    gate._gradient(half, x)
    mse._mse(x, x)
    mse._mse(x, x.float())


def convolutions(dtype: torch.dtype) -> None:
    """Of the networks that are measured: few channels, 64 of many pixels, and many of few pixels."""
    sizes = ((128, 3, 40, 64), (128, 64, 40, 64), (16, 256, 16, 256))
    for count, channels, side, made in sizes if ALL else sizes[1:2]:
        x = torch.empty(count, channels, side, side, dtype=dtype)
        weight = torch.empty(made, channels, 3, 3, dtype=dtype)
        for bias in (torch.empty(made, dtype=dtype), None):
            fused_convolution._convolution(
                x, weight, bias, (1, 1), (1, 1), (1, 1), bias is not None
            )


def chains(dtype: torch.dtype) -> None:
    cpu = torch.device("cpu")
    for name in CHAINS if ALL else ("wide", "many"):
        for wants_x in (True, False):
            chain._chain(*drawn(name, dtype, cpu).arguments(wants_x))
    for images in (
        (32, 320) if ALL else (32,)
    ):  # as in the paper, and for tiles as large as they come
        chain._chain(*drawn("paper", dtype, cpu, size=(images, 32, 32)).stored())


def rules(dtype: torch.dtype) -> None:
    lr, step = torch.zeros(()), torch.zeros((), dtype=torch.int64)
    for sizes in ((1, 3, 3000), range(1, 65)):
        xs, grads = ([torch.zeros(n, dtype=d) for n in sizes] for d in (torch.float32, dtype))
        for flag in (True, False):
            rates, finite = (lr, step), torch.tensor(True) if flag else None
            copies = grads if flag else ()
            numbers = 0.9 * flag, 0.5 * flag, 0.1 * flag
            updates._sgd(xs, grads, xs, *rates, *numbers, flag, finite, copies)
            betas, decay = (0.9 * flag, 0.999), 0.1 * flag
            updates._adam(xs, grads, xs, xs, *rates, betas, 1e-8, decay, flag, finite, copies)
        updates._adam(xs, grads, xs, xs, lr, step, (0.9, 0.999), 1e-8, 0.1, False, None, ())
        updates._follow(xs, xs, lr.double())
        updates._cast(xs, dtype)


RUN = JITFunction.run
SHARED_BYTES = 227 * 1024  # of a Hopper GPU's multiprocessor, for one program

if __name__ == "__main__":
    torch.set_grad_enabled(False)
    driver.set_active(Hopper())
    JITFunction.run = compile_only
    for part in (products, convolutions, chains, norms, others, rules):
        part(getattr(torch, sys.argv[1]))
