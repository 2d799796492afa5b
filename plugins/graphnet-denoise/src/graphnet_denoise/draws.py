"""Random numbers for each pair, independent of the batch in which the pair is made."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

GEOMETRY, STRENGTH, SUPERVISION, NOISE = range(4)
"""Streams: one for each use of random numbers. Further versions of noise have the streams after NOISE."""


class Draws:
    """Random numbers for some pairs; those of a pair depend on (seed, epoch, index, stream) only.

    Each pair has its own counter of Philox 4x64 (Salmon et al. 2011): key (seed, epoch), counter (0, stream,
    index, 0), whose first word counts. So no two pairs or streams use the same numbers.

    >>> both = Draws(0, 1, [5, 7], stream=0).normal(2)
    >>> bool((both[1:] == Draws(0, 1, [7], stream=0).normal(2)).all())
    True
    """

    def __init__(self, seed: int, epoch: int, indices: Sequence[int], *, stream: int) -> None:
        self.count = len(indices)
        self._generators = [
            np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, stream, index, 0]))
            for index in indices
        ]

    def of(self, places: NDArray[np.int64]) -> Self:
        """Return the random numbers of the pairs at these places only."""
        chosen = copy.copy(self)
        chosen.count = len(places)
        chosen._generators = [self._generators[place] for place in places]
        return chosen

    def normal(self, *shape: int) -> NDArray[np.float32]:
        """Draw standard normal numbers, float32 (N, *shape), by Box & Muller (1958).

        sqrt(-2 log u) cos(2 pi v) and sqrt(-2 log u) sin(2 pi v), for u in (0, 1] and v in [0, 1): in
        numpy's vector instructions they take half the time of its `standard_normal`.
        """
        count = math.prod(shape)
        half = -(-count // 2)
        numbers = self.uniform(2 * half)
        for row in numbers:  # one pair at a time stays in the caches
            radius, angle = row[:half], row[half:]
            np.log(np.subtract(1, radius, out=radius), out=radius)
            np.sqrt(np.multiply(radius, -2, out=radius), out=radius)
            angle *= np.float32(2 * math.pi)
            sine = np.sin(angle)
            np.multiply(np.cos(angle, out=angle), radius, out=angle)
            radius *= sine
        return numbers[:, :count].reshape(self.count, *shape)

    def uniform(self, *shape: int) -> NDArray[np.float32]:
        """Draw uniform numbers in [0, 1), float32 (N, *shape)."""
        numbers = np.empty((self.count, math.prod(shape)), np.float32)
        for row, generator in zip(numbers, self._generators, strict=True):
            generator.random(out=row, dtype=np.float32)
        return numbers.reshape(self.count, *shape)

    def below(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw for each pair a uniform integer from 0 to below its bound: int64 (N,)."""
        drawn = (g.integers(0, b) for g, b in zip(self._generators, bounds, strict=True))
        return np.fromiter(drawn, np.int64, self.count)

    def poisson(self, means: NDArray[np.float32]) -> NDArray[np.float32]:
        """Draw Poisson numbers with these means (N, ...), float32 of the same shape."""
        numbers = np.empty_like(means)
        for row, mean, generator in zip(numbers, means, self._generators, strict=True):
            row[...] = generator.poisson(mean)
        return numbers
