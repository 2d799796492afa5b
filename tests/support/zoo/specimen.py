"""A specimen of the zoo: an image file, how it is made, and how an independent reader sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 37, 53


@dataclass(frozen=True)
class Sight:
    """What an independent reader sees: the pixels, and everything else by name."""

    pixels: NDArray[Any]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Specimen:
    """An image file.

    Args:
        name: its name; the ending is that of the file.
        write: makes it at a path.
        look: reads it, without the code under test.
        fixed: so many samples at the end of the last axis are no colours and stay as they are.
        peak: the highest level, if it is not that of the dtype.
        tolerance: how far a pixel of a lossy format may be off.
    """

    name: str
    write: Callable[[Path], object]
    look: Callable[[Path], Sight]
    fixed: int = 0
    peak: int = 0
    tolerance: float = 0

    def inverted(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The pixels as they are when black and white change places; what is no colour stays."""
        kind = pixels.dtype
        if kind.kind == "b":
            changed = ~pixels
        elif kind.kind == "f":
            work = np.float32 if kind.itemsize <= 4 else np.float64
            changed = (1 - pixels.astype(work)).astype(kind)
        else:
            top = self.peak or np.iinfo(kind).max
            low = np.iinfo(kind).min
            changed = (kind.type(top) - pixels) if low == 0 else np.invert(pixels)
        if self.fixed:
            changed[..., -self.fixed :] = pixels[..., -self.fixed :]
        return np.asarray(changed)


def noise(*shape: int, dtype: Any = np.uint8, seed: int = 0) -> NDArray[Any]:
    """Random levels over the whole range; floating-point numbers in -1..2."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.uniform(-1, 2, shape).astype(kind)
    if kind.kind == "b":
        return rng.random(shape) < 0.5
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, kind, endpoint=True)


def slope(channels: int = 3, *, top: int = 255, dtype: Any = np.uint8) -> NDArray[Any]:
    """A smooth picture (H, W, C), for lossy formats; (H, W) for one channel."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    parts = [y / HEIGHT, x / WIDTH, (x + y) / (HEIGHT + WIDTH), np.cos(x / 30) ** 2][:channels]
    picture = (np.stack(parts, axis=-1) * top).astype(dtype)
    return picture[..., 0] if channels == 1 else picture
