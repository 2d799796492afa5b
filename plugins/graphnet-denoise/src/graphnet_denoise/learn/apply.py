"""Apply a model of `graphnet learn` to the numbers of an image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from graphnet.model import Model, pad_to_multiple
from graphnet.plan import CompileOptions
from graphnet_denoise.learn.measure import Image
from graphnet_denoise.restoring import fitted

_OPTIONS = CompileOptions()


def denoiser(model: Model, options: CompileOptions = _OPTIONS) -> Callable[[Image], Image]:
    """Return a function from the numbers of a noisy image (C, H, W) to those of the denoised one."""
    divisor = model.divisor()

    def denoise(image: Image) -> Image:
        channels, height, width = image.shape
        numbers = fitted(
            torch.from_numpy(np.ascontiguousarray(image, np.float32))[None], model.input_channels
        )
        result = model.predict(pad_to_multiple(numbers, divisor), options=options)
        pixels: Image = result[..., :height, :width].cpu().numpy().reshape(channels, height, width)
        return pixels

    return denoise
