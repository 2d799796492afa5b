"""Pictures: one small image as a whole, grey or RGB, of 8 or 16 bits, as training and measuring need it.

What a picture cannot hold is an error, not lost: further planes and channels, signed and floating-point
numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from graphnet.errors import DataError
from graphnet_denoise.images.families.depths import shape_for, together
from graphnet_denoise.images.file import ImageFile
from graphnet_denoise.images.layout import Samples
from graphnet_denoise.images.levels import Levels
from graphnet_denoise.images.metadata import Metadata, upright
from graphnet_denoise.images.opening import create_like, open_image

if TYPE_CHECKING:
    from torch import Tensor

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

WRITE_SUFFIXES = (".png", ".jpg", ".jpeg")

_CONVERTED = {
    "cmyk": "CMYK",
    "ycbcr": "YCbCr",
}  # colours that become RGB, and Pillow's names of them


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded image: `pixels` uint8 or uint16 (C, H, W), C = 1 (grey) or 3 (RGB).

    `alpha` is uint8 (H, W), or None if the image has none. `depth` is the number of bits of a channel, 8 or
    16.
    """

    pixels: Pixels
    alpha: NDArray[np.uint8] | None = None
    depth: int = 8
    icc_profile: bytes | None = None

    def tensor(self) -> Tensor:
        """The pixels as float32 (C, H, W) in 0..1.

        >>> Picture(np.full((1, 1, 2), 255, np.uint8)).tensor()
        tensor([[[1., 1.]]])
        """
        import torch  # takes two seconds, and a header needs none of it

        peak = float(np.iinfo(self.pixels.dtype).max)
        return torch.from_numpy(self.pixels.astype(np.float32) / np.float32(peak))

    def with_tensor(self, values: Tensor) -> Picture:
        """Return a copy with these pixels, float (C, H, W), clamped to 0..1 and rounded to this depth.

        >>> import torch
        >>> Picture(np.zeros((1, 1, 2), np.uint8)).with_tensor(torch.tensor([[[0.5, 7.0]]])).pixels
        array([[[128, 255]]], dtype=uint8)
        """
        levels = Levels.of(self.pixels.dtype)
        scaled = values.double().clamp(0, 1).cpu().numpy() * float(levels.high)
        return Picture(levels.round(scaled), self.alpha, self.depth, self.icc_profile)


class OpenPicture(ImageFile):
    """A picture as if it were an open file, so that it can be written."""

    format = "picture"
    title = "a picture"

    def __init__(self, picture: Picture) -> None:
        self.path = Path("picture")
        pixels: Samples = picture.pixels
        self.channels = len(pixels)
        self.colour = "grey" if self.channels == 1 else "rgb"
        self.levels = Levels.of(pixels.dtype)
        if picture.alpha is not None:
            spread = int(self.levels.high) // 255
            alpha = picture.alpha.astype(pixels.dtype) * pixels.dtype.type(spread)
            pixels = np.concatenate((pixels, alpha[None]))
        self.alpha = picture.alpha is not None
        self.layout = shape_for(pixels.shape[1], pixels.shape[2], len(pixels))
        self.metadata = Metadata(icc=picture.icc_profile)
        self._pixels = pixels

    def _samples(self, plane: int, rows: slice, columns: slice) -> Samples:
        return self._pixels[:, rows, columns]


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) from the file's header, before a rotation that its EXIF data state."""
    with open_image(path) as source:
        return source.height, source.width


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image as uint8 RGB (H, W, 3): grey is repeated, alpha dropped, 16 bits become the upper 8."""
    pixels = read_picture(path).pixels
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return np.broadcast_to(pixels.transpose(1, 2, 0), (*pixels.shape[1:], 3)).astype(np.uint8)


def read_picture(path: Path) -> Picture:
    """Read the image at `path`, and apply its EXIF orientation.

    Levels of fewer bits are spread over 8 or 16. Raises DataError, which names the file, if the file is
    missing, damaged or truncated, holds more than one plane, or pixels that are no integers of 8 or 16 bits.
    """
    with open_image(path) as source:
        _check(source)
        samples = upright(source.read_samples(), source.metadata.orientation)
        icc, colour, channels = source.metadata.icc, source.colour, source.channels
        alpha, levels = source.alpha, source.levels
    target = Levels.of(levels.dtype)
    if levels.high != target.high:
        samples = target.round(samples * (float(target.high) / float(levels.high)))
    pixels = samples[:channels]
    if colour in _CONVERTED:
        pixels, icc = _rgb(pixels, _CONVERTED[colour]), None
    opacity = samples[channels] >> (target.bits - 8) if alpha else None
    return Picture(
        np.ascontiguousarray(pixels),
        None if opacity is None else opacity.astype(np.uint8),
        pixels.dtype.itemsize * 8,
        icc,
    )


def write_picture(path: Path, picture: Picture) -> None:
    """Write a PNG or JPEG (quality 95, full colour resolution), completely or not at all.

    A PNG has the picture's 8 or 16 bits, a JPEG 8. Raises DataError for another suffix, for alpha in a JPEG,
    and if the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITE_SUFFIXES:
        raise DataError(
            f"{path}: expected a name that ends in {', '.join(WRITE_SUFFIXES)}, found "
            f"{path.suffix or 'no ending'!r}. PNG keeps every bit and alpha; JPEG is smaller."
        )
    if suffix != ".png" and picture.alpha is not None:
        raise DataError(f"{path}: a JPEG cannot hold the image's alpha. Write a .png instead.")
    with OpenPicture(picture) as source, create_like(path, source) as sink:
        sink.write(0, slice(None), slice(None), picture.pixels)


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
