"""Development: what a camera makes of the values of its sensor, as tensor operations on batches of images.

Images are float32 (N, 3, H, W), mosaics float32 (N, 1, H, W): one value for each pixel, under a Bayer filter
whose 2 x 2 cells have red and green above, green and blue below. A number for each image is (N, 1, 1, 1).
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from graphnet_denoise.bank import LUMA

_TABLE = 1021  # entries; the levels of 8 bits are among them


def tone(linear: Tensor, gamma: Tensor, contrast: Tensor) -> Tensor:
    """Make display values of linear light in 0..1: y = (1 - c) p + c (3 p^2 - 2 p^3) with p = x^(1 / gamma).

    The second term is the smooth step which Brooks et al. 2019 ("Unprocessing images") use as a camera's tone
    curve; `contrast` c in 0..0.8 mixes it in.

    >>> tone(torch.tensor(0.25), torch.tensor(2.0), torch.tensor(0.0)).item()
    0.5
    """
    return _curve(linear.clamp(0, 1).pow(1 / gamma), contrast)


def _curve(power: Tensor, contrast: Tensor) -> Tensor:
    return power * (1 - contrast + contrast * power * (3 - 2 * power))


def inverse_tone(display: Tensor, gamma: Tensor, contrast: Tensor) -> Tensor:
    """Make linear light of display values (N, ...) in 0..1: the inverse of `tone`, from a table.

    >>> one = torch.ones(1, 1, 1, 1)
    >>> round(inverse_tone(0.5 * one, 2.0 * one, 0.0 * one).item(), 4)
    0.25
    """
    n, steps = len(display), _TABLE - 1
    power = torch.linspace(0, 1, _TABLE)
    values = _curve(power, contrast).reshape(n, -1)
    tables = torch.from_numpy(
        np.stack([np.interp(power.numpy(), row, power.numpy()) for row in values.numpy()])
    ).float()
    tables = tables.pow(gamma.reshape(n, 1)).flatten()
    place = display.clamp(0, 1).mul(steps)
    below = place.floor().clamp_max(steps - 1)
    index = below.long() + _TABLE * torch.arange(n).reshape(n, *[1] * (display.ndim - 1))
    return torch.lerp(tables.take(index), tables.take(index + 1), place - below)


def colour_matrix(saturation: Tensor, green: Tensor) -> Tensor:
    """Make matrices from the sensor's colours to those of the display: (N, 1, 1, 1) gives (N, 3, 3).

    The filters of a sensor overlap, so its colours are pale; the matrix moves each colour away from the mean
    of the pixel, M = (1 + s) I - s 1 w^T with w = ((1 - g) / 2, g, (1 - g) / 2). Its rows have the sum 1, so
    grey stays grey.
    """
    side = (1 - green) / 2
    weights = torch.cat((side, green, side), dim=1).reshape(-1, 1, 3).expand(-1, 3, 3)
    strength = saturation.reshape(-1, 1, 1)
    return (1 + strength) * torch.eye(3) - strength * weights


def mix_channels(images: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the colours of each pixel with the matrix of its image, (N, 3, 3)."""
    return torch.bmm(matrix, images.flatten(2)).reshape(images.shape)


def bayer_masks(height: int, width: int) -> Tensor:
    """Return which pixels of a mosaic are red, green and blue: float32 (3, H, W).

    >>> bayer_masks(2, 2).tolist()
    [[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]
    """
    masks = torch.zeros(3, height, width)
    masks[0, ::2, ::2] = 1
    masks[1, ::2, 1::2] = 1
    masks[1, 1::2, ::2] = 1
    masks[2, 1::2, 1::2] = 1
    return masks


def demosaic(mosaic: Tensor, correction: Tensor, sharpness: Tensor) -> Tensor:
    """Interpolate the missing colours of a mosaic (N, 1, H, W): images (N, 3, H, W), H and W even.

    Green at a red or blue pixel x is interpolated along rows and along columns, as the mean of its two
    neighbours plus a share of x's second difference over pixels of x's colour (Hamilton & Adams 1997): the
    `correction` 0 is bilinear, 1 theirs. Both are mixed with weights that fall with the change of the mosaic
    along their axis to the power `sharpness`: 0 is the mean, larger powers choose a direction, as cameras
    do. Red and blue are interpolated bilinearly as differences from green.
    """
    height, width = mosaic.shape[2:]
    red, green, blue = bayer_masks(height, width).unbind()
    wide = functional.pad(mosaic, (2, 2, 2, 2), mode="reflect")  # the pattern goes on at the edges

    def shifted(rows: int, columns: int) -> Tensor:
        return wide[:, :, 2 + rows : 2 + rows + height, 2 + columns : 2 + columns + width]

    estimates, changes = [], []
    for rows, columns in ((0, 1), (1, 0)):
        before, after = shifted(-rows, -columns), shifted(rows, columns)
        second = 2 * mosaic - shifted(-2 * rows, -2 * columns) - shifted(2 * rows, 2 * columns)
        estimates.append((before + after) / 2 + correction * second / 4)
        changes.append((before - after).abs() + second.abs() + 1e-4)
    horizontal, vertical = (change.log() * sharpness for change in changes)
    share = torch.sigmoid(vertical - horizontal)  # change_v^p / (change_v^p + change_h^p)
    mixed = share * estimates[0] + (1 - share) * estimates[1]
    full_green = torch.where(green.bool(), mosaic, mixed)
    kernel = (
        torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]).reshape(1, 1, 3, 3) / 4
    )
    channels = []
    for mask in (red, blue):
        difference = (mosaic - full_green) * mask
        padded = functional.pad(difference, (1, 1, 1, 1), mode="reflect")
        channels.append(full_green + functional.conv2d(padded, kernel))
    return torch.cat((channels[0], full_green, channels[1]), dim=1)


def blur(images: Tensor, std: Tensor) -> Tensor:
    """Filter each image (N, C, H, W) by a Gaussian kernel of its own deviation in pixels; 0 changes nothing.

    A kernel reaches 3 of the largest deviation, but at least 1 and at most 6 pixels; edges are reflected.
    """
    n, c, h, w = images.shape
    used = std.flatten() > 0
    if not bool(used.all()):
        filtered = images.clone()
        if bool(used.any()):
            filtered[used] = blur(images[used], std[used])
        return filtered
    radius = min(6, max(1, math.ceil(3 * float(std.max()))))
    places = torch.arange(-radius, radius + 1.0)
    bell = torch.exp(-0.5 * (places / std.reshape(-1, 1)) ** 2)
    kernels = (bell / bell.sum(1, keepdim=True)).repeat_interleave(c, 0)
    x = images.reshape(1, n * c, h, w)
    for shape, padding in (((1, -1), (radius, radius, 0, 0)), ((-1, 1), (0, 0, radius, radius))):
        kernel = kernels.reshape(n * c, 1, *shape) if shape[0] == 1 else kernels[:, None, :, None]
        x = functional.conv2d(functional.pad(x, padding, mode="reflect"), kernel, groups=n * c)
    return x.reshape(n, c, h, w)


def to_luma_and_colour(images: Tensor) -> tuple[Tensor, Tensor]:
    """Split images into their luma (N, 1, H, W) and the colours' differences from it, (N, 3, H, W)."""
    luma = (images * torch.tensor(LUMA).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
    return luma, images - luma


def smooth_flat_parts(luma: Tensor, noise_std: Tensor) -> Tensor:
    """Remove noise as cameras do: fully where the picture is flat, hardly at edges (Lee 1980).

    With m and v the mean and variance of the 5 x 5 pixels around a pixel, y = m + max(v - s^2, 0) / v (x - m)
    for the noise's deviation s, (N, 1, 1, 1).
    """
    used = noise_std.flatten() > 0
    if not bool(used.any()):
        return luma
    x = luma[used]
    wide = functional.pad(x, (2, 2, 2, 2), mode="reflect")
    wide = torch.cat((wide, wide.square()), dim=1)
    for axis in (2, 3):  # sums of shifted views are faster than a pooling
        length = wide.shape[axis] - 4
        wide = sum((wide.narrow(axis, i, length) for i in range(5)), torch.zeros(())) / 5
    mean, mean_of_squares = wide[:, :1], wide[:, 1:]
    variance = (mean_of_squares - mean.square()).clamp_min(1e-9)
    kept = (1 - noise_std[used].square() / variance).clamp(0, 1)
    smoothed = luma.clone()
    smoothed[used] = mean + kept * (x - mean)
    return smoothed


def magnified(images: Tensor, scale: Tensor) -> Tensor:
    """Magnify the middle of each image by its `scale` of 1 or more, to the same size (bicubic)."""
    ratio = 1 / scale.reshape(-1)
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = ratio
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(
        images, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )


def through_jpeg(image: Tensor, *, quality: int, subsampling: int) -> Tensor:
    """Round an image (C, H, W) in 0..1 to 8 bits, save it as a JPEG and read it again; C is 1 or 3.

    `quality` is libjpeg's, 1..100; `subsampling` 0 keeps the colours' resolution, 1 halves their columns, 2
    their rows too.
    """
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    picture = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    picture.save(file, "JPEG", quality=quality, subsampling=subsampling)
    decoded = np.array(Image.open(file)).reshape(levels.shape)
    return torch.from_numpy(decoded).permute(2, 0, 1).float() / 255
