"""Block sampling: a small image has one random pixel from each block of a large one."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pydantic
from numpy.typing import NDArray

from graphnet_denoise.draws import Draws
from graphnet_denoise.images import as_unit
from graphnet_denoise.noise.base import Images, Noise, Scenes
from graphnet_denoise.photos import SMALLEST_BLOCK


class BlockSampling(Noise):
    """Each pixel is one random source pixel of its block, all channels from the same one.

    The clean pixel is the mean of its block of s x s source pixels. s is drawn for each patch, from
    `smallest` to the largest that fits into the photo. The data set `photos` samples such images beforehand
    (see photos.py). The larger the blocks, the more their pixels differ, and the stronger is the noise.
    """

    smallest: Annotated[int, pydantic.Field(ge=2)] = SMALLEST_BLOCK

    @property
    def smallest_block(self) -> int:
        return self.smallest

    def block_sides(self, largest: NDArray[np.int64], draws: Draws) -> NDArray[np.int64]:
        return self.smallest + draws.below(largest - self.smallest + 1)

    def noisy(self, scenes: Scenes, draws: Draws) -> Images:
        images = np.empty(scenes.shape, np.float32)
        height, width = images.shape[1:3]
        sides = np.array([len(crop) // height for crop in scenes.crops], np.int32)[:, None, None]
        drawn = draws.uniform(height, width)
        place = np.minimum(drawn * sides**2, sides**2 - 1).astype(np.int32)  # in its block
        row, column = np.divmod(place, sides)
        row += np.arange(height, dtype=np.int32)[:, None] * sides
        column += np.arange(width, dtype=np.int32) * sides
        for image, crop, i, j in zip(images, scenes.crops, row, column, strict=True):
            image[...] = as_unit(crop[i, j])
        return images
