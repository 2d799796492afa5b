"""ATen kernel of linear: products of matrices, the bias added within the product."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from graphnet.sdk import Kernel, Layer, Site


class AtenLinear(Kernel):
    """linear as one addmm over all rows."""

    replaces = "linear(x, weight, bias)"

    @classmethod
    def match(cls, site: Site) -> Self | None:
        return cls()

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        y = rows @ weight.t() if bias is None else torch.addmm(bias, rows, weight.t())
        return y.view(*x.shape[:-1], weight.shape[0])

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows = grad_y.reshape(-1, weight.shape[0])
        return (
            (rows @ weight).view(x.shape) if "x" in wanted else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if "weight" in wanted else None,
            rows.sum(0) if "bias" in wanted else None,
        )


KERNELS: dict[str, type[Layer]] = {"aten/linear": AtenLinear}
