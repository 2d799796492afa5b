"""Select kernels: which kernels may replace expressions of layers, and in which order they are tried.

Kernels with larger patterns are tried first; among equal sizes, those with a higher `priority`; among these,
those of installed plugins before the built-in ones, then in the order of registration. A kernel replaces an
expression before differentiation, so its own backward is the backward of the whole expression. A kernel that
works in blocks of pixels (see graphnet.sdk.blocks) is used only if no pixels have to be moved inside the
graph for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from graphnet.errors import UnknownNameError, nearest
from graphnet.passes.block_layout import in_blocks
from graphnet.passes.matching import LONGEST_CHAIN
from graphnet.sdk import (
    Entry,
    Kernel,
    Layer,
    MultiTensorKernel,
    Pattern,
    Registry,
    Site,
    has_chain,
    layer_names,
)


def choose(registry: Registry, names: str) -> tuple[Entry, ...]:
    """The kernels of layers that `--kernels` selects, in the order in which they are tried.

    `names` is "auto" (all kernels), "reference" (none) or a namespace such as "aten".

    Raises:
        UnknownNameError: no plugin registered a kernel in this namespace.
    """
    found = (entry for entry in _named(registry, names) if issubclass(entry.value, Kernel))
    return tuple(sorted(found, key=_precedence))


def choose_multi_tensor(registry: Registry, names: str) -> tuple[Entry, ...]:
    """The kernels of updates and casts, by priority, then those of installed plugins; else as `choose`."""
    found = (
        entry for entry in _named(registry, names) if issubclass(entry.value, MultiTensorKernel)
    )
    return tuple(sorted(found, key=lambda e: (-e.value.priority, e.plugin.builtin)))


def _named(registry: Registry, names: str) -> list[Entry]:
    if names == "reference":
        return []
    found = [
        entry
        for entry in registry.kernels.values()
        if names in ("auto", entry.name.partition("/")[0])
    ]
    if not found and names != "auto":
        known = {entry.name.partition("/")[0] for entry in registry.kernels.values()}
        raise UnknownNameError(
            f"unknown kernels {names!r}. {nearest(names, known | {'auto', 'reference'})}"
        )
    return found


def _precedence(entry: Entry) -> tuple[int, int, bool]:
    """The sort key: larger patterns, then higher priorities, then plugins before the built-in one."""
    return -_size(entry.value.pattern), -entry.value.priority, entry.plugin.builtin


def fused(kernels: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The kernels that replace more than one layer."""
    return tuple(entry for entry in kernels if _size(entry.value.pattern) > 1)


def single(kernels: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The kernels that replace one layer."""
    return tuple(entry for entry in kernels if _size(entry.value.pattern) == 1)


def _size(pattern: Pattern) -> int:
    """The most layers that a pattern can match."""
    return len(list(layer_names(pattern))) + (LONGEST_CHAIN if has_chain(pattern) else 0)


def kernel_for(
    layer: Layer, specs: Mapping[str, Any], device: torch.device, registry: Registry
) -> Kernel | None:
    """The first kernel that replaces this layer alone, for arguments of these specs."""
    for entry in choose(registry, "auto"):
        name, *arguments = entry.value.pattern
        if registry.is_named(type(layer), name) and (*arguments,) == layer.signature.tensors:
            kernel: Kernel | None = entry.value.match(Site((layer,), specs, device))
            if kernel is not None and not in_blocks(kernel):
                return kernel
    return None
