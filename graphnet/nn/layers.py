"""The modules of activations and of the loss."""

from __future__ import annotations

from typing import Any

from graphnet.nn.module import Module, layer_named


class ReLU(Module):
    """max(x, 0), elementwise.

    >>> ReLU()(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(layer_named("relu"), **options)


class Sigmoid(Module):
    """1 / (1 + exp(-x)), elementwise.

    >>> Sigmoid()(torch.zeros(2))
    tensor([0.5000, 0.5000])
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(layer_named("sigmoid"), **options)


class MSE(Module):
    """The mean squared error of (prediction, target); `backward()` returns the prediction's gradient.

    >>> criterion = MSE()
    >>> float(criterion(torch.ones(2), torch.zeros(2)))
    1.0
    >>> criterion.backward()
    tensor([1., 1.])
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(layer_named("mse"), **options)
