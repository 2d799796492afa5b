"""Inputs: what a description states about an input, and whether shapes and tensors fit it.

input: {channels: 3}                       # an image; its height and width are free
input: {shape: [time], dtype: int64}       # tokens: N x time
inputs: {signal: {shape: [1, length]}, mask: {shape: [1, length], dtype: bool}}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import torch

from graphnet.errors import DescriptionError, GraphError, InputError, Problem, shown
from graphnet.sdk import FLOATING, INTEGERS, check_kind, dtype_name

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
INPUT_DTYPES = {dtype_name(dtype): dtype for dtype in (*FLOATING, *INTEGERS)}
Axis = int | str | None
"""The size of an axis, the name of a size that is free, or None for a free size without a name."""


@dataclass(frozen=True)
class InputDescription:
    """What a description states about an input; None for what the data decides.

    `shape` states the axes after the batch: a number is a fixed size, a name is a free size, and equal names
    mean equal sizes. Without it, `channels`, `height` and `width` are the sizes of the axes 1, 2 and 3 where
    they are given, and the number of axes is free. An integer `dtype` or bool is the dtype of the input. A
    floating one means the dtype in which the model is compiled, and so does None.

    Raises:
        DescriptionError: a field has another form, or the input has a `shape` and also sizes of axes.

    >>> str(InputDescription(shape=("time",), dtype="int64"))
    'shape [time], dtype int64'
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    shape: tuple[int | str, ...] | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.shape is not None and not is_shape(self.shape):
            raise DescriptionError(
                [Problem(f"expected {SHAPE_WORDS}, found {self.shape!r}", "shape")]
            )
        for name, size in zip(_SIZES, self.sizes, strict=True):
            if size is not None and not is_size(size):
                raise DescriptionError([Problem(f"expected {SIZE_WORDS}, found {size!r}", name)])
        if self.shape is not None and self.sizes != (None, None, None):
            raise DescriptionError([Problem(BOTH, "shape")])
        if self.dtype is not None and self.dtype not in INPUT_DTYPES:
            known = ", ".join(INPUT_DTYPES)
            raise DescriptionError([Problem(f"expected {known}, found {self.dtype!r}", "dtype")])

    @property
    def sizes(self) -> tuple[int | None, int | None, int | None]:
        """The fields channels, height and width."""
        return self.channels, self.height, self.width

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What the description states about each axis after the batch."""
        return self.sizes if self.shape is None else self.shape

    @property
    def integer(self) -> torch.dtype | None:
        """The dtype of an input of integers or bools; None for an input of floating point."""
        dtype = INPUT_DTYPES[self.dtype] if self.dtype is not None else None
        return dtype if dtype in INTEGERS else None

    def __str__(self) -> str:
        fields: dict[str, object] = {
            name: size for name, size in zip(_SIZES, self.sizes, strict=True) if size is not None
        }
        if self.shape is not None:
            fields["shape"] = f"[{', '.join(map(str, self.shape))}]"
        if self.dtype is not None:
            fields["dtype"] = self.dtype
        return ", ".join(f"{name} {value}" for name, value in fields.items())


_SIZES = ("channels", "height", "width")
SIZE_WORDS = "an integer greater than 0"
SHAPE_WORDS = "a list of sizes, integers greater than 0 or names"
BOTH = "give either shape, or channels, height and width"


def is_size(data: object) -> bool:
    """Whether this is the size of an axis: an integer greater than 0."""
    return isinstance(data, int) and not isinstance(data, bool) and data > 0


def is_shape(data: object) -> bool:
    """Whether this is a list of sizes and names.

    >>> is_shape(["time", 3]), is_shape([0]), is_shape("time")
    (True, False, False)
    """

    def fits(axis: object) -> bool:
        return NAME.fullmatch(axis) is not None if isinstance(axis, str) else is_size(axis)

    return isinstance(data, (list, tuple)) and all(map(fits, data))


def check_shapes(
    title: str, inputs: Mapping[str, InputDescription], shapes: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """Check that the shapes of a model's inputs, which include the batch, are as described.

    Returns:
        The shapes as tuples of int.

    Raises:
        InputError: a shape is something other than integers of 0 or more.
        GraphError: the number of shapes is wrong, or a shape is not as described. `title` names the model.

    >>> check_shapes("model", {"tokens": InputDescription(shape=("time",))}, [[4, 9]])
    ((4, 9),)
    """
    checked = tuple(as_shape(title, shape) for shape in shapes)
    if len(shapes) != len(inputs):
        raise GraphError(
            f"{title}: expected {len(inputs)} input shapes ({', '.join(inputs)}), got {len(shapes)}"
        )
    known: dict[str, tuple[int, str]] = {}
    for (name, described), shape in zip(inputs.items(), checked, strict=True):
        _check_axes(title, name, described, shape)
        for axis, word in enumerate(described.axes, start=1):
            if isinstance(word, str):
                size, other = known.setdefault(word, (shape[axis], name))
                if size != shape[axis]:
                    raise GraphError(
                        f"{title}: input {name!r} ({described}): expected {word} {size} on axis {axis}, "
                        f"as in input {other!r}, got the shape {shape}"
                    )
    return checked


def as_shape(title: str, given: object) -> tuple[int, ...]:
    """The shape as a tuple of int: an equal shape of floats would be the key of wrong cached results.

    Raises InputError unless it has one size or more, all from 0 to 2**63 - 1; `title` says whose it is.

    >>> as_shape("model", [1, 3, 8, 8])
    (1, 3, 8, 8)
    """
    example = "Give the shape of each input, such as (32, 3, 64, 64)."
    if isinstance(given, torch.Tensor):
        raise InputError(f"{title}: expected a shape, got a tensor. Give tuple(x.shape).")
    if isinstance(given, int):
        raise InputError(f"{title}: expected a shape, got the number {given}. {example}")
    try:
        sizes: tuple[Any, ...] = tuple(given)  # type: ignore[arg-type]  # or TypeError
        shape = tuple(map(index, sizes))
    except TypeError:
        sizes = shape = ()
    booleans = any(isinstance(size, bool) for size in sizes)
    if not shape or booleans or not all(0 <= size < 2**63 for size in shape):
        raise InputError(
            f"{title}: expected a shape of one size or more, integers of 0 or more, got {shown(given)}. "
            f"{example}"
        )
    return shape


def _check_axes(title: str, name: str, described: InputDescription, shape: tuple[int, ...]) -> None:
    stated = described.shape
    if stated is not None and len(shape) != len(stated) + 1:
        raise GraphError(
            f"{title}: input {name!r} ({described}): expected {len(stated) + 1} axes, the batch and then "
            f"those of its shape, got the shape {shape}"
        )
    for axis, expected in enumerate(described.axes, start=1):
        found = shape[axis] if axis < len(shape) else None
        if isinstance(expected, int) and found != expected:
            word = f"{_SIZES[axis - 1]} " if stated is None else ""
            batch = f" The first axis is the batch: {(1, *shape)}." if shape[0] == expected else ""
            raise GraphError(
                f"{title}: input {name!r} expects {word}{expected} on axis {axis}, got the shape "
                f"{shape}{'.' if batch else ''}{batch}"
            )


def check_inputs(
    inputs: Mapping[str, InputDescription], tensors: Iterable[object], where: str
) -> None:
    """Check that each input is a tensor, or spec, of the dtype that the description states.

    Raises:
        InputError: one is not; the message names the input. `where` says which function got it.

    >>> check_inputs({"x": InputDescription()}, [torch.zeros(2)], "predict")
    """
    for (name, described), found in zip(inputs.items(), tensors, strict=False):
        stated = "" if described == InputDescription() else f" ({described})"
        dtype = described.integer or torch.float32
        check_kind(found, dtype, f"{where}: input {name!r}{stated}")
