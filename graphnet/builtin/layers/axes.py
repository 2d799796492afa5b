"""Layers that rearrange or reduce axes: flatten, reshape, permute, mean."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import pydantic
from torch import Tensor

from graphnet.errors import DescriptionError, GraphError, Problem
from graphnet.sdk import Layer, Precision, Specs


def as_tuple(value: object) -> object:
    """One integer stands for a tuple of one, and a list for a tuple."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Integers = Annotated[
    tuple[int, ...],
    pydantic.BeforeValidator(as_tuple, json_schema_input_type=int | tuple[int, ...]),
]
"""Integers in a list; one integer stands for a list of one."""


class Flatten(Layer):
    """Joins the axes start_dim to end_dim into one, as torch.nn.Flatten; by default all but the batch.

    The gradient of x is that of y with the axes of x again. x: any shape, float. Backward keeps no tensor.

    Raises:
        GraphError: x does not have these axes, or end_dim is before start_dim.

    >>> Flatten().forward(torch.ones(2, 3, 4)).shape
    torch.Size([2, 12])
    """

    precision: ClassVar[Precision] = "follow"
    start_dim: int = 1
    end_dim: int = -1

    def forward(self, x: Tensor) -> Tensor:
        within = all(-x.ndim <= dim < x.ndim for dim in (self.start_dim, self.end_dim))
        if not within or self.start_dim % x.ndim > self.end_dim % x.ndim:
            raise GraphError(
                f"expected an input with the axes {self.start_dim} to {self.end_dim}, in this order, got the "
                f"shape {tuple(x.shape)}"
            )
        return x.flatten(self.start_dim, self.end_dim)

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        return grad_y.reshape(specs["x"].shape)


class Reshape(Layer):
    """Gives the elements of each sample another shape, in the same order, as torch.nn.Unflatten of axis 1.

    `shape` has the axes after the batch; one of them may be -1, which stands for the size that is left. The
    gradient of x is that of y with the axes of x again. x: (N, ...), y: (N, *shape), float. Backward keeps no
    tensor.

    Raises:
        DescriptionError: a size is neither -1 nor greater than 0, or there is more than one -1.
        GraphError: a sample has another number of elements.

    >>> Reshape(shape=(3, -1)).forward(torch.ones(2, 12)).shape
    torch.Size([2, 3, 4])
    """

    precision: ClassVar[Precision] = "follow"
    shape: Integers

    def __post_init__(self) -> None:
        if any(size < 1 and size != -1 for size in self.shape) or self.shape.count(-1) > 1:
            message = (
                f"expected sizes greater than 0, and -1 at most once, found {list(self.shape)}"
            )
            raise DescriptionError([Problem(message, "shape")])

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[tuple[int, ...]]]]:
        """Samples for the conformance kit, which cannot guess a shape that fits."""
        return [(cls(shape=(3, -1)), [(2, 2, 6)]), (cls(shape=(4,)), [(3, 2, 2)])]

    def forward(self, x: Tensor) -> Tensor:
        count, known = math.prod(x.shape[1:]), math.prod([s for s in self.shape if s != -1])
        left = count // known
        if x.ndim == 0 or left * known != count or (-1 not in self.shape and left != 1):
            raise GraphError(
                f"expected samples whose elements fill the shape {list(self.shape)}, got the shape "
                f"{tuple(x.shape)}, whose samples have {count} elements"
            )
        return x.reshape(x.shape[0], *[left if size == -1 else size for size in self.shape])

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        return grad_y.reshape(specs["x"].shape)


class Permute(Layer):
    """Puts the axes into another order, as torch.permute: axis i of y is the axis dims[i] of x.

    The gradient of x is that of y with the axes in the order of x again. x: any shape with len(dims) axes,
    float; y: a view. Backward keeps no tensor.

    Raises:
        DescriptionError: dims does not name each axis once.
        GraphError: x has another number of axes.

    >>> Permute(dims=(0, 2, 1)).forward(torch.ones(2, 3, 4)).shape
    torch.Size([2, 4, 3])
    """

    precision: ClassVar[Precision] = "follow"
    dims: Integers

    def __post_init__(self) -> None:
        if sorted(self.dims) != list(range(len(self.dims))):
            message = f"expected each axis from 0 once, such as [0, 2, 1], found {list(self.dims)}"
            raise DescriptionError([Problem(message, "dims")])

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[tuple[int, ...]]]]:
        """Samples for the conformance kit, which cannot guess an order."""
        return [(cls(dims=(0, 2, 1)), [(2, 3, 4)]), (cls(dims=(3, 0, 2, 1)), [(2, 3, 4, 5)])]

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != len(self.dims):
            raise GraphError(
                f"expected an input of {len(self.dims)} axes, as dims {list(self.dims)} has, got the shape "
                f"{tuple(x.shape)}"
            )
        return x.permute(self.dims)

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y.permute(sorted(range(len(self.dims)), key=self.dims.__getitem__))


class Mean(Layer):
    """The mean over one axis or several, as torch.mean.

    With g the gradient of y: dx = g / n at each of the n elements that a mean is of. x: any shape with the
    axes `dim`, float; y: x without these axes, or with size 1 on them if keepdim. Backward keeps no tensor.

    Raises:
        GraphError: x does not have these axes, or one is named twice.

    >>> Mean(dim=[0, 1]).dim, Mean(dim=1).dim
    ((0, 1), (1,))
    >>> Mean(dim=1).forward(torch.tensor([[1.0, 3.0], [2.0, 4.0]]))
    tensor([2., 3.])
    """

    precision: ClassVar[Precision] = "follow"
    dim: Integers
    keepdim: bool = False

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[tuple[int, ...]]]]:
        """Samples for the conformance kit: one axis, two axes, and all axes."""
        return [
            (cls(dim=(1,)), [(2, 3, 4)]),
            (cls(dim=(-1, 1), keepdim=True), [(2, 3, 2, 4)]),
            (cls(dim=(0,)), [(5,)]),
        ]

    def axes(self, shape: tuple[int, ...]) -> list[int]:
        """Return the axes counted from the first, in order."""
        found = sorted({dim % len(shape) for dim in self.dim if -len(shape) <= dim < len(shape)})
        if len(found) != len(self.dim) or not found:
            raise GraphError(
                f"expected an input with the axes {list(self.dim)}, each named once, got the shape {shape}"
            )
        return found

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axes(tuple(x.shape)), keepdim=self.keepdim)

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        shape: tuple[int, ...] = specs["x"].shape
        axes = self.axes(shape)
        if not self.keepdim:
            for axis in axes:
                grad_y = grad_y.unsqueeze(axis)
        return (grad_y / max(1, math.prod([shape[axis] for axis in axes]))).expand(shape)
