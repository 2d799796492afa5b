"""The plugin: kernels for CPUs, tried before the built-in ones; none matches without a C++ compiler."""

from __future__ import annotations

import graphnet as gn
from graphnet.sdk import Register
from graphnet_cpu import gemm, strided, winograd

GRAPHNET_CONTRACT = 2


@gn.hookimpl
def graphnet_kernels(register: Register) -> None:
    for module in (winograd, gemm, strided):  # the first that fits is taken
        for name, kernel in module.KERNELS.items():
            register(name, kernel)
