"""Dropout: backward computes the mask again, so that no mask is kept in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from graphnet.sdk import Layer, Precision, random


class Dropout(Layer):
    """Sets each element to 0 with probability p, and scales the others by 1 / (1 - p), as torch.nn.Dropout.

    Srivastava et al. 2014, with the factor in training, so that inference is the identity:
        y = m x / (1 - p),  dx = m g / (1 - p),  m = (u >= p), u uniform in [0, 1).
    u is a hash of the node's key and the element's position (graphnet.sdk.random): it is the same in forward
    and backward, and differs between nodes and steps. In a layout of blocks of pixels the position is that in
    memory, so a kernel with another layout may drop other elements.
    x, y: any shape. Backward keeps no tensor. A dropped NaN or infinity gives NaN, as in torch.

    >>> Dropout(p=0.1).inference(torch.tensor([3.0]))
    tensor([3.])
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"
    overwrites: ClassVar[Mapping[str, str]] = {"y": "x", "grad_x": "grad_y"}
    p: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5

    @property
    def factor(self) -> float:
        return 0.0 if self.p == 1.0 else 1.0 / (1.0 - self.p)

    def mask(self, x: Tensor, key: Tensor) -> Tensor:
        """Return a mask that is True for the elements that stay."""
        return random.uniform(key, x.shape) >= self.p

    # Two products: that with the mask is exact, so the result is rounded once, in any dtype.

    def forward(self, x: Tensor, key: Tensor) -> Tensor:
        return x * self.mask(x, key) * self.factor

    def forward_(self, x: Tensor, key: Tensor) -> Tensor:
        return x.mul_(self.mask(x, key)).mul_(self.factor)

    def backward(self, grad_y: Tensor, key: Tensor) -> Tensor:
        return grad_y * self.mask(grad_y, key) * self.factor

    def backward_(self, grad_y: Tensor, key: Tensor) -> Tensor:
        return grad_y.mul_(self.mask(grad_y, key)).mul_(self.factor)

    def inference(self, x: Tensor) -> Tensor:
        return x
