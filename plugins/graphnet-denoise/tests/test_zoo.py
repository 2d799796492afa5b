"""Every specimen of the zoo is copied with black and white exchanged, and keeps everything else."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphnet_denoise.images import ImageFile, create_like, open_image
from numpy.typing import NDArray

from graphnet.errors import DataError
from tests.support.zoo import ZOO, Specimen

_PART = 16, 20  # the height and width of a part
_DAMAGES = int(os.environ.get("GRAPHNET_DAMAGES", "3"))  # to each file


def inverted(source: ImageFile, pixels: NDArray[Any]) -> NDArray[Any]:
    """Black and white exchanged, in the file's own numbers."""
    levels = source.levels
    if not levels.integers:
        work = np.float32 if levels.bits <= 32 else np.float64
        return np.asarray(1 - pixels.astype(work))
    if levels.low < 0:
        return np.asarray(np.invert(pixels))
    return np.asarray(np.asarray(levels.high, pixels.dtype) - pixels)


def copy_inverted(path: Path, target: Path) -> None:
    with open_image(path) as source, create_like(target, source) as sink:
        for plane in range(source.planes):
            for top in range(0, source.height, _PART[0]):
                for left in range(0, source.width, _PART[1]):
                    rows, columns = slice(top, top + _PART[0]), slice(left, left + _PART[1])
                    part = inverted(source, source.read(plane, rows, columns))
                    sink.write(plane, rows, columns, part)


def differences(expected: Any, found: Any, name: str = "") -> list[str]:
    """Which facts differ, arrays among them."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = [*expected, *(key for key in found if key not in expected)]
        return [
            line
            for key in keys
            for line in differences(expected.get(key), found.get(key), f"{name}.{key}")
        ]
    if isinstance(expected, list | tuple) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for i, pair in pairs for line in differences(*pair, f"{name}[{i}]")]
    if bool(np.all(expected == found)):
        return []
    return [f"{name}: {str(expected)[:100]} became {str(found)[:100]}"]


@pytest.mark.parametrize("specimen", ZOO, ids=[specimen.name for specimen in ZOO])
def test_file_keeps_everything_but_its_pixels(tmp_path: Path, specimen: Specimen) -> None:
    path, target = tmp_path / specimen.name, tmp_path / f"new-{specimen.name}"
    specimen.write(path)
    before = specimen.look(path)
    copy_inverted(path, target)
    after = specimen.look(target)
    assert after.pixels.dtype == before.pixels.dtype
    assert after.pixels.shape == before.pixels.shape
    assert differences(before.facts, after.facts) == []
    expected = specimen.inverted(before.pixels)
    if specimen.tolerance:
        difference = np.abs(after.pixels.astype(np.float64) - expected.astype(np.float64))
        assert difference.max() <= specimen.tolerance
    else:
        np.testing.assert_array_equal(after.pixels, expected)


@pytest.mark.parametrize("specimen", ZOO, ids=[specimen.name for specimen in ZOO])
def test_damaged_file_gives_pixels_or_a_data_error(tmp_path: Path, specimen: Specimen) -> None:
    path = tmp_path / specimen.name
    specimen.write(path)
    parts = sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]
    rng = np.random.default_rng(zlib.crc32(specimen.name.encode()))
    for number in range(_DAMAGES):
        part = parts[rng.integers(len(parts))]
        whole = part.read_bytes()
        part.write_bytes(damaged(whole, number, rng))
        message = str(path)
        try:
            with open_image(path) as source:
                for plane in (0, source.planes - 1):
                    pixels = source.read(plane, slice(2, 9), slice(5, 30))
                    assert pixels.ndim == 3
        except DataError as error:  # any other exception fails the test
            message = str(error)
        assert str(path) in message
        part.write_bytes(whole)


def damaged(data: bytes, number: int, rng: np.random.Generator) -> bytes:
    """Cut the file off, or change three bytes: anywhere, or near its beginning, where headers are."""
    if number % 3 == 0:
        return data[: rng.integers(len(data))]
    changed = bytearray(data)
    for place in rng.integers(len(data) if number % 3 == 1 else min(len(data), 400), size=3):
        changed[place] = rng.integers(256)
    return bytes(changed)


def test_zoo_has_ninety_files() -> None:
    names = [specimen.name for specimen in ZOO]
    assert len(names) == len(set(names)) >= 90
