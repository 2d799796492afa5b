"""Specs: the shape and dtype of a value, and the initial value of a parameter or state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphnet.errors import ContractError


@dataclass(frozen=True, slots=True)
class Spec:
    """The shape, dtype and device of a tensor, without its numbers.

    Attributes:
        shape: the size of each axis.
        dtype: the dtype.
        device: the device.

    >>> spec = Spec((32, 3, 8, 8))
    >>> spec.shape, spec.numel, spec.size_bytes
    ((32, 3, 8, 8), 6144, 24576)
    >>> spec.dtype, spec.device
    (torch.float32, device(type='cpu'))
    >>> spec.on(torch.device("meta")).empty().is_meta
    True
    >>> Spec.of(torch.zeros(2, 3)) == Spec((2, 3))
    True
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")

    @classmethod
    def of(cls, tensor: Tensor) -> Spec:
        """What is known of this tensor."""
        return cls(tuple(tensor.shape), tensor.dtype, tensor.device)

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """The bytes of its elements."""
        return self.numel * self.dtype.itemsize

    def on(self, device: torch.device) -> Spec:
        """The same on another device."""
        return Spec(self.shape, self.dtype, device)

    def empty(self) -> Tensor:
        """A tensor of this spec with arbitrary numbers; on the device "meta" it has no storage."""
        return torch.empty(self.shape, dtype=self.dtype, device=self.device)

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape)) or 'scalar'} {dtype_name(self.dtype)}"


Initializer = Callable[[Tensor, torch.Generator], Tensor]
"""Fills its first argument in place, with randomness from the generator only, and returns it."""


@dataclass(frozen=True, slots=True)
class Uniform:
    """Initializer: draws from U(-bound, bound).

    Attributes:
        bound: the largest absolute value.

    >>> Uniform(0.5).bound
    0.5
    >>> bool(Uniform(0.5)(torch.empty(9), torch.Generator()).abs().max() <= 0.5)
    True
    """

    bound: float

    def __call__(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        return tensor.uniform_(-self.bound, self.bound, generator=generator)


@dataclass(frozen=True, slots=True)
class Constant:
    """Initializer: fills with one value.

    Attributes:
        value: the value.

    >>> Constant(0.5).value
    0.5
    >>> Constant(0.5)(torch.empty(2), torch.Generator())
    tensor([0.5000, 0.5000])
    """

    value: float

    def __call__(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        return tensor.fill_(self.value)


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """A trainable tensor that a layer asks for: its shape, and what fills it at the start.

    Attributes:
        shape: the size of each axis.
        initializer: a function of a tensor and a generator, which fills the tensor in place.

    >>> spec = ParameterSpec((2, 3), Constant(1.0))
    >>> spec.shape, spec.initializer
    ((2, 3), Constant(value=1.0))
    """

    shape: tuple[int, ...]
    initializer: Initializer

    def __post_init__(self) -> None:
        _check_sizes(self.shape)


@dataclass(frozen=True, slots=True)
class StateSpec:
    """A tensor that is kept between steps but has no gradient.

    Attributes:
        shape: the size of each axis.
        initializer: what fills it at the start.
        dtype: its dtype; None takes the dtype of the parameters.

    >>> spec = StateSpec((3,))
    >>> spec.shape, spec.initializer, spec.dtype
    ((3,), Constant(value=0.0), None)
    """

    shape: tuple[int, ...]
    initializer: Initializer = Constant(0.0)
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        _check_sizes(self.shape)


def _check_sizes(shape: object) -> None:
    """Raise ContractError unless this is a tuple of sizes: a shape of floats would equal that of integers."""
    fits = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
    if not fits:
        raise ContractError(
            f"expected the shape of a parameter or state as a tuple of integers of 0 or more, such as "
            f"(64, 3), got {shape!r}. Divide sizes with //."
        )


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype.

    >>> dtype_name(torch.float32)
    'float32'
    """
    return str(dtype).removeprefix("torch.")
