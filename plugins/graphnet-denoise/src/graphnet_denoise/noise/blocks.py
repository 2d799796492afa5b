"""Block sampling: a small image is a large one seen through few pixels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from graphnet_denoise.bank import as_unit
from graphnet_denoise.draws import Draws
from graphnet_denoise.noise.base import Images, Noise, Scenes
from graphnet_denoise.photos import SMALLEST_BLOCK


class BlockSampling(Noise):
    """Each pixel is one random source pixel of its block, all channels from the same one.

    The clean pixel is the mean of its block, s x s source pixels, s drawn for each patch from 4 to the
    largest that fits into the photo: what the data set `photos` samples beforehand (see photos.py).
    """

    smallest_block: ClassVar[int] = SMALLEST_BLOCK

    def block_sides(self, largest: NDArray[np.int64], draws: Draws) -> NDArray[np.int64]:
        return SMALLEST_BLOCK + draws.below(largest - SMALLEST_BLOCK + 1)

    def noisy(self, scenes: Scenes, draws: Draws) -> Images:
        images = np.empty(scenes.shape, np.float32)
        height, width = images.shape[1:3]
        rows, columns = np.arange(height)[:, None], np.arange(width)
        uniform = draws.uniform(height, width)
        for image, crop, drawn in zip(images, scenes.crops, uniform, strict=True):
            side = len(crop) // height
            place = np.minimum(drawn * side**2, side**2 - 1).astype(np.int64)
            image[...] = as_unit(crop[rows * side + place // side, columns * side + place % side])
        return images
