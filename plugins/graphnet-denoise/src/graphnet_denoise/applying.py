"""Apply a model to the pixels of an image in any range."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_denoise.ranges import Range, own_numbers
from graphnet_denoise.scoring import Restores


def restore_pixels(restorer: Restores, pixels: NDArray[Any], of: Range) -> Tensor:
    """Denoise an image (C, H, W) of any dtype: float32 (1, C, H, W), where the range `of` is 0..1.

    A model that knows its range gets the numbers as they are, and its result may lie outside 0..1.
    """
    if not restorer.takes_numbers:
        return restorer.restore(torch.from_numpy(of.values(pixels))[None]).cpu()
    numbers = torch.from_numpy(own_numbers(pixels).values(pixels))[None]
    return torch.from_numpy(of.values(restorer.restore(numbers)[0].cpu().numpy()))[None]


def restore_numbers(
    restorer: Restores, pixels: NDArray[np.float32], of: Range
) -> NDArray[np.float32]:
    """Denoise an image (C, H, W); the result has the numbers of the image."""
    result: NDArray[np.float32] = of.pixels(restore_pixels(restorer, pixels, of)[0].numpy(), pixels)
    return result
