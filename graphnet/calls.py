"""The few definitions that the compiler itself puts into a graph."""

from __future__ import annotations

from torch import Tensor

from graphnet import random
from graphnet.definition import Definition
from graphnet.layer import Layer, Specs


class Key(Layer):
    """The random key of one node in one step: int32 (2,), from 0-dim int64 seed and step."""

    constant: int

    def forward(self, seed: Tensor, step: Tensor) -> Tensor:
        return random.key(seed, step, self.constant)


class Accumulate(Layer):
    """The sum of the gradients that reach one value, or of several losses, in a fixed order."""

    def forward(self, *xs: Tensor) -> Tensor:
        total = xs[0]
        for x in xs[1:]:
            total = total + x
        return total

    def backward(self, grad_y: Tensor, specs: Specs) -> tuple[Tensor, ...]:
        return (grad_y,) * len(specs["xs"])


class Assign(Definition):
    """Writes a state's new value into its slot."""

    def update(self, slot: Tensor, value: Tensor) -> None:
        slot.copy_(value)
