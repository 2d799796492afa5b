"""How good a model is, without a clean image: a score on noisy pixels, what it removed, and flips.

Three things are measured on noisy images:

- the score: some pixels are replaced by others, and the result there is compared with the noisy pixels
  themselves. Their noise is independent of what the model saw, so the mean squared error is that against the
  clean image plus the variance of the noise. The model with the higher PSNR is better.
- the residual, noisy - denoised: if only noise was removed, it is as strong as the noise, correlated between
  pixels like the noise, and unlike the picture.
- flips: the result for the flipped image, flipped back, should be the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_denoise.learning.extremes import Limits, outside, within
from graphnet_denoise.learning.sameness import cell_means
from graphnet_denoise.learning.scenes import hide_pixels
from graphnet_denoise.learning.statistics import Image, neighbour_correlations, noise_statistics

Denoise = Callable[[Image], Image]
"""From the numbers of a noisy image (C, H, W) to those of the denoised one."""

_CELL = 8  # pixels: the side of the cells in which residual and picture are compared
_STRIPS = 64  # rows of a part of an image, in which errors are alike except for the noise
_WHITE = 0.1  # a correlation of the residual that is above that of the noise by this much
_CONTRAST = 0.15
_FLIPS = 0.35  # of the noise's deviation


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured on noisy images, without a clean one.

    Attributes:
        images: how many images.
        score_db: PSNR against noisy pixels that were hidden from the model, for the given peak.
        score_error_db: the standard error of the score.
        noise_db: the score that no model can exceed: the PSNR of the noise itself, as it was measured.
        residual: the deviation of noisy - denoised, divided by that of the noise; about 1.
        along_rows, along_columns: the correlation of neighbouring pixels of the residual.
        noise_rows, noise_columns: that of the noise.
        contrast_lost: the share of the contrast of the picture, between cells of 8 x 8 pixels, that is in the
            residual: the slope of a line from the changes of the denoised picture to those of the residual.
        flips: the deviation between results of flipped images, divided by that of the noise.
    """

    images: int
    score_db: float
    score_error_db: float
    noise_db: float
    residual: float
    along_rows: float
    along_columns: float
    noise_rows: float
    noise_columns: float
    contrast_lost: float
    flips: float

    def record(self) -> dict[str, Any]:
        return asdict(self)

    def remarks(self) -> list[str]:
        """Say what is not as it should be; nothing if all is well."""
        said = []
        if self.contrast_lost > _CONTRAST:
            said.append(
                f"{self.contrast_lost:.0%} of the picture's contrast was removed with the noise"
            )
        extra = max(self.along_rows - self.noise_rows, self.along_columns - self.noise_columns)
        if extra > _WHITE:
            said.append(
                "the residual is more correlated between pixels than the noise: it holds parts of the picture"
            )
        if self.residual < 0.7:
            said.append(
                "less was removed than there is noise: the noise is correlated, or the model needs a longer "
                "training"
            )
        if self.flips > _FLIPS:
            said.append(
                "flipped images give different results: train longer, or denoise with --self-ensemble"
            )
        return said


def measure_quality(
    images: Sequence[Image],
    denoise: Denoise,
    *,
    peak: float,
    hidden: tuple[int, int] = (0, 0),
    limits: Limits | None = None,
) -> Quality:
    """Measure a model on noisy images (C, H, W), by the function that denoises one of them.

    Args:
        images: the noisy images.
        denoise: the model.
        peak: the range from black to white, for PSNR.
        hidden: the rows and columns around a pixel that are hidden with it, as in noise2void.
        limits: pixels outside of them, such as hot pixels, do not count.
    """
    noise = noise_statistics([within(image, limits) for image in images])
    errors: list[NDArray[np.float64]] = []
    residuals: list[Image] = []
    contrast = np.zeros(2)
    flips: list[float] = []
    for image in images:
        pairs = hide_pixels([image.transpose(1, 2, 0)], hidden=hidden)
        shown = denoise(pairs.inputs[0].contiguous().numpy())
        apart = outside(image, limits)
        errors += _errors_by_strip(shown, np.where(apart, np.nan, pairs.targets[0].numpy()))
        denoised = denoise(image)
        residual = np.where(apart, 0, image - denoised)
        residuals.append(residual)
        contrast += _contrast(residual, within(denoised, limits))
        back = denoise(np.ascontiguousarray(image[:, ::-1, ::-1]))[:, ::-1, ::-1]
        flips.append(
            float(np.mean(np.square(np.where(apart, 0, denoised - back), dtype=np.float64)))
        )
    left = np.sqrt(np.mean([np.mean(np.square(r, dtype=np.float64)) for r in residuals]))
    along_rows, along_columns = neighbour_correlations(residuals)
    score, error = _score(errors, peak)
    level = max(noise.level, 1e-12)
    return Quality(
        images=len(images),
        score_db=score,
        score_error_db=error,
        noise_db=float(20 * np.log10(peak / level)),
        residual=float(left) / level,
        along_rows=along_rows,
        along_columns=along_columns,
        noise_rows=noise.along_rows[0],
        noise_columns=noise.along_columns[0],
        contrast_lost=float(contrast[0] / max(contrast[1], 1e-30)),
        flips=float(np.sqrt(np.mean(flips))) / level,
    )


def _errors_by_strip(denoised: Image, target: Image) -> list[NDArray[np.float64]]:
    """The squared errors of the pixels that count, for each strip of rows."""
    squares = np.square(denoised.astype(np.float64) - target)
    strips = (squares[:, top : top + _STRIPS] for top in range(0, squares.shape[1], _STRIPS))
    return [strip[np.isfinite(strip)] for strip in strips]


def _score(errors: Sequence[NDArray[np.float64]], peak: float) -> tuple[float, float]:
    """PSNR of all errors, and its standard error for these images: only their noise is drawn again."""
    strips = [strip for strip in errors if len(strip) > 1]
    count = sum(map(len, strips))
    mse = sum(float(strip.sum()) for strip in strips) / count
    error = np.sqrt(sum(len(strip) * float(strip.var(ddof=1)) for strip in strips)) / count
    return float(10 * np.log10(peak**2 / mse)), float(10 / np.log(10) * error / mse)


def _contrast(residual: Image, denoised: Image) -> tuple[float, float]:
    """The product of the local changes of both at the scale of cells, and the square of the denoised's."""
    removed, kept = (
        np.concatenate([_changes(cell_means(plane.astype(np.float64), _CELL)) for plane in image])
        for image in (residual, denoised)
    )
    return float(removed @ kept), float(kept @ kept)


def _changes(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """The differences of neighbouring cells, along rows and along columns."""
    return np.concatenate((np.diff(cells, axis=0).ravel(), np.diff(cells, axis=1).ravel()))
