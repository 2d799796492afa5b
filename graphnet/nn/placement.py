"""Placement: read the arguments of `Module.to`, which are those of torch.nn.Module.to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphnet.errors import InputError
from graphnet.sdk import check_dtype
from graphnet.system import resolve_device

Device = torch.device | str | int


def target_of(
    given: Sequence[object],
    *,
    device: Device | None,
    dtype: torch.dtype | None,
    tensor: Tensor | None,
) -> tuple[torch.device | None, torch.dtype | None]:
    """Return the device and dtype that the arguments of `Module.to` mean; None leaves one unchanged."""
    forms = "to(dtype), to(device), to(device, dtype) or to(tensor)"

    def once(what: str, before: object, value: object) -> None:
        if before is not None:
            raise InputError(
                f"to: the {what} is given twice, {before} and {value}. Expected {forms}."
            )

    if tensor is not None:
        given = (*given, tensor)
    for position, one in enumerate(given):
        if isinstance(one, Tensor) and len(given) == 1 and device is None and dtype is None:
            device, dtype = one.device, one.dtype
        elif isinstance(one, torch.dtype):
            once("dtype", dtype, one)
            dtype = one
        elif (
            isinstance(one, (str, torch.device, int)) and not isinstance(one, bool) and not position
        ):
            once("device", device, one)
            device = one
        elif one is not None:
            raise InputError(f"to: expected {forms}, got {', '.join(map(_text, given))}.")
    if dtype is not None:
        check_dtype(dtype, "to: dtype")
    return None if device is None else resolve_device(device), dtype


def _text(argument: object) -> str:
    return "a tensor" if isinstance(argument, Tensor) else repr(argument)
