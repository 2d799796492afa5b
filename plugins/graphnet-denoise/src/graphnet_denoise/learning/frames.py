"""Frames: the images of a folder one by one, whether a file holds one of them or thousands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphnet.errors import DataError
from graphnet_denoise.images import (
    ImageFile,
    Names,
    earlier_results,
    find_images,
    nothing_in,
    open_image,
)
from graphnet_denoise.ranges import as_float32
from graphnet_denoise.sampling import middle

Native = NDArray[np.generic]
"""(C, H, W), in the dtype of the file."""


@dataclass(frozen=True, order=True)
class Frame:
    """One image (C, H, W): a file, and which of its planes."""

    file: Path
    plane: int = 0

    def __str__(self) -> str:
        return f"{self.file}#{self.plane}"


@dataclass(frozen=True)
class ImageSource:
    """A file of images: the number of its planes (images), and what their order is.

    `order` is "T" for frames of a movie, "Z" for slices of a stack, "?" where the file does not say, and ""
    for a single image.
    """

    file: Path
    planes: int
    order: str
    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]

    @property
    def size_bytes(self) -> int:
        """The size of its pixels."""
        return self.planes * math.prod(self.shape) * self.dtype.itemsize

    @property
    def frames(self) -> list[Frame]:
        return [Frame(self.file, plane) for plane in range(self.planes)]


@dataclass(frozen=True)
class Sources:
    """The image files of a folder, and what is wrong with those that are left out, a line for each."""

    files: Sequence[ImageSource]
    left_out: Sequence[str] = ()


def sources_in(folder: Path) -> Sources:
    """Return the image files of a folder and of the folders in it, in the order of their names.

    Earlier results (photo-denoised.png) beside their images are left out without a word; files and folders
    that cannot be read, and links to folders, with one.

    Raises DataError if there is none, or none can be read.
    """
    if folder.is_file():
        return Sources([open_source(folder)])
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder. Give a folder of noisy images.")
    names = Names.known()
    listing = find_images(folder, names, recursive=True)
    results = earlier_results(listing.images, names)
    files = sorted((file for file in listing.images if file not in results), key=natural)
    if not files:
        raise nothing_in(folder, listing.complete(), names, recursive=True)
    not_searched = [f"{inner}: {words}" for inner, words in (*listing.unreadable, *listing.links)]
    found: list[ImageSource] = []
    errors: list[DataError] = []
    for file in files:
        try:
            found.append(open_source(file))
        except DataError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return Sources(found, [*not_searched, *(str(error) for error in errors)])


def natural(path: Path) -> list[tuple[bool, int, str]]:
    """A key that sorts numbers in names by their value: frame2 comes before frame10."""
    parts: list[tuple[bool, int, str]] = []
    for character in str(path):
        digit = character.isdecimal() and character.isascii()
        if digit and parts and parts[-1][0]:
            parts[-1] = (True, parts[-1][1] * 10 + int(character), "")
        else:
            parts.append((True, int(character), "") if digit else (False, 0, character))
    return parts


def open_source(file: Path) -> ImageSource:
    """Read what a file's header says about its images. Raises DataError if it or the first cannot be read."""
    with open_image(file) as source:
        if not source.by_parts:  # it is decoded as a whole: this finds out whether it can be
            source.read(0)
        return source_of(source)


def source_of(opened: ImageFile) -> ImageSource:
    """Describe the images of an open file by its header."""
    long = [axis for axis in opened.layout.outer if opened.layout.size(axis) > 1]
    order = "T" if "T" in long else "Z" if "Z" in long else "?" if long else ""
    shape = opened.channels, opened.height, opened.width
    return ImageSource(opened.path, opened.planes, order, shape, np.dtype(opened.dtype))


def read_frame(frame: Frame, *, side: int | None = None) -> Native:
    """Read one image, (C, H, W) in the dtype of its file, or its middle of at most `side` x `side` pixels.

    Raises DataError for damaged files.
    """
    with open_image(frame.file) as source:
        parts = [middle(length, side) for length in (source.height, source.width)]
        pixels: Native = source.read(frame.plane, *parts)
        return pixels


def as_numbers(pixels: Native) -> NDArray[np.float32]:
    """Convert pixels to float32; the numbers stay those of the file. NaN and infinity become the median.

    So do numbers that float32 cannot hold.

    >>> as_numbers(np.array([[[0, 13107]]], np.uint16)).tolist()
    [[[0.0, 13107.0]]]
    """
    numbers = as_float32(pixels)
    if pixels.dtype.kind == "f" and not (finite := np.isfinite(numbers)).all():
        usual = np.median(numbers[finite]) if finite.any() else np.float32(0)
        numbers = np.where(finite, numbers, usual)
    return numbers
