"""Pixel weights: how much each pixel counts in training, so that no few pixels decide what is learned.

A squared error of a bright star or of a hot pixel is a million times that of the sky around it. With n the
deviation of the noise, m and v the mean and the variance of a pixel's surroundings, as the network sees them,
and t the target, the pixel counts

    n^2 / (n^2 + v),    and 0 if (t - m)^2 > 100 (n^2 + v).

So each pixel is compared with what can be known there. The weight depends on what the network sees, except
for targets that no noise explains, so the best prediction is still the mean of the clean image (Lehtinen et
al. 2018, section 3.3, weigh images of high dynamic range by their brightness for the same reason).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from graphnet_denoise.learning.extremes import calmed

_AROUND = 5  # the side of the surroundings in pixels
_UNLIKELY = 100.0  # times the variance


def pixel_weights(shown: Tensor, target: Tensor, noise: float) -> Tensor:
    """Return how much each pixel counts, in 0..1: float32 (N, C, H, W).

    Args:
        shown: the images that the network sees, (N, C, H, W).
        target: the images with which its results are compared, of the same shape.
        noise: the standard deviation of the noise, in the numbers of the images.
    """
    calm = torch.from_numpy(calmed(shown.numpy()))
    offset = calm.mean(dim=(2, 3), keepdim=True)  # keeps the digits of the variance
    mean = _around(calm - offset)
    variance = (_around((calm - offset).square()) - mean.square()).clamp_min(0)
    expected = noise**2 + variance
    unlikely = (target - offset - mean).square() > _UNLIKELY * expected
    return (noise**2 / expected).masked_fill(unlikely, 0)


def _around(images: Tensor) -> Tensor:
    return functional.avg_pool2d(images, _AROUND, 1, _AROUND // 2, count_include_pad=False)
