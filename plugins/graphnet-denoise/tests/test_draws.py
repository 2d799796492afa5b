"""Random numbers of each pair: a function of (seed, epoch, index, stream), and independent."""

from typing import Any

import numpy as np
import pytest
from graphnet_denoise.draws import Draws
from numpy.typing import NDArray


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3, 5), (0,)])
def test_numbers_do_not_depend_on_the_batch(shape: tuple[int, ...]) -> None:
    def drawn(indices: list[int]) -> list[NDArray[Any]]:
        draws = Draws(3, 2, indices, stream=1)
        bounds = np.full(len(indices), 1000)
        return [draws.normal(*shape), draws.uniform(*shape), draws.below(bounds)]

    together = drawn([4, 9, 2])
    for place, index in enumerate([4, 9, 2]):
        for all_of_them, alone in zip(together, drawn([index]), strict=True):
            np.testing.assert_array_equal(all_of_them[place], alone[0])


def test_other_seeds_epochs_indices_and_streams_give_other_numbers() -> None:
    keys = [
        (0, 0, 0, 0),
        (1, 0, 0, 0),
        (0, 1, 0, 0),
        (0, 0, 1, 0),
        (0, 0, 0, 1),
        (2**32 - 1, 9, 9, 9),
    ]
    fields = np.stack([Draws(s, e, [i], stream=stream).normal(4000)[0] for s, e, i, stream in keys])
    correlation = np.corrcoef(fields)[np.triu_indices(len(keys), 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_normal_numbers_are_normal() -> None:
    numbers = Draws(0, 0, range(200), stream=0).normal(5001).astype(np.float64)  # an odd number
    count = numbers.size
    moments = [(numbers**k).mean() for k in (1, 2, 3, 4)]
    for found, expected, variance in zip(moments, (0, 1, 0, 3), (1, 2, 15, 96), strict=True):
        assert abs(found - expected) < 5 * np.sqrt(variance / count)
    # The share beyond 3 sigma, 0.27 %, and neighbours, which come from one pair (u, v) or from two.
    assert abs((np.abs(numbers) > 3).mean() - 0.0026998) < 5 * np.sqrt(0.0027 / count)
    for lag in (1, 2500, 2501):
        product = (numbers[:, lag:] * numbers[:, :-lag]).mean()
        assert abs(product) < 5 / np.sqrt(count - 200 * lag)


def test_integers_below_a_bound_are_uniform() -> None:
    drawn = Draws(0, 0, range(7000), stream=0).below(np.array([7, 3] * 3500))
    assert set(drawn[1::2]) == {0, 1, 2}
    counts = np.bincount(drawn[::2])
    assert ((counts - 500) ** 2 / 500).sum() < 22.5  # 6 degrees of freedom, p = 0.001
