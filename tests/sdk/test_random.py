"""The hash behind random numbers: its statistics, its independence, and its exact values for ever.

The bounds are in standard deviations. Everything is fixed by keys, so a test passes or fails for good.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil

import pytest
import torch
from torch import Tensor

from graphnet.sdk import node_constant
from graphnet.sdk.random import bits, key, uniform


def key_of(seed: int = 0, step: int = 0, node: str = "dropout") -> Tensor:
    return key(torch.tensor(seed), torch.tensor(step), node_constant(node))


def rows(kind: str, number: int, length: int) -> Tensor:
    """uniform(length) for `number` keys that differ in one thing only."""
    match kind:
        case "steps":
            keys = [key_of(step=i) for i in range(number)]
        case "late steps":  # where the lower half of the step count wraps
            keys = [key_of(step=(1 << 32) - number // 2 + i) for i in range(number)]
        case "seeds":
            keys = [key_of(seed=i) for i in range(number)]
        case "seeds far apart":
            keys = [key_of(seed=i << 32) for i in range(number)]
        case "seeds one bit apart":  # a Gray code, across the middle of the 64 bits
            keys = [key_of(seed=(i ^ i >> 1) << 27) for i in range(number)]
        case _:
            keys = [key_of(node=f"block{i}.dropout") for i in range(number)]
    return torch.stack([uniform(one, (length,)) for one in keys])


KINDS = ["steps", "late steps", "seeds", "seeds far apart", "seeds one bit apart", "nodes"]
KEYS = [
    key_of(),
    key_of(step=1),
    key_of(step=10**6),
    key_of(seed=1),
    key_of(seed=2**63 - 1),
    key_of(seed=-1),
    key_of(node="a"),
    torch.zeros(2, dtype=torch.int32),
    torch.tensor([-1, -1], dtype=torch.int32),
]


def chi_square(values: Tensor, bins: int) -> float:
    """How far the counts of integers 0 .. bins - 1 are from uniform, in standard deviations."""
    counts = torch.bincount(values.flatten(), minlength=bins).to(torch.float64)
    assert counts.numel() == bins
    mean = values.numel() / bins
    freedom = bins - 1
    statistic = float(((counts - mean) ** 2).sum()) / mean
    return (statistic - freedom) / math.sqrt(2 * freedom)


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation times sqrt(n): standard normal for independent numbers."""
    pair = torch.stack((x.flatten(), y.flatten())).to(torch.float64)
    return float(torch.corrcoef(pair)[0, 1]) * math.sqrt(x.numel())


@pytest.mark.parametrize("number", range(len(KEYS)))
def test_numbers_are_uniform(number: int) -> None:
    n = 1 << 18
    u = uniform(KEYS[number], (n,)).to(torch.float64)
    assert abs(chi_square((u * 1024).long(), 1024)) < 4
    assert abs(float(u.mean()) - 0.5) * math.sqrt(12 * n) < 4
    assert abs(float(u.var()) - 1 / 12) * math.sqrt(180 * n) < 4
    # Kolmogorov and Smirnov: sqrt(n) D exceeds 1.95 in one of a thousand samples
    ranks = torch.arange(n, dtype=torch.float64) / n
    distance = (u.sort().values - ranks).abs().max()
    assert float(distance) * math.sqrt(n) < 1.95


@pytest.mark.parametrize("number", range(len(KEYS)))
def test_every_bit_is_fair_and_independent_of_the_others(number: int) -> None:
    n = 1 << 17
    drawn = bits(KEYS[number], (n,)).long() & 0xFFFFFFFF
    one = (drawn[:, None] >> torch.arange(32)) & 1  # (n, 32)
    signs = 2.0 * one.to(torch.float64) - 1.0
    assert float(signs.mean(0).abs().max()) * math.sqrt(n) < 4.5
    products = (signs.T @ signs / n - torch.eye(32, dtype=torch.float64)).abs()
    assert float(products.max()) * math.sqrt(n) < 5


@pytest.mark.parametrize("number", range(len(KEYS)))
def test_positions_are_independent(number: int) -> None:
    n = 1 << 18
    u = uniform(KEYS[number], (n,))
    for lag in (*range(1, 17), 32, 64, 100, 256, 1024, 4096):
        assert abs(correlation(u[:-lag], u[lag:])) < 4.5, lag
        cells = (u[:-lag] * 64).long() * 64 + (u[lag:] * 64).long()
        assert abs(chi_square(cells, 4096)) < 5, lag
    triples = (u[: n // 3 * 3].reshape(-1, 3) * 16).long()
    assert abs(chi_square((triples * torch.tensor([256, 16, 1])).sum(1), 4096)) < 4


@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_independent_of_each_other(kind: str) -> None:
    number, n = 256, 4096
    u = rows(kind, number, n).to(torch.float64)
    r = torch.corrcoef(u) * math.sqrt(n)
    pairs = r[*torch.triu_indices(number, number, 1)]  # 32,640 correlations
    assert float(pairs.abs().max()) < 5.5
    assert float(pairs.std()) == pytest.approx(1.0, abs=0.02)
    assert abs(float(pairs.mean())) * math.sqrt(pairs.numel()) < 4
    for lag in (1, 2, 16):  # no row is its neighbour, shifted
        shifted = (u[:-1, lag:], u[1:, :-lag])
        assert abs(correlation(*shifted)) < 4.5
        assert max(abs(correlation(a, b)) for a, b in zip(*shifted, strict=True)) < 5


@pytest.mark.parametrize("kind", KINDS)
def test_one_position_is_uniform_and_independent_over_keys(kind: str) -> None:
    u = rows(kind, 4096, 8).to(torch.float64)
    for position in u.unbind(1):
        assert abs(chi_square((position * 64).long(), 64)) < 4.5
        cells = (position[:-1] * 16).long() * 16 + (position[1:] * 16).long()
        assert abs(chi_square(cells, 256)) < 4.5
        for lag in (1, 2, 3, 4, 8, 16, 64, 256):
            assert abs(correlation(position[:-lag], position[lag:])) < 4.5


@pytest.mark.parametrize("kind", KINDS)
def test_no_key_permutes_the_numbers_of_another(kind: str) -> None:
    # 64 rows of 1,024 numbers of 24 bits: 2,016 pairs of rows share 126 of them by chance
    drawn = (rows(kind, 64, 1024) * 2**24).long()
    everywhere = torch.cat([row.unique() for row in drawn])
    shared = everywhere.numel() - everywhere.unique().numel()
    assert 126 - 5 * math.sqrt(126) < shared < 126 + 5 * math.sqrt(126)


def test_keys_of_seeds_steps_and_nodes_all_differ() -> None:
    seeds = (0, 1, 2, 3, 1 << 31, 1 << 32, (1 << 32) + 1, 1 << 62, -1, -(1 << 32))
    steps = (*range(40), 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 32) + 1)
    nodes = [f"n{i}" for i in range(20)]
    made = {tuple(key_of(*one).tolist()) for one in itertools.product(seeds, steps, nodes)}
    assert len(made) == len(seeds) * len(steps) * len(nodes)


def test_one_bit_of_the_seed_or_step_changes_half_of_the_key_and_of_the_numbers() -> None:
    def flipped(a: Tensor, b: Tensor) -> Tensor:
        difference = (a ^ b).long() & 0xFFFFFFFF
        return ((difference[..., None] >> torch.arange(32)) & 1).to(torch.float64).mean()

    changes, numbers = [], []
    for base, bit in itertools.product(range(16), range(63)):
        for one, other in (
            (key_of(seed=base), key_of(seed=base ^ (1 << bit))),
            (key_of(step=base), key_of(step=base ^ (1 << bit))),
        ):
            changes.append(flipped(one[1], other[1]))  # the first number misses the upper halves
            numbers.append(flipped(bits(one, (32,)), bits(other, (32,))))
    n = len(changes)
    assert abs(float(torch.stack(changes).mean()) - 0.5) * 2 * math.sqrt(32 * n) < 4
    assert abs(float(torch.stack(numbers).mean()) - 0.5) * 2 * math.sqrt(1024 * n) < 4
    assert float((torch.stack(numbers) - 0.5).abs().max()) * 2 * math.sqrt(1024) < 5


def test_uniform_is_at_least_0_below_1_and_a_multiple_of_2_to_the_minus_24() -> None:
    u = uniform(key_of(), (1 << 22,))
    assert u.dtype == torch.float32
    assert float(u.min()) >= 0.0
    assert float(u.max()) < 1.0
    assert float(u.min()) < 1e-5
    assert float(u.max()) > 1 - 1e-5
    assert torch.equal(u, torch.floor(u.to(torch.float64) * 2**24).to(torch.float32) / 2**24)


def lowbias32(x: int) -> int:
    """C. Wellons' hash in plain integers."""
    x &= 0xFFFFFFFF
    x = ((x ^ x >> 16) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ x >> 15) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ x >> 16


def key_in_integers(seed: int, step: int, constant: int) -> tuple[int, int]:
    low, high = seed & 0xFFFFFFFF, seed >> 32
    low_step, high_step = step & 0xFFFFFFFF, step >> 32
    first = lowbias32(lowbias32(low ^ constant & 0xFFFFFFFF) + low_step)
    return first, lowbias32(lowbias32(high + first) ^ (high_step + constant & 0xFFFFFFFF))


def unsigned(numbers: Tensor) -> list[int]:
    return [number & 0xFFFFFFFF for number in numbers.flatten().tolist()]


@pytest.mark.parametrize("seed", [0, 1, 1234567890123456789, -5, 1 << 32])
@pytest.mark.parametrize("step", [0, 3, (1 << 32) + 7])
@pytest.mark.parametrize("constant", [0, 42, -(1 << 31), (1 << 31) - 1])
def test_bits_are_the_hash_in_plain_integers(
    seed: int, step: int, constant: int, device: torch.device
) -> None:
    made = key(torch.tensor(seed, device=device), torch.tensor(step, device=device), constant)
    first, second = key_in_integers(seed, step, constant)
    assert made.dtype == torch.int32
    assert made.device.type == device.type
    assert unsigned(made) == [first, second]
    expected = [lowbias32(lowbias32(i ^ first) + second) for i in range(50)]
    assert unsigned(bits(made, (50,))) == expected
    assert uniform(made, (50,)).tolist() == [(x >> 8) / 2**24 for x in expected]


CONSTANTS = [634351890, 985182183, -1891884097]
KEY = [1911525883, 43588928]
BITS = [2749051286, 117893493, 3916137910, 750150249, 689594484, 971540155]


def test_values_never_change(device: torch.device) -> None:
    assert [node_constant(name) for name in ("", "dropout", "enc2.conv")] == CONSTANTS
    seed, step = torch.tensor(20240229, device=device), torch.tensor(17, device=device)
    made = key(seed, step, node_constant("dropout"))
    assert unsigned(made) == KEY
    assert unsigned(bits(made, (2, 3))) == BITS
    assert uniform(made, (6,)).tolist() == [(x >> 8) / 2**24 for x in BITS]


def test_an_element_depends_on_the_key_and_its_position_only(device: torch.device) -> None:
    made = key_of().to(device)
    long = bits(made, (1000,))
    assert torch.equal(bits(made, (7, 11)).flatten(), long[:77])
    assert torch.equal(bits(made, ()), long[0])
    assert bits(made, (3, 0, 2)).shape == (3, 0, 2)
    assert torch.equal(bits(made, (1000,)), long)
    assert torch.equal(long.cpu(), bits(key_of(), (1000,)))


def test_the_global_generator_takes_no_part() -> None:
    before = torch.get_rng_state()
    first = uniform(key_of(), (10,))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(uniform(key_of(), (10,)), first)


def test_more_numbers_than_a_key_has_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 2\\*\\*31 numbers from one key, asked for"):
        bits(key_of(), (1 << 16, 1 << 16))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler itself
@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "c++")) is None, reason="there is no C++ compiler"
)
def test_inductor_gives_the_same_bits(device: torch.device) -> None:
    constant = node_constant("dropout")

    def draw(seed: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        made = key(seed, step, constant)
        return made, bits(made, (1000, 37)), uniform(made, (1000, 37))

    compiled = torch.compile(draw, fullgraph=True)
    for seed, step in ((0, 0), (-7, 1), (1 << 40, (1 << 33) + 5)):
        arguments = torch.tensor(seed, device=device), torch.tensor(step, device=device)
        for found, expected in zip(compiled(*arguments), draw(*arguments), strict=True):
            assert torch.equal(found, expected)
