"""Which numbers of a file are black and white, and the way back."""

import numpy as np
import pytest
from graphnet_denoise.images import Levels
from graphnet_denoise.ranges import Range, find_range, own_numbers, split_extremes
from numpy.typing import NDArray

RNG = np.random.default_rng(0)


def levels(dtype: str, bits: int | None = None) -> Levels:
    whole = Levels.of(np.dtype(dtype))
    return whole if bits is None else Levels(whole.dtype, bits)


def spread(low: float, high: float, dtype: str) -> NDArray[np.generic]:
    """Numbers that are spread evenly from `low` to `high`."""
    return np.linspace(low, high, 100_001).astype(dtype)


@pytest.mark.parametrize(
    ("sample", "kind", "low", "high", "note"),
    [
        (spread(0, 9, "u1"), levels("u1"), 0, 255, ""),
        (spread(0, 1, "u1"), levels("u1", 1), 0, 1, ""),
        (spread(0, 65535, "u2"), levels("u2"), 0, 65535, ""),
        (spread(0, 20_000, "u2"), levels("u2"), 0, 65535, ""),  # a dark picture
        (spread(500, 4095, "u2"), levels("u2"), 0, 4095, "uses 12 of 16 bits: white is 4,095"),
        (spread(0, 4095, "u2"), levels("u2", 12), 0, 4095, ""),
        (spread(0, 255, "u2"), levels("u2"), 0, 255, "uses 8 of 16 bits: white is 255"),
        (spread(0, 60_000, "u4"), levels("u4"), 0, 65535, "uses 16 of 32 bits: white is 65,535"),
        (spread(0, 30_000, "i2"), levels("i2"), 0, 32767, ""),
        (np.full(9, 40_000, "u2"), levels("u2"), 0, 65535, ""),
        (spread(-0.2, 1.2, "f4"), levels("f4"), 0, 1, ""),  # a picture with noise, not clipped
        (spread(0, 1, "f8"), levels("f8"), 0, 1, ""),
        (np.full(9, 0.5, "f4"), levels("f4"), 0, 1, ""),
    ],
)
def test_pictures_have_the_range_of_their_bits(
    sample: NDArray[np.generic], kind: Levels, low: float, high: float, note: str
) -> None:
    assert find_range(sample, kind) == Range(low, high, note)


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (-1024, 3071, "i2"),  # a tomogram
        (30_000, 31_000, "u2"),  # counts above a large offset
        (-3, 5, "f4"),  # z-scored
        (0, 255, "f4"),
        (0, 0.001, "f8"),
        (1e6, 1e6 + 1, "f8"),
    ],
)
def test_other_numbers_are_black_and_white_where_they_begin_and_end(
    low: float, high: float, dtype: str
) -> None:
    found = find_range(spread(low, high, dtype), levels(dtype))
    tolerance = 3e-4 * (high - low) + (dtype == "u2")
    assert found.low == pytest.approx(low, abs=tolerance)
    assert found.high == pytest.approx(high, abs=tolerance)
    assert found.note.startswith("has numbers from")


def test_a_few_hot_pixels_do_not_decide() -> None:
    sample = np.append(spread(0, 1000, "u2"), np.full(5, 65535, "u2"))
    assert find_range(sample, levels("u2")).high == 1023
    odd = np.append(spread(-3, 5, "f4"), np.array([np.nan, np.inf, -np.inf], "f4"))
    assert find_range(odd, levels("f4")).high == pytest.approx(5, abs=0.01)
    assert "no finite numbers" in find_range(odd[-3:], levels("f4")).note


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"])
def test_numbers_come_back_without_a_shift(dtype: str) -> None:
    kind = levels(dtype)
    if kind.integers:
        info = np.iinfo(dtype)
        pixels = RNG.integers(info.min, info.max, (3, 4, 5), dtype=dtype, endpoint=True)
    else:
        pixels = (RNG.normal(1000, 3, (3, 4, 5))).astype(dtype)
    found = find_range(pixels, kind)
    values = found.values(pixels)
    assert values.dtype == np.float32
    back = found.pixels(values, pixels)
    span = found.high - found.low
    np.testing.assert_allclose(back.astype("f8"), pixels.astype("f8"), rtol=0, atol=1e-6 * span)
    if kind.bits <= 16 and kind.integers:
        np.testing.assert_array_equal(np.floor(back + 0.5), pixels)


def test_numbers_that_are_not_finite_stay() -> None:
    pixels = np.array([[[1.0, np.nan, np.inf, 3.0]]], "f4")
    found = Range(1.0, 3.0)
    values = found.values(pixels)
    np.testing.assert_array_equal(values, np.array([[[0, 0, 0, 1]]], "f4"))
    np.testing.assert_array_equal(found.pixels(values, pixels), pixels)


def test_a_model_sees_the_median_in_place_of_nan() -> None:
    sky = RNG.normal(1000, 3, 999).astype("f4")
    image = np.append(sky, np.float32(np.nan))
    found = find_range(image, levels("f4"))
    assert found.values(image)[-1] == pytest.approx(float(np.median(found.values(sky))), abs=1e-5)
    seen = own_numbers(image).values(image)
    assert seen[-1] == pytest.approx(float(np.median(sky)))
    np.testing.assert_array_equal(seen[:-1], sky)


def test_a_star_keeps_its_brightness_beside_the_values_that_a_model_sees() -> None:
    values = np.array([0.5, 40.0, -7.0], np.float32)
    seen, beyond = split_extremes(values)
    np.testing.assert_array_equal(seen, np.array([0.5, 2, -1], np.float32))
    np.testing.assert_array_equal(seen + beyond, values)
    usual = np.array([0.0, 1.0], np.float32)
    assert split_extremes(usual)[1] == 0


def test_numbers_that_float32_cannot_hold_stay_and_are_not_seen() -> None:
    image = np.array([100.0, 1e300, 102.0, 104.0, -1e200])
    found = own_numbers(image)
    seen = found.values(image)
    np.testing.assert_array_equal(seen, np.array([100, 102, 102, 104, 102], np.float32))
    np.testing.assert_array_equal(found.pixels(seen + 1, image), [101, 1e300, 103, 105, -1e200])
