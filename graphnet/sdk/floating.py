"""Dtypes: what models compute with: floating point, and integers or bools for inputs that are declared so."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from graphnet.errors import InputError
from graphnet.sdk.spec import Spec, dtype_name

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
_NAMES = "float32, float64, bfloat16 or float16"


def check_dtype(dtype: object, where: str) -> None:
    """Check that parameters and inputs can be of a dtype.

    Raises:
        InputError: they cannot; `where` says whose dtype it is.

    >>> check_dtype(torch.int64, "dtype")
    Traceback (most recent call last):
    graphnet.errors.InputError: dtype: expected float32, float64, bfloat16 or float16, got torch.int64.
    """
    if not isinstance(dtype, torch.dtype) or dtype not in FLOATING:
        raise InputError(f"{where}: expected {_NAMES}, got {dtype!r}.")


def check_tensors(tensors: Iterable[object], where: str) -> None:
    """Check that all inputs are tensors.

    Raises:
        InputError: one is not; `where` says whose inputs they are.

    >>> check_tensors([torch.zeros(2, dtype=torch.int64)], "step")
    >>> check_tensors([[0.0, 0.0]], "step")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    graphnet.errors.InputError: step: input 0: expected ...
    """
    for position, found in enumerate(tensors):
        if not isinstance(found, Tensor):
            raise InputError(
                f"{where}: input {position}: expected a tensor, got {_described(found)}.{advice(found)}"
            )
        _check_dense(found, f"{where}: input {position}")


def not_floating(found: object, where: str) -> InputError:
    """The error for something that is not a tensor or spec of floating point.

    >>> str(not_floating(torch.zeros(2, 2, dtype=torch.uint8), "predict: input 0"))[-78:]
    'float16, got 2x2 uint8. Convert an image of 0 to 255 with image.float() / 255.'
    """
    return InputError(
        f"{where}: expected a tensor of {_NAMES}, got {_described(found)}.{advice(found)}"
    )


def check_kind(found: object, dtype: torch.dtype, where: str) -> None:
    """Check that something is a tensor or spec that fits an input of this dtype.

    An input of floating point takes any floating dtype; an input of integers or bools takes its own dtype
    only.

    Raises:
        InputError: it is not; `where` says which function or argument got it.

    >>> check_kind(torch.zeros(2), torch.float64, "data")
    """
    if dtype in FLOATING:
        if not isinstance(found, (Tensor, Spec)) or found.dtype not in FLOATING:
            raise not_floating(found, where)
    elif not isinstance(found, (Tensor, Spec)) or found.dtype != dtype:
        raise not_of_dtype(found, dtype, where)
    _check_dense(found, where)


def unreadable(tensor: Tensor) -> str:
    """Return what is wrong with a tensor that is not dense, or has no values; "" for all others.

    >>> unreadable(torch.zeros(2, 2).to_sparse())
    'expected a dense tensor, got a sparse_coo one. Convert it with x.to_dense().'
    """
    if tensor.is_nested:
        return "expected a dense tensor, got a nested one. Convert it with x.to_padded_tensor(0.0)."
    if tensor.layout != torch.strided:
        kind = str(tensor.layout).removeprefix("torch.")
        return f"expected a dense tensor, got a {kind} one. Convert it with x.to_dense()."
    return "expected a tensor with values, got one on the device meta." if tensor.is_meta else ""


def _check_dense(found: Tensor | Spec, where: str) -> None:
    if isinstance(found, Tensor) and (problem := unreadable(found)):
        raise InputError(f"{where}: {problem}")


def not_of_dtype(found: object, dtype: torch.dtype, where: str) -> InputError:
    """The error for something that is not a tensor of this integer dtype.

    >>> str(not_of_dtype(torch.zeros(2), torch.int64, "predict: input 'tokens'"))
    "predict: input 'tokens': expected a tensor of int64, got 2 float32. Convert it with x.long()."
    """
    expected = dtype_name(dtype)
    return InputError(
        f"{where}: expected a tensor of {expected}, got {_described(found)}.{conversion(found, dtype)}"
    )


def conversion(found: object, dtype: torch.dtype) -> str:
    """A space and a sentence that says how to convert something to this dtype; "" if it has the dtype.

    >>> conversion(torch.zeros(2), torch.int32)
    ' Convert it with x.to(torch.int32).'
    """
    if dtype in FLOATING:
        return advice(found)
    if not isinstance(found, (Tensor, Spec)):
        return f" Make a tensor of it: torch.as_tensor(values, dtype={dtype})."
    if found.dtype == dtype:
        return ""
    return f" Convert it with {'x.long()' if dtype == torch.int64 else f'x.to({dtype})'}."


def advice(found: object) -> str:
    """A space and a sentence that says how to convert something to floating point; "" if it is.

    >>> advice(torch.tensor([True]))
    ' Convert it with x.float().'
    """
    dtype = getattr(found, "dtype", None)
    if not isinstance(found, (Tensor, Spec)):
        if dtype is None:
            return " Make a tensor of it: torch.tensor(values, dtype=torch.float32)."
        scale = " / 255" if str(dtype) == "uint8" else ""
        return f" Make a tensor of it: torch.from_numpy(array).float(){scale}."
    if dtype in FLOATING:
        return ""
    if found.dtype == torch.uint8:
        return " Convert an image of 0 to 255 with image.float() / 255."
    if found.dtype.is_complex:
        return " Give its real and imaginary parts as channels: torch.cat([x.real, x.imag], dim=1)."
    if found.dtype == torch.bool or found.dtype.is_floating_point:
        return " Convert it with x.float()."
    return " Convert it with x.float() and divide by the largest value that it can have."


def _described(found: object) -> str:
    kind = type(found).__name__
    dtype = str(getattr(found, "dtype", "")).removeprefix("torch.")
    shape = getattr(found, "shape", None)
    if not dtype or shape is None:
        return f"a {kind}"
    spec = f"{'x'.join(map(str, shape)) or 'scalar'} {dtype}"
    return spec if isinstance(found, (Tensor, Spec)) else f"a {kind} of {spec}"
