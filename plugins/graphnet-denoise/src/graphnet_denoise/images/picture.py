"""Pictures: the pixels of one small image as a whole, grey or RGB, as training and measuring need them.

What a picture cannot hold is an error, not lost: further planes and channels, signed and floating-point
numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from graphnet.errors import DataError
from graphnet_denoise.images.families.depths import together
from graphnet_denoise.images.file import ImageFile
from graphnet_denoise.images.layout import Samples
from graphnet_denoise.images.levels import Levels
from graphnet_denoise.images.metadata import upright
from graphnet_denoise.images.opening import open_image

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""(C, H, W), C = 1 (grey) or 3 (RGB)."""

_CONVERTED = {
    "cmyk": "CMYK",
    "ycbcr": "YCbCr",
}  # colours that become RGB, and Pillow's names of them


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) from the file's header, before a rotation that its EXIF data state."""
    with open_image(path) as source:
        return source.height, source.width


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image as uint8 RGB (H, W, 3): grey is repeated, alpha dropped, 16 bits become the upper 8."""
    pixels = read_pixels(path)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return np.broadcast_to(pixels.transpose(1, 2, 0), (*pixels.shape[1:], 3)).astype(np.uint8)


def read_pixels(path: Path) -> Pixels:
    """Read the image at `path`, turned as its EXIF orientation says; alpha is dropped.

    Levels of fewer bits are spread over 8 or 16. Raises DataError, which names the file, if the file is
    missing, damaged or truncated, holds more than one plane, or pixels that are no integers of 8 or 16 bits.
    """
    with open_image(path) as source:
        _check(source)
        pixels = upright(source.read(), source.metadata.orientation)
        levels, colour = source.levels, source.colour
    target = Levels.of(levels.dtype)
    if levels.high != target.high:
        pixels = target.round(pixels * (float(target.high) / float(levels.high)))
    if colour in _CONVERTED:
        pixels = _rgb(pixels, _CONVERTED[colour])
    return np.ascontiguousarray(pixels)


def as_unit(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Convert pixels, uint8, uint16 or float32 in 0..1, to float32 in 0..1.

    >>> as_unit(np.array([[[0], [51]]], np.uint8)).ravel().tolist()
    [0.0, 0.20000000298023224]
    """
    if pixels.dtype == np.float32:
        return pixels
    peak = np.float32(np.iinfo(pixels.dtype).max)
    unit: NDArray[np.float32] = np.divide(pixels, peak, dtype=np.float32)
    return unit


def _check(source: ImageFile) -> None:
    """Raise DataError for a file that is no picture."""
    found = ""
    if source.planes > 1:
        found = f"{source.planes} frames or pages. Save each as a file"
    elif source.dtype.kind != "u" or source.bits > 16:
        found = f"numbers of the type {source.dtype}, whose range no file states. Convert the image"
    elif source.colour not in ("grey", "rgb", *_CONVERTED):
        found = f"{source.channels} channels that are no colours. Save each as a file"
    elif source.layout.samples > source.channels + source.alpha:
        more = source.layout.samples - source.channels
        found = f"further channels beside the colours ({more}), which would be lost. Remove them"
    if found:
        raise DataError(
            f"{source.path}: expected one image of unsigned integers of 8 or 16 bits, found {found}."
        )


def _rgb(pixels: Samples, mode: str) -> Samples:
    """RGB of 8 bits from other colours, without colour management."""
    whole = together(pixels)
    if whole.dtype != np.uint8:
        whole = (whole >> 8).astype(np.uint8)
    return np.asarray(Image.fromarray(whole, mode).convert("RGB")).transpose(2, 0, 1)
