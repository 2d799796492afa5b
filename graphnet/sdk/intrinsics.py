"""The few definitions that the compiler itself puts into a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from graphnet.sdk import random
from graphnet.sdk.blocks import Layout, pack, unpack
from graphnet.sdk.definition import Definition
from graphnet.sdk.layer import Layer, Loss, Precision, Specs

DType = Literal["float32", "bfloat16", "float16", "float64"]
DTYPES: dict[DType, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_LEAST_WEIGHT = 1e-12  # the least divisor, so that a batch in which nothing counts has a loss of 0


class Key(Layer):
    """The random key of one node in one step: int32 (2,), from 0-dim int64 seed and step.

    Attributes:
        constant: what tells the keys of two nodes apart.
    """

    constant: int

    def forward(self, seed: Tensor, step: Tensor) -> Tensor:
        return random.key(seed, step, self.constant)


class Accumulate(Layer):
    """The sum of the gradients that reach one value, or of several losses, in a fixed order."""

    overwrites: ClassVar[Mapping[str, str]] = {"y": "xs"}

    def forward(self, *xs: Tensor) -> Tensor:
        total = xs[0]
        for x in xs[1:]:
            total = total + x
        return total

    def forward_(self, *xs: Tensor) -> Tensor:
        for x in xs[1:]:
            xs[0].add_(x)
        return xs[0]

    def backward(self, grad_y: Tensor, specs: Specs) -> tuple[Tensor, ...]:
        return (grad_y,) * len(specs["xs"])


class WeightedSum(Layer):
    """The sum of weights[i] xs[i]; each input's gradient is grad_y times its weight.

    Attributes:
        weights: a number for each input.
    """

    weights: tuple[float, ...]

    def forward(self, *xs: Tensor) -> Tensor:
        total = xs[0] * self.weights[0]
        for x, weight in zip(xs[1:], self.weights[1:], strict=True):
            total = total + x * weight
        return total

    def backward(self, grad_y: Tensor) -> tuple[Tensor, ...]:
        return tuple(grad_y * weight for weight in self.weights)


class Times(Layer):
    """x times a number.

    Attributes:
        factor: the number.
    """

    factor: float

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y * self.factor


class LossWeight(Layer):
    """The weight of a part of a batch in the loss of the whole batch.

    Attributes:
        loss: the loss, which defines `weight`.
        dtype: that of the loss.
    """

    nondifferentiable: ClassVar[tuple[str, ...]] = ("targets",)
    loss: Loss
    dtype: DType

    def forward(self, *targets: Tensor) -> Tensor:
        weight: Tensor = self.loss.weight(*targets)
        return weight.to(DTYPES[self.dtype])


class Weighted(Layer):
    """x weight / total, where total is the sum of all weights: the share of a part in the loss of a batch.

    If total is 0, the share is 0. All are 0-dim; weight and total get no gradient.
    """

    nondifferentiable: ClassVar[tuple[str, ...]] = ("weight", "total")

    def forward(self, x: Tensor, weight: Tensor, total: Tensor) -> Tensor:
        return x * (weight / total.clamp_min(_LEAST_WEIGHT))

    def backward(self, grad_y: Tensor, weight: Tensor, total: Tensor) -> tuple[Tensor, None, None]:
        return grad_y * (weight / total.clamp_min(_LEAST_WEIGHT)), None, None


class MicroBatch(Layer):
    """The samples of one micro-batch: one of several equal parts of x along axis 0, as a view.

    Attributes:
        index: the number of the part, from 0.
        count: the number of parts.
    """

    index: int
    count: int

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {"x": (), "y": ()}

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[0] // self.count
        return x.narrow(0, self.index * size, size)


class MicroStep(Layer):
    """The step count from which the random keys of one micro-batch are made: step * total + its number.

    The number is rank * count + index.

    Attributes:
        index: the number of the micro-batch among those of its process.
        count: the number of micro-batches of a process.
        total: their number in all processes.
    """

    index: int
    count: int
    total: int

    def forward(self, step: Tensor, rank: Tensor) -> Tensor:
        return step * self.total + (rank * self.count + self.index)


class Scaled(Layer):
    """x times a 0-dim factor, in the dtype of x."""

    overwrites: ClassVar[Mapping[str, str]] = {"y": "x"}

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        return x * factor

    def forward_(self, x: Tensor, factor: Tensor) -> Tensor:
        return x.mul_(factor)


class ScaleShift(Layer):
    """scale x + shift for each channel: what a norm with fixed statistics computes.

    x: (N, C, ...); scale, shift: (C,), which get no gradient. grad_x = scale grad_y.
    """

    overwrites: ClassVar[Mapping[str, str]] = {"y": "x", "grad_x": "grad_y"}
    nondifferentiable: ClassVar[tuple[str, ...]] = ("scale", "shift")

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return x * _by_channel(scale, x) + _by_channel(shift, x)

    def forward_(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return x.mul_(_by_channel(scale, x)).add_(_by_channel(shift, x))

    def backward(self, grad_y: Tensor, scale: Tensor) -> tuple[Tensor, None, None]:
        return grad_y * _by_channel(scale, grad_y), None, None

    def backward_(self, grad_y: Tensor, scale: Tensor) -> tuple[Tensor, None, None]:
        return grad_y.mul_(_by_channel(scale, grad_y)), None, None


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *(1 for _ in x.shape[2:]))


class Cast(Layer):
    """x in another floating dtype; its gradient goes back to the dtype of x.

    Attributes:
        dtype: the other dtype, one of DTYPES.
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"
    dtype: DType

    def forward(self, x: Tensor) -> Tensor:
        return x.to(DTYPES[self.dtype])

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        return grad_y.to(specs["x"].dtype)


class Convert(Layer):
    """An image moved from one layout to another; None stands for N C H W.

    Attributes:
        source: the layout of x.
        target: the layout of y.
    """

    source: Layout | None
    target: Layout | None

    def forward(self, x: Tensor) -> Tensor:
        return _convert(x, self.source, self.target)

    def backward(self, grad_y: Tensor) -> Tensor:
        return _convert(grad_y, self.target, self.source)


def _convert(x: Tensor, source: Layout | None, target: Layout | None) -> Tensor:
    plain = x if source is None else unpack(x)
    return plain if target is None else pack(plain, target)


class Assign(Definition):
    """Writes a state's new value into its slot.

    >>> slot = torch.zeros(2)
    >>> Assign().update(slot, torch.ones(2))
    >>> slot
    tensor([1., 1.])
    """

    def update(self, slot: Tensor, value: Tensor) -> None:
        """Copy the value into the slot."""
        slot.copy_(value)


class AddTo(Definition):
    """Adds a gradient to a total.

    >>> total = torch.ones(2)
    >>> AddTo().update(total, torch.ones(2))
    >>> total
    tensor([2., 2.])
    """

    def update(self, total: Tensor, gradient: Tensor) -> None:
        """Add the gradient to the total in place."""
        total.add_(gradient)


class Clear(Definition):
    """Sets a slot to zero.

    >>> total = torch.ones(2)
    >>> Clear().update(total)
    >>> total
    tensor([0., 0.])
    """

    def update(self, total: Tensor) -> None:
        """Set the total to zero in place."""
        total.zero_()


class Follow(Definition):
    """Moves an average towards its parameter by a share of their distance.

    >>> average = torch.zeros(2)
    >>> Follow().update(average, torch.ones(2), torch.tensor(0.25))
    >>> average
    tensor([0.2500, 0.2500])
    """

    def update(self, average: Tensor, parameter: Tensor, rate: Tensor) -> None:
        """Move the average in place; rate is 0-dim, in 0..1."""
        average.lerp_(parameter, rate.to(average.dtype))


class IfFinite(Definition):
    """Runs an optimizer's update, and undoes it if a gradient is not finite.

    Attributes:
        rule, method: the method that is called with the arguments after `finite`. If `finite` is False, it
            gets gradients of 0.
        written: the positions of the arguments that it writes.

    >>> guarded = IfFinite(rule=AddTo(), method="update", written=(0,))
    >>> total = torch.ones(2)
    >>> guarded.update(torch.tensor(False), total, torch.tensor([float("inf"), 1.0]))
    >>> total
    tensor([1., 1.])
    """

    rule: Definition
    method: str
    written: tuple[int, ...]

    def update(self, finite: Tensor, parameter: Any, grad: Any, *others: Any) -> None:
        """Run the update; finite is a 0-dim bool, and the others are what the rule's method takes."""
        args = (parameter, grad, *others)
        slots = [slot for i in self.written for slot in _several(args[i])]
        before = [slot.clone() for slot in slots]
        safe = tuple(torch.where(finite, one, 0) for one in _several(grad))
        rest = (safe if isinstance(grad, tuple) else safe[0], *others)
        getattr(self.rule, self.method)(parameter, *rest)
        for slot, old in zip(slots, before, strict=True):
            slot.copy_(torch.where(finite, slot, old))


def _several(arg: Any) -> tuple[Tensor, ...]:
    return arg if isinstance(arg, tuple) else (arg,)
