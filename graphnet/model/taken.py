"""Taken: which of some weights a model takes, such as those of a model that was trained for another task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Taken:
    """Which of the given weights a model took, and which it did not.

    Attributes:
        names: the weights that it took.
        missing: its weights that were not given; they keep their values.
        other_shape: its weights that were given in another shape -> the shapes expected and given; they keep
            their values.
        unknown: the given names that it does not have.

    >>> print(Taken.of({"a": torch.zeros(2), "b": torch.zeros(3)}, {"b": torch.ones(3)}))
    took 1 of 2 weights. Not given, so kept: a.
    """

    names: tuple[str, ...]
    missing: tuple[str, ...]
    other_shape: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    unknown: tuple[str, ...]

    @classmethod
    def of(cls, mine: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Taken:
        """Compare given weights with those of a model, by name and shape."""
        shapes = {
            name: (tuple(mine[name].shape), tuple(tensor.shape))
            for name, tensor in given.items()
            if name in mine
        }
        return cls(
            names=tuple(name for name, (expected, found) in shapes.items() if expected == found),
            missing=tuple(name for name in mine if name not in given),
            other_shape={name: pair for name, pair in shapes.items() if pair[0] != pair[1]},
            unknown=tuple(name for name in given if name not in mine),
        )

    def __str__(self) -> str:
        count = len(self.names) + len(self.missing) + len(self.other_shape)
        told = [f"took {len(self.names)} of {count} weights."]
        if self.missing:
            told.append(f"Not given, so kept: {', '.join(self.missing)}.")
        for name, (expected, found) in self.other_shape.items():
            told.append(f"Of another shape, so kept: {name}, expected {expected}, given {found}.")
        if self.unknown:
            told.append(f"Not in this model: {', '.join(self.unknown)}.")
        return " ".join(told)
