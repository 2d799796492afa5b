"""What `graphnet learn` found in a folder, what it chose, and the five lines that say so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphnet.errors import DataError
from graphnet.system import bytes_text, parse_bytes
from graphnet_denoise.learning.arrangement import Arrangement, arrange
from graphnet_denoise.learning.choice import CORRELATED, Choice, choose
from graphnet_denoise.learning.extremes import calmed, outside, picture_limits, within
from graphnet_denoise.learning.frames import (
    Frame,
    ImageSource,
    as_numbers,
    read_frame,
    sources_in,
)
from graphnet_denoise.learning.regions import MEMORY, Scene, choose_regions
from graphnet_denoise.learning.statistics import Image, NoiseStatistics, noise_statistics, peak_of
from graphnet_denoise.sampling import evenly

_MEASURED = 16  # images by which noise and range are measured
_TOLD = 5e-6  # a share of the pixels
_UNITS = 10.0  # times the range of the images of another dtype
_SIDE = 1024  # pixels of the middle of an image that are measured, at most
_AREA = 2048**2  # pixels that are measured in all


@dataclass(frozen=True)
class Findings:
    """The images of a folder, their noise, and the choice that follows.

    `apart` is the share of the pixels that lie outside the choice's limits.
    """

    folder: Path
    sources: Sequence[ImageSource]
    arrangement: Arrangement
    noise: NoiseStatistics
    choice: Choice
    apart: float = 0.0
    memory: int = MEMORY
    left_out: Sequence[str] = ()

    def lines(self, length: str) -> list[str]:
        """Say in five lines what was found and chosen; `length` says how long the training takes.

        A line follows for each file that cannot be read.
        """
        end = (
            "training ends earlier if the score on patches that are held out no longer rises, and the best "
            "model is kept"
            if self.choice.held_out
            else "no patches are held out, since the images are too small and too few: training takes all of "
            "the time, and the last model is kept"
        )
        return [
            f"found    {self._found()}",
            f"noise    {self._noise()}",
            f"learns   {self.choice.learns}",
            f"network  {self._network()}",
            f"time     {length}; {end}",
            *(f"left out {error}" for error in self.left_out),
        ]

    def _found(self) -> str:
        shapes = {source.shape for source in self.sources}
        channels, height, width = next(iter(shapes))
        colour = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
        size = f"{height} x {width} pixels" if len(shapes) == 1 else "various sizes"
        dtypes = " and ".join(sorted({str(source.dtype) for source in self.sources}))
        count = sum(source.planes for source in self.sources)
        many = f"{count} {colour} images" if count > 1 else f"one {colour} image"
        return f"{many} of {size}, {dtypes}: {self.arrangement.reason}{self._held()}"

    def _held(self) -> str:
        """The words for images of which only regions are held in memory, or an empty text."""
        by_file = {source.file: source for source in self.sources}
        scenes = [Scene.of(scene, by_file) for scene in self.arrangement.scenes]
        held = choose_regions(scenes, self.memory)
        if held.side is None:
            return ""
        bound = bytes_text(self.memory)
        return f". They take more than {bound} (--memory), so the network learns from {held}"

    def _noise(self) -> str:
        noise = self.noise
        level = f"standard deviation {noise.level:.3g}"
        share = f" ({noise.level / self.choice.peak:.1%} of the range)"
        grows = (
            f", {noise.dark:.3g} where it is dark and {noise.bright:.3g} where it is bright"
            if noise.grows
            else ", about the same at every brightness"
        )
        along = noise.along_rows[0], noise.along_columns[0]
        words = "correlated" if max(along) > CORRELATED else "hardly correlated"
        where = f"{along[0]:.2f} along rows, {along[1]:.2f} along columns"
        return f"{level}{share}{grows}; the noise of neighbouring pixels is {words} ({where})"

    def _network(self) -> str:
        choice = self.choice
        limits = ""
        if choice.limits is not None and self.apart >= _TOLD:
            low, high = choice.limits
            limits = (
                f" (what lies outside of {low:.4g} to {high:.4g}, in {self.apart:.3%} of the pixels, is set "
                f"apart and added again)"
            )
        return (
            f"U-Net for {choice.channels} channel{'s' if choice.channels > 1 else ''}, on patches of "
            f"{choice.size} x {choice.size}; values are normalized by the images' mean {choice.mean:.4g} "
            f"and deviation {choice.deviation:.4g}{limits}, which the model file keeps"
        )


def find(folder: Path, *, memory: int | str = MEMORY) -> Findings:
    """Look at a folder, of whose images at most `memory` bytes will be held.

    Raises DataError if it has no images, or no way leads to clean ones.
    """
    found = sources_in(folder)
    sources = found.files
    arrangement = arrange(sources)
    images, again = _sampled(arrangement)
    _check_units(folder, arrangement, images, {source.file: source.dtype for source in sources})
    limits = picture_limits(images)
    apart = sum(int(outside(image, limits).sum()) for image in images) / sum(
        image.size for image in images
    )
    images = [within(image, limits) for image in images]
    again = again and [within(image, limits) for image in again]
    try:
        noise = noise_statistics(images, again)
    except ValueError as error:
        raise DataError(f"{folder}: {error}.") from error
    if noise.spread == 0:
        raise DataError(
            f"{folder}: all pixels of the images are equal. Give images with a picture."
        )
    peak = peak_of(np.concatenate([image.ravel() for image in images]))
    choice = choose(sources, arrangement, noise, peak=peak, limits=limits)
    bound = parse_bytes(memory, whole=sum(source.size_bytes for source in sources))
    return Findings(folder, sources, arrangement, noise, choice, apart, bound, found.left_out)


def _check_units(
    folder: Path,
    arrangement: Arrangement,
    images: Sequence[Image],
    dtypes: Mapping[Path, np.dtype[np.generic]],
) -> None:
    """Raise DataError for images of several dtypes whose numbers cannot have one unit."""
    scenes = arrangement.scenes
    by_dtype: dict[str, list[Image]] = {}
    for i, image in zip(evenly(len(scenes), _MEASURED), images, strict=True):
        by_dtype.setdefault(str(dtypes[scenes[i][0].file]), []).append(image)
    ranges = {
        dtype: np.percentile(
            np.concatenate([calmed(image).ravel() for image in found]), (0.1, 99.9)
        )
        for dtype, found in by_dtype.items()
    }
    widths = [float(high - low) for low, high in ranges.values()]
    if max(widths) > _UNITS * min(widths):
        found = " and ".join(
            f"those of {dtype} have numbers from {low:.4g} to {high:.4g}"
            for dtype, (low, high) in sorted(ranges.items())
        )
        raise DataError(
            f"{folder}: the images have no common unit: {found}. Put each kind into a folder of its own."
        )


def _sampled(arrangement: Arrangement) -> tuple[list[Image], list[Image] | None]:
    """Some images by which the noise is measured, and a second image of each scene if there is one."""
    scenes = arrangement.scenes
    chosen = evenly(len(scenes), _MEASURED)
    side = min(_SIDE, math.isqrt(_AREA // len(chosen)))
    images = [_image(scenes[i][0], side) for i in chosen]
    if not arrangement.repeated or arrangement.ordered:  # a difference has the noise of both images
        return images, None
    return images, [_image(scenes[i][1], side) for i in chosen]


def _image(frame: Frame, side: int) -> Image:
    return as_numbers(read_frame(frame, side=side))
