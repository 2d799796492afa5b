"""The layer graphnet/example for graphnet."""

import torch
from torch import Tensor

import graphnet as gn
from graphnet.sdk import Register, Specs

GRAPHNET_CONTRACT = 2


class Example(gn.Layer):
    """x * sigmoid(beta * x), elementwise, with a trained beta (Ramachandran et al. 2017, eq. 1).

    x, y: any shape, any floating dtype; beta: (1,). Backward keeps x and the gate.
    """

    saves = ("gate",)
    start: float = 1.0

    def parameters(self, specs: Specs) -> dict[str, gn.ParameterSpec]:
        return {"beta": gn.ParameterSpec((1,), gn.Constant(self.start))}

    def forward(self, x: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(beta * x)
        return x * gate, gate

    def backward(
        self, grad_y: Tensor, x: Tensor, beta: Tensor, gate: Tensor
    ) -> tuple[Tensor, Tensor]:
        slope = gate * (1 - gate)
        grad_x = grad_y * (gate + beta * x * slope)
        return grad_x, (grad_y * x * x * slope).sum().reshape(1)


@gn.hookimpl
def graphnet_layers(register: Register) -> None:
    register("graphnet/example", Example, version=1)
