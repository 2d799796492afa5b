"""The plugin: kernels, tried before the built-in ones, where there is a GPU (or Triton's interpreter)."""

from __future__ import annotations

import os

import torch

import graphnet as gn
from graphnet.hookspecs import Register

GRAPHNET_CONTRACT = 1


@gn.hookimpl
def graphnet_kernels(register: Register) -> None:
    interpreted = os.environ.get("TRITON_INTERPRET", "") not in ("", "0")
    if not torch.cuda.is_available() and not interpreted:
        return  # nothing could run; importing Triton takes a moment, which no command here has to spend
    from graphnet_triton import affine, gate, mse, norm

    for module in (affine, mse, norm, gate):
        for name, kernel in module.KERNELS.items():
            register(name, kernel)
