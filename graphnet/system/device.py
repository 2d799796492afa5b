"""Devices: the requested device or an error, never silently another one; and what it multiplies.

The functions import torch, which takes seconds: `graphnet --help` imports this file, and needs no device.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from graphnet.errors import DeviceError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str | int | torch.device) -> torch.device:
    """Turn the name of a device into a torch.device.

    Args:
        name: "auto" (CUDA if there is a CUDA device, else the CPU), "cpu", "cuda", "cuda:N", or N.

    Raises:
        DeviceError: the name is unknown, or this machine has no such device.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    import torch

    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(f"cuda:{name}" if isinstance(name, int) else name)
    except RuntimeError:
        raise DeviceError(
            f"unknown device {str(name)!r}. Known: auto, cpu, cuda, cuda:N."
        ) from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = device.index or 0
        if index >= count:
            raise DeviceError(
                f"device {str(name)!r} was requested, but this machine has {count or 'no'} CUDA devices. "
                f"Give 'cpu' or 'auto' instead."
            )
        return torch.device("cuda", index)
    if device.type != "cpu":
        raise DeviceError(f"device {str(name)!r} is not supported. Known: auto, cpu, cuda, cuda:N.")
    return torch.device("cpu")


# What limits oneDNN, by which torch multiplies on a CPU, to less than bfloat16's instructions.
_ONEDNN_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_WITHOUT_BFLOAT16 = frozenset(
    {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}
)
_AMPERE = (8, 0)  # the first GPUs whose tensor cores take bfloat16


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions that multiply bfloat16.

    On a CPU AVX512_BF16, AMX_BF16 or those of ARM, unless ATEN_CPU_CAPABILITY or ONEDNN_MAX_CPU_ISA keeps
    torch from them; on a GPU tensor cores for bfloat16. Others convert to float32 and back.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _AMPERE
    has = torch.cpu.get_capabilities()
    if has["architecture"] != "x86_64":
        return bool(has.get("bf16"))
    limit = next((os.environ[name] for name in _ONEDNN_LIMITS if name in os.environ), "")
    return (
        bool(has.get("avx512_bf16") or has.get("amx_bf16"))
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and limit.upper() not in _WITHOUT_BFLOAT16
    )


def device_name(device: torch.device) -> str:
    """Return the device's model, and for a CPU the number of threads that torch uses."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    return f"{_cpu_model()}, {torch.get_num_threads()} threads"


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all submitted work; on the CPU this returns at once."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def processor() -> str:
    """Return the CPU's model and the vector instructions that torch uses on it, such as AVX2."""
    import torch

    return f"{_cpu_model()} {torch.backends.cpu.get_cpu_capability()}"


def _cpu_model() -> str:
    found = None
    with contextlib.suppress(OSError):  # only Linux has this file
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else platform.processor() or platform.machine()
