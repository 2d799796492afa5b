"""Init: the initial values of the weight and the bias of y = W x + b.

layers:
  - conv2d: {out_channels: 64, kernel_size: 3, padding: 1, weight_init: dirac}
  - conv2d: {out_channels: 3, kernel_size: 3, padding: 1, weight_init: zeros}
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from graphnet.sdk.spec import Constant, Initializer, ParameterSpec, Uniform

LinearInit = Literal[
    "kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform", "orthogonal", "zeros"
]
ConvInit = Literal[LinearInit, "dirac"]


@dataclass(frozen=True, slots=True)
class Init:
    """The function of torch.nn.init with this name and its defaults; only "dirac" takes `groups`.

    kaiming: He et al. 2015, eq. 10; xavier: Glorot & Bengio 2010, eq. 16; orthogonal: Saxe et al. 2013;
    dirac: output channel i copies input channel i, through the middle of its kernel, for each i that both
    have. Numbers in half precision are rounded from float32.

    >>> Init("dirac")(torch.empty(2, 2, 1, 1), torch.Generator()).flatten()
    tensor([1., 0., 0., 1.])
    """

    name: ConvInit
    groups: int = 1

    def __call__(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        match self.name:
            case "zeros":
                return tensor.zero_()
            case "dirac":
                return torch.nn.init.dirac_(tensor, self.groups)
        wide = tensor if tensor.dtype.itemsize > 2 else tensor.float()
        getattr(torch.nn.init, f"{self.name}_")(wide, generator=generator)
        return tensor.copy_(wide)


def weight_and_bias(
    weight: tuple[int, ...],
    bias: tuple[int, ...] | None,
    *,
    init: ConvInit | None = None,
    groups: int = 1,
) -> dict[str, ParameterSpec | None]:
    """Both parameters by their shapes: the weight starts as `init` says and the bias at 0.

    Without `init` both start as in torch's layers: U(-b, b), b = 1 / sqrt(numbers in weight[0]).

    >>> weight_and_bias((8, 4), (8,))["bias"]
    ParameterSpec(shape=(8,), initializer=Uniform(bound=0.5))
    """
    uniform = Uniform(1.0 / math.sqrt(math.prod(weight[1:])))
    starts: tuple[Initializer, Initializer] = (
        (uniform, uniform) if init is None else (Init(init, groups), Constant(0.0))
    )
    return {
        "weight": ParameterSpec(weight, starts[0]),
        "bias": None if bias is None else ParameterSpec(bias, starts[1]),
    }
