"""Comparing: score image files against clean ones, in the numbers of the files, one pair after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet.errors import DataError, GraphnetError
from graphnet_denoise.images import ImageFile, Levels, open_image
from graphnet_denoise.matching import FilePair
from graphnet_denoise.ranges import Range, find_range
from graphnet_denoise.sampling import evenly
from graphnet_denoise.scoring import Adjustment, Comparison, ImageRow, Measurements
from graphnet_denoise.wording import error_text

Restore = Callable[[NDArray[Any], Range], Tensor]
"""From the numbers of a noisy image (C, H, W) and their range to the denoised image (1, C, H, W), where the
range is 0..1."""

_SAMPLED_FILES, _SAMPLED_NUMBERS = 32, 1 << 16  # by which a range is found
_APART = 0.25  # of the range: so far apart, the means of an image and its target are no noise


@dataclass(frozen=True, slots=True)
class FileComparison:
    """The scores of files, the range from black to white, and remarks on odd images.

    `left_out` has the images that could not be compared, each with the error that explains it.
    """

    scores: Comparison
    range: Range
    remarks: tuple[str, ...]
    left_out: Mapping[Path, str]


def compare_files(
    pairs: Sequence[FilePair],
    restore: Restore | None,
    *,
    others: Sequence[FilePair] | None = None,
    adjustment: Adjustment | None = None,
    advance: Callable[[], None] = lambda: None,
) -> FileComparison:
    """Score images against clean ones, and the images that are made of them.

    Args:
        pairs: the images and their clean versions.
        restore: makes the denoised image; None to score the images alone, or with `others`.
        others: in place of `restore`, other images of the same scenes that are scored beside the first.
        adjustment: what is done to images before they are measured.
        advance: called after each pair.

    A pair that cannot be compared, since a file is damaged or the sizes differ, is left out.

    Raises:
        DataError: no pair can be compared.
    """
    adjustment = adjustment or Adjustment()
    wanted = range_of([pair.clean for pair in pairs])
    measured, apart = Measurements(adjustment), 0
    left_out: dict[Path, str] = {}
    for i, pair in enumerate(pairs):
        other = others[i] if others is not None else None
        try:
            rows, odd = _measured(pair, other, restore, wanted, adjustment)
            measured.rows += rows
            apart += odd
        except (GraphnetError, MemoryError) as error:
            files = [pair.image, pair.clean, *((other.image,) if other else ())]
            left_out[pair.image] = error_text(error, *files)
        advance()
    if not measured.rows:
        raise DataError(next(iter(left_out.values())))
    remarks = [f"the clean image {wanted.note}"] if wanted.note else []
    if apart and not adjustment.affine:
        remarks.append(
            f"{apart} images have another range than their targets: their means lie more than {_APART:.0%} "
            f"of the range apart. --affine fits gain and offset before measuring."
        )
    return FileComparison(measured.comparison(), wanted, tuple(remarks), left_out)


def _measured(
    pair: FilePair,
    other: FilePair | None,
    restore: Restore | None,
    wanted: Range,
    adjustment: Adjustment,
) -> tuple[list[ImageRow], int]:
    """The scores of the planes of a pair, and how many of them have another range than their targets."""
    measured, apart = Measurements(adjustment), 0
    for name, noisy, second, clean in _planes(pair, other):
        own = _range_beside(noisy, clean, wanted, pair.image)
        target, before = _unit(clean, wanted), _unit(noisy, own)
        after = None
        if restore is not None:
            after = restore(noisy, own)
        elif second is not None and other is not None:
            after = _unit(second, _range_beside(second, clean, wanted, other.image))
        measured.add([name], before, after, target)
        apart += abs(float(before.mean() - target.mean())) > _APART
    return measured.rows, apart


def _planes(
    pair: FilePair, other: FilePair | None
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any] | None, NDArray[Any]]]:
    """The planes of a pair: name, image, the other image if there is one, and clean image, each (C, H, W)."""
    with open_image(pair.image) as first, open_image(pair.clean) as clean:
        _check_alike(first, clean)
        for plane in range(clean.planes):
            name = pair.name if clean.planes == 1 else f"{pair.name}#{plane}"
            if other is None:
                yield name, *_alike(first.read(plane), None, clean.read(plane))
                continue
            with open_image(other.image) as second:
                _check_alike(second, clean)
                yield name, *_alike(first.read(plane), second.read(plane), clean.read(plane))


def _check_alike(image: ImageFile, clean: ImageFile) -> None:
    found, expected = ((one.planes, one.height, one.width) for one in (image, clean))
    if found != expected:
        raise DataError(
            f"{image.path}: has {found[0]} images of {found[1]} x {found[2]} pixels, but {clean.path} has "
            f"{expected[0]} of {expected[1]} x {expected[2]}. Crop them to one size."
        )
    if image.channels != clean.channels and 1 not in (image.channels, clean.channels):
        raise DataError(
            f"{image.path}: has {image.channels} channels, but {clean.path} has {clean.channels}."
        )


def _alike(
    first: NDArray[Any], second: NDArray[Any] | None, clean: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any]]:
    """The images with equal numbers of channels: grey ones are repeated."""
    given = [image for image in (first, second, clean) if image is not None]
    channels = max(len(image) for image in given)
    wide = [
        image if len(image) == channels else np.repeat(image, channels, axis=0) for image in given
    ]
    return wide[0], wide[1] if second is not None else None, wide[-1]


def range_of(files: Sequence[Path]) -> Range:
    """The range of the numbers of some files, which have one kind of numbers, that of the first file.

    Files that cannot be read do not count. Raises DataError if none can be read.
    """
    parts: list[NDArray[Any]] = []
    levels: Levels | None = None
    errors: list[DataError] = []
    for i in evenly(len(files), _SAMPLED_FILES):
        try:
            with open_image(files[i]) as source:
                if levels in (None, source.levels):
                    numbers = source.read(0).ravel()
                    parts.append(numbers[:: max(1, len(numbers) // _SAMPLED_NUMBERS)])
                    levels = source.levels
        except DataError as error:
            errors.append(error)
    if levels is None:
        raise errors[0]
    return find_range(np.concatenate(parts), levels)


def _range_beside(image: NDArray[Any], clean: NDArray[Any], wanted: Range, path: Path) -> Range:
    """The range of an image: that of its target, if its numbers are of the same kind, else its own.

    Results as floating point may be in the unit of integers, or in 0..1.
    """
    if image.dtype == clean.dtype:
        return wanted
    own = range_of([path])
    kinds = image.dtype.kind, clean.dtype.kind
    if kinds[0] == "f" and kinds[1] in "iu" and (own.low, own.high) != (0.0, 1.0):
        return wanted
    return own


def _unit(pixels: NDArray[Any], of: Range) -> Tensor:
    """An image (1, C, H, W) in 0..1 where the numbers lie in the range."""
    return torch.from_numpy(np.ascontiguousarray(of.values(pixels)))[None]
