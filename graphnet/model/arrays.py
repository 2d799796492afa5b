"""Arrays: numpy arrays as inputs of a prediction, and its outputs as numpy arrays. numpy is not imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from graphnet.errors import InputError


class Array(Protocol):
    """A numpy array, for type checkers."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any: ...


def as_tensors(given: Sequence[Any], where: str) -> tuple[Any, ...]:
    """The inputs of a caller, with a tensor of its dtype for each numpy array.

    Raises:
        InputError: torch has no tensors of an array's dtype; `where` says whose inputs they are.

    >>> as_tensors([torch.ones(2).numpy()], "predict")
    (tensor([1., 1.]),)
    """
    return tuple(
        _tensor(one, f"{where}: input {position}") if _is_array(one) else one
        for position, one in enumerate(given)
    )


def like_given(outputs: Any, given: Sequence[object], where: str) -> Any:
    """The outputs, a tensor or a tuple of several, as numpy arrays if an input of the caller was one.

    Raises:
        InputError: numpy has no arrays of an output's dtype.

    >>> like_given(torch.ones(2), [torch.ones(2).numpy()], "predict")
    array([1., 1.], dtype=float32)
    >>> like_given(torch.ones(2), [torch.ones(2)], "predict")
    tensor([1., 1.])
    """
    if not any(map(_is_array, given)):
        return outputs
    if isinstance(outputs, tuple):
        return tuple(_array(one, where) for one in outputs)
    return _array(outputs, where)


def _is_array(found: object) -> bool:
    numpy = sys.modules.get("numpy")  # whoever has an array has imported it
    return numpy is not None and isinstance(found, numpy.ndarray)


def _tensor(array: Any, where: str) -> Tensor:
    plain = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    try:
        return torch.from_numpy(array if plain else array.copy())
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{where}: expected an array of numbers in the machine's byte order, got an ndarray of "
            f"{array.dtype}: {error}"
        ) from error


def _array(output: Tensor, where: str) -> Any:
    if output.dtype == torch.bfloat16:
        raise InputError(
            f"{where}: numpy has no bfloat16, the dtype of the output. Give tensors in the place of arrays."
        )
    return output.cpu().numpy()
