"""Judge a model by noisy images, without a clean one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphnet.errors import DataError
from graphnet_denoise.applying import restore_numbers
from graphnet_denoise.images import open_image
from graphnet_denoise.learning.extremes import picture_limits, within
from graphnet_denoise.learning.frames import Frame, as_numbers, read_frame
from graphnet_denoise.learning.quality import Quality, measure_quality
from graphnet_denoise.learning.statistics import peak_of
from graphnet_denoise.ranges import find_range
from graphnet_denoise.sampling import evenly
from graphnet_denoise.scoring import Restores

_JUDGED = 8  # images by which a model is judged
_SIDE = 768  # pixels of the middle of an image by which it is judged


@dataclass(frozen=True, slots=True)
class Judged:
    """What was measured, and the range from black to white by which PSNR was computed."""

    quality: Quality
    peak: float

    def record(self) -> dict[str, Any]:
        """The numbers as plain data."""
        return {**self.quality.record(), "peak": self.peak}

    def lines(self) -> list[str]:
        """Say how good the model is, a line for each measure."""
        quality = self.quality
        changed = "removed" if quality.contrast_lost >= 0 else "added"
        lines = [
            f"measured on {quality.images} noisy images, without a clean one",
            f"score      {quality.score_db:.2f} +- {quality.score_error_db:.2f} dB against hidden noisy "
            f"pixels (higher is better; the noise alone: about {quality.noise_db:.2f} dB)",
            f"residual   {quality.residual:.2f} of the noise's deviation; neighbours are correlated by "
            f"{quality.along_rows:+.2f} along rows and {quality.along_columns:+.2f} along columns (noise: "
            f"{quality.noise_rows:+.2f}, {quality.noise_columns:+.2f})",
            f"contrast   {abs(quality.contrast_lost):.1%} of the contrast of details of 8 pixels was "
            f"{changed}",
            f"flips      change the result by {quality.flips:.2f} of the noise's deviation",
        ]
        return lines + [f"note       {remark}" for remark in quality.remarks()]


def judge(
    restorer: Restores, frames: Sequence[Frame], *, hidden: tuple[int, int] = (0, 0)
) -> Judged:
    """Measure a model on at most 8 noisy images.

    Raises DataError for images that cannot be read, are too small, or have no picture.
    """
    chosen = [frames[i] for i in evenly(len(frames), _JUDGED)]
    native = [read_frame(frame, side=_SIDE) for frame in chosen]
    images = [as_numbers(image) for image in native]
    numbers = np.concatenate([image.ravel() for image in images])
    if numbers.min() == numbers.max():
        raise DataError(f"{frames[0]}: all pixels are equal. Give images with a picture.")
    limits = picture_limits(images)
    peak = peak_of(within(numbers, limits))
    with open_image(chosen[0].file) as source:
        levels = source.levels
    alike = [image.ravel() for image in native if image.dtype == levels.dtype]
    used = find_range(np.concatenate(alike), levels)
    try:
        quality = measure_quality(
            images,
            lambda image: restore_numbers(restorer, image, used),
            peak=peak,
            hidden=hidden,
            limits=limits,
        )
    except ValueError as error:
        raise DataError(f"{frames[0]}: {error}.") from error
    return Judged(quality, peak)
