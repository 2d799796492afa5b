"""The operator of the chain kernel, registered so that torch's compiler calls it as it is.

torch.ops.graphnet_cpu.patch_chain(x, target, parameters, flags, logistic, wants_x)
    Computes the mean squared error of a chain of patch layers, the gradient of x, and the gradients of the
    parameters, one after the other. Without `wants_x`, the gradient of x is empty. x and target are in
    blocks. For each product, `flags` say whether it is transposed, whether it has a bias, and whether a relu
    follows; with `logistic`, a sigmoid ends the chain.

`chain.cpp` adds up in float32, or in float64 for float64; the loss and the parameters' gradients have this
dtype too. bfloat16 needs even sides of all weights' matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from graphnet.builtin import (
    Flags,
    chain_flops,
    chain_shapes,
    matrix_of,
    patches_of,
    products_of,
)
from graphnet.sdk import register_operator
from graphnet.system import Native

CPP = Native(Path(__file__).with_name("chain.cpp"))


def chain_of(
    x: Tensor,
    target: Tensor,
    parameters: Sequence[Tensor],
    flags: Flags,
    logistic: bool,
    wants_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    x, target = x.contiguous(), target.contiguous()
    made = loss, slope, slopes = chain_shapes(x, target, parameters, flags, logistic, wants_x)
    products = list(products_of(parameters, flags))
    pixels, rows = patches_of([product[0] for product in products], flags[::3])
    matrices = [matrix_of(weight) for weight, *_ in products]
    biases = [None if bias is None else bias.contiguous() for _, bias, _, _ in products]
    steps: list[int] = []
    for (weight, _, transposed, relu), count, matrix in zip(products, rows, matrices, strict=True):
        w = matrix if transposed else matrix.t()
        taps = weight[0, 0].numel() if transposed else 1
        steps += (count, *w.shape, *w.stride(), taps, relu, not transposed)
    CPP.call(
        *("train", x, target, x.numel() // (x.shape[-1] * pixels), len(products), steps),
        [matrix.data_ptr() for matrix in matrices],
        [0 if bias is None else bias.data_ptr() for bias in biases],
        *(logistic, loss, slope if wants_x else None, slopes, torch.get_num_threads()),
    )
    return made


patch_chain = register_operator(
    "patch_chain(Tensor x, Tensor target, Tensor[] parameters, bool[] flags, bool logistic, "
    "bool wants_x) -> (Tensor, Tensor, Tensor)",
    chain_of,
    chain_shapes,
    namespace="graphnet_cpu",
)
register_flop_formula(patch_chain)(chain_flops)
