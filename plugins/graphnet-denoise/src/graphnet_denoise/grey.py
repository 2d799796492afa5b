"""Grey images for colour models: colour noise is added, so that the noise of the channels is independent.

A grey image that is repeated over C channels has the same noise in all of them. A model that was trained on
noise that is independent between channels treats such noise as a part of the picture and does not remove it.
With n the image's noise, of deviation s, and z_1 .. z_C independent standard normal numbers of mean m,

    n_k = n + sqrt(C) s (z_k - m)    has    Cov(n_k, n_l) = s^2 + C s^2 ((k = l) - 1 / C) = C s^2 (k = l):

the channels' noise is independent, of deviation sqrt(C) s, and its mean over the channels is n again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_NORMAL_MEDIAN = 0.6744897501960817  # of |z|, z standard normal
_SEED = 0x67726579  # no small number, with which somebody may have drawn the image's own noise
_PERIOD = 512
_MASK_NORM = 6.0  # the root of the sum of squares of (1, -2, 1) x (1, -2, 1)


def is_grey(images: Tensor) -> Tensor:
    """Return which images (N, C, H, W) have equal channels: bool (N,).

    >>> is_grey(torch.tensor([[0.5, 0.5], [0.5, 0.6]]).reshape(2, 2, 1, 1))
    tensor([ True, False])
    """
    return (images == images[:, :1]).flatten(1).all(1)


def noise_level(images: Tensor) -> Tensor:
    """Estimate the standard deviation of each image's noise, in the unit of the images: (N,).

    The noise is assumed to be Gaussian and independent from pixel to pixel. The mask [[1, -2, 1], [-2, 4,
    -2], [1, -2, 1]] (Immerkaer 1996) removes smooth parts of an image, and multiplies the deviation of the
    noise by 6, the mask's norm. The median of the absolute values, divided by that of a standard normal
    number, ignores edges (Donoho & Johnstone 1994). Positions where the mask covers exact black or white do
    not count, since the noise is clipped there; the estimate is 0 if no position is left.

    >>> noise_level(torch.linspace(0.1, 0.9, 64).reshape(1, 1, 8, 8)).round(decimals=4)
    tensor([0.])
    """
    if min(images.shape[2:]) < 3:
        return images.new_zeros(len(images))
    filtered = images.diff(n=2, dim=2).diff(n=2, dim=3).abs() / _MASK_NORM
    cut_off = ((images == 0) | (images == 1)).to(images.dtype)
    met = functional.max_pool2d(cut_off, 3, stride=1) > 0
    median = filtered.masked_fill(met, torch.nan).flatten(1).nanmedian(dim=1).values
    return median.nan_to_num(0) / _NORMAL_MEDIAN


def example(channels: int) -> tuple[Tensor, float]:
    """Return a flat image (1, C, 64, 64) with the same noise in all channels, and the noise's deviation."""
    level = 20 / 255
    generator = torch.Generator().manual_seed(_SEED)
    noise = torch.randn((1, 1, 64, 64), generator=generator)
    return (0.5 + level * noise).expand(-1, channels, -1, -1), level


def colour_noise(
    channels: int, corner: tuple[int, int], size: Sequence[int], *, seed: int
) -> Tensor:
    """Cut sqrt(C) (z_k - m) of the module's equation out of an endless plane: float32 (1, C, h, w).

    The plane repeats after 512 rows and columns, so that each part of an image gets its own noise, no matter
    how the image is cut. The mean over the channels is 0.

    Args:
        channels: the number C.
        corner: the row and column of the plane at which the part begins.
        size: its height and width.
        seed: another plane for each number.
    """
    rows, columns = (
        torch.arange(first, first + length) % _PERIOD
        for first, length in zip(corner, size, strict=True)
    )
    return _repeated(channels, seed)[:, :, rows[:, None], columns]


@functools.lru_cache(maxsize=8)
def _repeated(channels: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(_SEED + seed)
    noise = torch.randn((1, channels, _PERIOD, _PERIOD), generator=generator)
    noise -= noise.mean(dim=1, keepdim=True)
    return noise.mul_(math.sqrt(channels))
