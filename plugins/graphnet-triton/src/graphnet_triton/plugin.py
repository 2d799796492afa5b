"""The plugin: kernels that are tried before the built-in ones, on a GPU (or in Triton's interpreter)."""

from __future__ import annotations

import torch

import graphnet as gn
from graphnet.sdk import Register
from graphnet_triton import INTERPRETED

GRAPHNET_CONTRACT = 2


@gn.hookimpl
def graphnet_kernels(register: Register) -> None:
    if not torch.cuda.is_available() and not INTERPRETED:
        return  # nothing could run; importing Triton takes a moment, which no command here has to spend
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

    for module in (
        *(chain, affine, fused_convolution, convolution),
        *(mse, batch_norm, layer_norm, gate, updates),
    ):
        for name, kernel in module.KERNELS.items():
            register(name, kernel)
