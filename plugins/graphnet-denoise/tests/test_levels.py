"""Levels: which values of an image are 0 and 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphnet_denoise.levels import Levels, as_dtype, find_levels, given_levels

from graphnet.errors import InputError


@pytest.mark.parametrize(
    ("dtype", "lowest", "highest", "expected"),
    [
        ("uint8", 0, 3, (0, 255)),
        ("uint8", 7, 255, (0, 255)),
        ("int8", 0, 100, (0, 127)),
        ("uint16", 0, 255, (0, 255)),
        ("uint16", 0, 1023, (0, 1023)),
        ("uint16", 0, 1024, (0, 4095)),
        ("uint16", 0, 5000, (0, 16383)),
        ("uint16", 0, 65535, (0, 65535)),
        ("int16", 0, 32767, (0, 32767)),
        ("uint32", 0, 65536, (0, 2**17 - 1)),
        ("uint64", 0, 2**64 - 1, (0, float(2**64 - 1))),
        ("int16", -5, 200, (-5, 200)),
        ("float32", 0.0, 1.0, (0, 1)),
        ("float64", -0.4, 1.4, (0, 1)),
        ("float32", 0.0, 255.0, (0, 255)),
        ("float32", -3.0, 5.0, (-3, 5)),
        ("float32", 0.0, 0.01, (0, 0.01)),
        ("float32", 7.0, 7.0, (7, 8)),
        ("float16", 0.0, 0.0, (0, 1)),
    ],
)
def test_levels_fill_the_range_that_the_values_show(
    dtype: str, lowest: float, highest: float, expected: tuple[float, float]
) -> None:
    found = find_levels(dtype, lowest, highest)
    assert (found.black, found.white) == pytest.approx(expected, rel=1e-6)


def test_levels_are_refused_where_there_are_none() -> None:
    for dtype, value, message in [
        ("bool", 1, "truth"),
        ("U3", 1, "str"),
        ("float32", np.nan, "finite"),
    ]:
        with pytest.raises(InputError, match=message):
            find_levels(dtype, value, value)
    with pytest.raises(InputError, match="larger white"):
        given_levels((3, 2))


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("uint8", np.arange(256)),
        ("uint16", np.arange(65536)),
        ("int16", np.arange(-32768, 32768)),
        ("uint32", np.array([0, 2**31 + 1, 2**32 - 1])),
        ("float16", np.array([0.0, 0.333, 65504.0])),
        ("float64", np.array([-1e300, 1.0, 1e300])),
    ],
)
def test_all_values_of_a_dtype_survive_the_way_there_and_back(dtype: str, values: Any) -> None:
    """In the precision of the way back; the way there ends in float32, which is what a network takes."""
    pixels = values.astype(dtype)
    levels = Levels(0.0, 1.0)
    work = levels.from_unit(np.zeros(1, np.float32), dtype).dtype
    np.testing.assert_array_equal(as_dtype(pixels.astype(work), dtype), pixels)


def test_integers_are_rounded_and_clipped() -> None:
    values = np.array([-1e30, -0.6, 0.4, 1e30])
    assert as_dtype(values, "uint8").tolist() == [0, 0, 0, 255]
    assert as_dtype(values, "int16").tolist() == [-32768, -1, 0, 32767]
    for dtype in ("uint64", "int64"):
        limit = int(np.iinfo(dtype).max)
        assert limit - 2048 <= int(as_dtype(values, dtype)[3]) <= limit
