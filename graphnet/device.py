"""Devices by name: what is asked for, or an error; never a silent change."""

from __future__ import annotations

import torch

from graphnet.errors import DeviceError


def resolve(name: str | torch.device) -> torch.device:
    """ "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:N" as a torch.device.

    Raises DeviceError when that device is not there.

    >>> resolve("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(
            f"unknown device {str(name)!r}. Known: auto, cpu, cuda, cuda:N."
        ) from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = device.index or 0
        if index >= count:
            raise DeviceError(
                f"device {str(name)!r} asked for, but {count or 'no'} CUDA devices are there. "
                f"Use --device cpu or auto."
            )
        return torch.device("cuda", index)
    if device.type != "cpu":
        raise DeviceError(f"device {str(name)!r} is not supported. Known: auto, cpu, cuda, cuda:N.")
    return torch.device("cpu")
