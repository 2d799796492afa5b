"""Builtin: the built-in plugin: layers, losses, kernels, optimizers and schedules, by the public hooks.

Nothing comes in; classes go out to the registry. It imports the SDK, system and errors, as any plugin may.
"""

from __future__ import annotations

from graphnet.builtin.kernels.aten.convolution import AtenConv2d
from graphnet.builtin.kernels.multi_tensor import FusedAdam, lie_alike
from graphnet.builtin.kernels.patch.chain import (
    Flags,
    PatchChain,
    chain_flops,
    chain_shapes,
    patches_of,
    products_of,
)
from graphnet.builtin.kernels.patch.products import (
    Fused,
    Patch,
    PatchConv2d,
    PatchConv2dReLU,
    PatchTransposeConv2d,
    PatchTransposeConv2dReLU,
    affine_flops,
    affine_gradients_flops,
    affine_gradients_shape,
    affine_shape,
    matrix_of,
)
from graphnet.builtin.layers.activation import ReLU, Sigmoid
from graphnet.builtin.layers.conv import Conv2d, Correlation
from graphnet.builtin.layers.layer_norm import LayerNorm2d
from graphnet.builtin.layers.merge import Add
from graphnet.builtin.layers.norm import BatchNorm2d
from graphnet.builtin.layers.transpose_conv import TransposeConv2d
from graphnet.builtin.layers.upsample import NearestUpsampling
from graphnet.builtin.losses.pixel import MSE
from graphnet.builtin.optimizers.adam import Adam, AdamW
from graphnet.builtin.optimizers.muon import Muon
from graphnet.builtin.optimizers.sgd import SGD

__all__ = [
    "MSE",
    "SGD",
    "Adam",
    "AdamW",
    "Add",
    "AtenConv2d",
    "BatchNorm2d",
    "Conv2d",
    "Correlation",
    "Flags",
    "Fused",
    "FusedAdam",
    "LayerNorm2d",
    "Muon",
    "NearestUpsampling",
    "Patch",
    "PatchChain",
    "PatchConv2d",
    "PatchConv2dReLU",
    "PatchTransposeConv2d",
    "PatchTransposeConv2dReLU",
    "ReLU",
    "Sigmoid",
    "TransposeConv2d",
    "affine_flops",
    "affine_gradients_flops",
    "affine_gradients_shape",
    "affine_shape",
    "chain_flops",
    "chain_shapes",
    "lie_alike",
    "matrix_of",
    "patches_of",
    "products_of",
]
