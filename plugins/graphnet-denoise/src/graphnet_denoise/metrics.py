"""Metrics of images: PSNR, as a mean over images and pooled, and SSIM.

All take a prediction and a target of the same shape (N, C, H, W), floating point, with 0..1 from black to
white, and compute in float64. With `clamp`, the default, a prediction is first clamped to 0..1, as in an
image file; `psnr`, `psnr_pooled` and `ssim` of this module clamp nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pydantic import PositiveFloat
from torch import Tensor

from graphnet.errors import DataError
from graphnet.sdk import Metric

WINDOW = 11
"""Side of SSIM's Gaussian window, and so the smallest side that an image may have."""

_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03
_BAND = 1 << 20  # elements of a large image at a time, which bounds the memory
_FEWEST_ROWS = 16  # of a band
_CHUNK = 1 << 16  # elements in float64 at a time: few enough for SSIM to stay in the caches


class PSNR(Metric):
    """The mean over the images of the peak signal-to-noise ratio of each image, in dB.

    10 log10(1 / MSE) with MSE over the channels and pixels of one image: the PSNR that denoising
    papers quote. It is infinite if an image equals its target.

    >>> target = torch.zeros(2, 1, 4, 4)
    >>> error = torch.tensor([0.1, 0.01]).reshape(2, 1, 1, 1)  # 20 dB and 40 dB
    >>> round(PSNR()(target + error, target), 3)
    30.0
    """

    higher_is_better = True
    clamp: bool = True

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        return squared_error(_as_image(prediction, self.clamp), target)

    def combine(self, rows: Tensor) -> float:
        return mean_psnr(rows)


class PooledPSNR(Metric):
    """Peak signal-to-noise ratio in dB of the error pooled over all images and pixels.

    10 log10(1 / MSE) with one MSE over all pixels of all images. It is never above `psnr`, since the worst
    images count most.

    >>> target = torch.zeros(2, 1, 4, 4)
    >>> error = torch.tensor([0.1, 0.01]).reshape(2, 1, 1, 1)  # MSE (0.01 + 0.0001) / 2
    >>> round(PooledPSNR()(target + error, target), 3)
    22.967
    """

    higher_is_better = True
    clamp: bool = True

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        errors = squared_error(_as_image(prediction, self.clamp), target)
        return torch.stack((errors, torch.full_like(errors, math.prod(prediction.shape[2:]))), 1)

    def combine(self, rows: Tensor) -> float:
        return pooled_psnr(*rows.T)


class SSIM(Metric):
    """Structural similarity (Wang et al. 2004, eq. 13): mean over positions, channels, images.

    The settings are the paper's: a Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, biased
    variances, range 1, and only positions where the window lies inside the image. It is the number that
    scikit-image computes by `structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1)`. Raises DataError for images below 11 pixels a side.

    >>> image = torch.linspace(0, 1, 144).reshape(1, 1, 12, 12)
    >>> SSIM()(image, image)
    1.0
    """

    higher_is_better = True
    clamp: bool = True

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        return structural_similarity(_as_image(prediction, self.clamp), target)


class HeldOutPSNR(Metric):
    """PSNR in dB against noisy targets that were held out; pixels whose target is NaN do not count.

    10 log10(peak^2 / MSE) with one MSE over all images. If the noise of the targets has the mean 0 and is
    independent of the inputs, MSE is the error against the clean image plus the variance of this noise, which
    no model changes. So of two models the one with the higher value is better, without a clean image.

    >>> target = torch.tensor([[[[0.0, torch.nan]]]])
    >>> round(HeldOutPSNR()(torch.full((1, 1, 1, 2), 0.1), target), 3)
    20.0
    """

    higher_is_better = True
    peak: PositiveFloat = 1.0

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        errors = (prediction.double() - target.double()).square()
        counted = ~target.isnan()
        sums = errors.nan_to_num(nan=0.0).where(counted, 0).sum(dim=(1, 2, 3))
        return torch.stack((sums, counted.sum(dim=(1, 2, 3)).double()), 1)

    def combine(self, rows: Tensor) -> float:
        total, count = rows.sum(dim=0)
        return float(10 * torch.log10(self.peak**2 * count / total))


psnr, psnr_pooled, ssim = PSNR(clamp=False), PooledPSNR(clamp=False), SSIM(clamp=False)


def _as_image(prediction: Tensor, clamp: bool) -> Tensor:
    """The prediction, clamped to 0..1 if `clamp` is set."""
    return prediction.clamp(0, 1) if clamp else prediction


def mean_psnr(errors: Tensor) -> float:
    """Compute `psnr` from the mean squared error of each image, (N,)."""
    return float(10 * torch.log10(1 / errors).mean())


def pooled_psnr(errors: Tensor, pixels: Tensor) -> float:
    """Compute `psnr_pooled` from the mean squared error and the number of pixels of each image, both (N,)."""
    return float(10 * torch.log10(pixels.sum() / (errors * pixels).sum()))


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of each image: float64 (N,)."""
    return _per_image(lambda x, y: (x - y).square().mean(dim=(1, 2, 3)), prediction, target)


def structural_similarity(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean SSIM of each image, as in `SSIM`: float64 (N,)."""
    if prediction.ndim == 4 and min(prediction.shape[2:]) < WINDOW:
        height, width = prediction.shape[2:]
        raise DataError(
            f"SSIM: expected images of at least {WINDOW} x {WINDOW} pixels, the size of its "
            f"window, found {height} x {width}. Give larger images, or leave SSIM out."
        )
    return _per_image(_similarity, prediction, target, overlap=WINDOW - 1)


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    c1, c2 = _K1**2, _K2**2
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur(torch.stack((x, y, x * x, y * y, x * y)))
    variance_x, variance_y = mean_xx - mean_x.square(), mean_yy - mean_y.square()
    covariance = mean_xy - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    denominator = (mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2)
    similarity: Tensor = numerator / denominator
    return similarity.mean(dim=(1, 2, 3))


def _blur(x: Tensor) -> Tensor:
    """Gaussian mean over each window inside the image: (..., H, W) -> (..., H - 10, W - 10)."""
    bell = [math.exp(-0.5 * ((i - WINDOW // 2) / _SIGMA) ** 2) for i in range(WINDOW)]
    for axis in (-2, -1):
        inside = x.shape[axis] - WINDOW + 1
        # Sums of shifted views: a convolution in float64 takes several times as long.
        total = x.narrow(axis, 0, inside) * (bell[0] / sum(bell))
        for shift in range(1, WINDOW):
            total.add_(x.narrow(axis, shift, inside), alpha=bell[shift] / sum(bell))
        x = total
    return x


def _per_image(
    measure: Callable[[Tensor, Tensor], Tensor],
    prediction: Tensor,
    target: Tensor,
    *,
    overlap: int = 0,
) -> Tensor:
    """Call `measure`, which returns a mean for each image, on a few small images at a time.

    A large image is measured in bands of rows, whose means are weighted by their rows. Bands overlap by so
    many rows, which have no value of their own.
    """
    if prediction.shape != target.shape:
        raise DataError(
            f"a metric compares equal shapes: found a prediction {tuple(prediction.shape)} and a "
            f"target {tuple(target.shape)}. Crop or resize one of them."
        )
    if prediction.ndim != 4 or prediction.numel() == 0:
        raise DataError(
            f"a metric expects images (N, C, H, W), found shape {tuple(prediction.shape)}. "
            f"Add the missing axes, such as image[None]."
        )
    for name, tensor in (("prediction", prediction), ("target", target)):
        if not tensor.is_floating_point():
            raise DataError(
                f"a metric expects floating point in 0..1, found a {name} of {tensor.dtype}. "
                f"Divide uint8 images by 255."
            )
    height, values = prediction.shape[2], math.prod(prediction.shape[1:])
    images = max(1, _CHUNK // values)
    rows = height - overlap
    band = max(_FEWEST_ROWS, rows * _BAND // values)
    found = []
    with torch.no_grad():
        for first in range(0, len(target), images):
            total = torch.zeros(())
            for top in range(0, rows, band):
                bottom = min(top + band, rows)
                part = slice(first, first + images), slice(None), slice(top, bottom + overlap)
                mean = measure(prediction[part].double(), target[part].double())
                total = total + mean.cpu() * ((bottom - top) / rows)
            found.append(total)
    return torch.cat(found)
