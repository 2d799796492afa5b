"""Unrolled size: what the blocks of a description become is counted before anything is unrolled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphnet.description.model import ModelDescription, NodeDescription
from graphnet.description.yamlfile import undotted
from graphnet.errors import DescriptionError, Problem

MAX_NODES = 20_000
MAX_VALUES = 1_000_000  # in the configurations of all nodes
MAX_LEVELS = 32  # of blocks within blocks


@dataclass(frozen=True, slots=True)
class _Count:
    """What a list of nodes becomes when its blocks are unrolled."""

    nodes: int = 0
    values: int = 0
    levels: int = 0


def check_unrolled_size(description: ModelDescription) -> None:
    """Raise DescriptionError if a description becomes too large when its blocks are unrolled."""
    _Size(description).check()


class _Size:
    """Counts what each block becomes."""

    def __init__(self, description: ModelDescription) -> None:
        self.description = description
        self.blocks: dict[str, _Count] = {}

    def check(self) -> None:
        found = self.count(self.description.layers, ())
        for number, most, what in (
            (found.nodes, MAX_NODES, "nodes"),
            (found.values, MAX_VALUES, "values in the configurations of nodes"),
        ):
            if number > most:
                message = f"expected at most {most:,} {what} when blocks are unrolled, found "
                self.refuse("layers", message + (f"{number:,}" if number < 10**12 else "more"))

    def count(self, nodes: Sequence[NodeDescription], within: tuple[str, ...]) -> _Count:
        blocks = self.description.blocks
        total, values, levels = 0, 0, 0
        for node in nodes:
            own = _values(node.config)
            if node.layer not in blocks:
                total, values = total + 1, values + own
                continue
            if node.layer in within:  # it contains itself, which is said when it is unrolled
                continue
            if node.layer not in self.blocks:
                if len(within) >= MAX_LEVELS:
                    self.too_deep(node.layer)
                inside = (*within, node.layer)
                self.blocks[node.layer] = self.count(blocks[node.layer].layers, inside)
            found = self.blocks[node.layer]
            # An argument may stand in the configuration of each node.
            total, values = total + found.nodes, values + found.values + own * found.nodes
            levels = max(levels, found.levels + 1)
            if levels > MAX_LEVELS:
                self.too_deep(node.layer)
        return _Count(total, values, levels)

    def too_deep(self, block: str) -> None:
        self.refuse(f"blocks.{block}", f"expected at most {MAX_LEVELS} levels of blocks in blocks")

    def refuse(self, path: str, message: str) -> None:
        where = self.description.locations.where(undotted(path))
        raise DescriptionError([Problem(message, path, where)])


def _values(config: Any) -> int:
    """The number of values in a configuration."""
    if isinstance(config, Mapping):
        return sum(map(_values, config.values()))
    return sum(map(_values, config)) if isinstance(config, (list, tuple)) else 1
