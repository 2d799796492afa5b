"""Metadata that most formats can hold, as bytes that nobody changes."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

METRE = 39.37007874
"""Inches: some formats state pixels per metre."""

_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says of its pixels, beside their number and kind.

    A result in the same format keeps everything, byte for byte. A result in another format gets the parts
    below, as far as that format can hold them.

    Args:
        icc: the ICC colour profile.
        exif: the EXIF data, from its byte-order mark on (time, lens, GPS, orientation).
        xmp: the XMP packet.
        resolution: pixels per inch, horizontally and vertically.
        text: further texts by their keyword.

    >>> entry = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    >>> Metadata(exif=struct.pack("<2sHIH", b"II", 42, 8, 1) + entry).orientation
    6
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    resolution: tuple[float, float] | None = None
    text: Mapping[str, str] = field(default_factory=dict)

    @property
    def orientation(self) -> int:
        """The EXIF orientation, 1 to 8: how the stored pixels are turned to be looked at. 1: not at all."""
        try:
            return _orientation(self.exif or b"")
        except struct.error:
            return 1

    def resolution_times(self, scale: float, *, most: int) -> tuple[int, int] | None:
        """The resolution, multiplied and rounded, for formats that hold whole numbers from 1 to `most`.

        It is None if the file states no resolution, or if one of the numbers is out of these bounds.

        >>> Metadata(resolution=(300.0, 72.5)).resolution_times(100, most=65535)
        (30000, 7250)
        >>> Metadata(resolution=(1e6, 72.0)).resolution_times(1, most=65535)
        """
        if self.resolution is None or not all(math.isfinite(value) for value in self.resolution):
            return None
        x, y = (round(value * scale) for value in self.resolution)
        return (x, y) if min(x, y) >= 1 and max(x, y) <= most else None


def upright(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn (..., H, W) as an EXIF orientation says (TIFF 6.0, Orientation): to how a picture is looked at.

    >>> import numpy as np
    >>> upright(np.array([[1, 2, 3]]), 6).tolist()
    [[1], [2], [3]]
    """
    if orientation >= 5:
        samples = samples.swapaxes(-2, -1)
    if orientation in (2, 3, 6, 7):
        samples = samples[..., ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[..., ::-1, :]
    return samples


def _orientation(exif: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
        if tag == _ORIENTATION:
            return int(value) if 1 <= value <= 8 else 1
    return 1
