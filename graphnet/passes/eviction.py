"""Eviction: what rematerialization frees between two uses, and what it inserts to compute it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphnet.graph import Item


@dataclass(frozen=True, slots=True)
class Eviction:
    """A storage to free before position `until`, and the calls that compute it again there.

    `values` are the values in the storage that are still read. `stand_ins` maps values that the calls read
    to their clones that are alive at that position.
    """

    storage: int
    until: int
    calls: tuple[Item, ...]
    values: tuple[str, ...]
    stand_ins: Mapping[str, str]
    seconds: float


@dataclass(frozen=True, slots=True)
class Inserted:
    """What an eviction inserted: the clones, their values with the originals, and their time."""

    calls: frozenset[str]
    originals: Mapping[str, str]
    seconds: float
