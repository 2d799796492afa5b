"""Operators of our own: registered with torch, so that its compiler takes them as they stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

ARITHMETIC = {  # what C++ computes in, by the dtype in memory
    torch.float32: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float64: torch.float64,
}

_torch: Any = torch.library.Library("graphnet", "FRAGMENT")  # type: ignore[no-untyped-call]


def register(
    schema: str,
    compute: Callable[..., Any],
    shapes: Callable[..., Any],
    *,
    devices: Sequence[str] = ("CPU",),
) -> Any:
    """Register torch.ops.graphnet.NAME; `shapes` makes the results' shapes where there is no data.

    Autograd does not see through it: its results are constants to torch.
    """
    name = schema.partition("(")[0]
    _torch.define(schema, tags=torch.Tag.pt2_compliant_tag)
    for device in devices:
        _torch.impl(name, compute, device)
    _torch.impl(name, shapes, "Meta")
    _torch.impl(name, torch.library.fallthrough_kernel, "Autograd")
    return getattr(torch.ops.graphnet, name)
