"""Placement: move modules to devices and dtypes, with the arguments of torch.nn.Module.to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from graphnet.errors import InputError
from graphnet.sdk import check_dtype
from graphnet.system import resolve_device

Device = torch.device | str | int


class Placed:
    """What can be moved to another device or dtype; a subclass defines `_move`."""

    def to(
        self,
        *target: Device | torch.dtype | Tensor | None,
        device: Device | None = None,
        dtype: torch.dtype | None = None,
        tensor: Tensor | None = None,
        non_blocking: bool = False,
    ) -> Self:
        """Move parameters, gradients and states to a device and dtype, as torch.nn.Module.to does.

        The forms are `to(dtype)`, `to(device)`, `to(device, dtype)`, and `to(tensor)` for the device and
        dtype of a tensor. The tensors stay the same objects. Integer states keep their dtype. After `to`,
        call forward before backward. Raises InputError for other arguments or for a dtype that is not of
        floating point, DeviceError if the device does not exist; then nothing is moved.

        >>> from graphnet import nn
        >>> nn.ReLU().to(torch.float64)
        ReLU()
        """
        given = target_of(target, device=device, dtype=dtype, tensor=tensor)
        self._move(*given, non_blocking=non_blocking)
        return self

    def _move(
        self, device: torch.device | None, dtype: torch.dtype | None, *, non_blocking: bool
    ) -> None:
        raise NotImplementedError

    def float(self) -> Self:
        """`to(torch.float32)`."""
        return self.to(torch.float32)

    def double(self) -> Self:
        """`to(torch.float64)`."""
        return self.to(torch.float64)

    def half(self) -> Self:
        """`to(torch.float16)`."""
        return self.to(torch.float16)

    def bfloat16(self) -> Self:
        """`to(torch.bfloat16)`."""
        return self.to(torch.bfloat16)

    def cpu(self) -> Self:
        """`to("cpu")`."""
        return self.to("cpu")

    def cuda(self, device: Device | None = None) -> Self:
        """Move to torch's current GPU, or to the GPU of this number or name."""
        if device is None and torch.cuda.is_available():
            device = torch.cuda.current_device()
        return self.to("cuda" if device is None else device)


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
