"""Memory: how much of it a device has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_memory() -> int | None:
    """The bytes of memory that this process can have: the machine's, or the limit of its container.

    None if the system does not say it.
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    for path in _LIMITS:
        try:
            limit = path.read_text().strip()
        except OSError:  # no Linux, or no container
            continue
        if limit.isascii() and limit.isdigit() and len(limit) < 19:  # else "max": no limit
            machine = min(machine, int(limit))
    return machine


def device_memory(device: torch.device) -> int | None:
    """The bytes of memory of a device; None if that is not known."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return machine_memory() if device.type == "cpu" else None
