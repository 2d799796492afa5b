"""Apply any model to the numbers of an image, whether the model knows their range or takes 0..1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet.model import Model, pad_to_multiple
from graphnet.plan import CompileOptions
from graphnet_denoise.jobs.ranges import Range
from graphnet_denoise.learn.recipe import knows_range
from graphnet_denoise.restoring import Restorer, fitted, turned

_TURNS = 8


@dataclass(frozen=True)
class Applied:
    """A trained model and how it computes; `own_range` if it takes the numbers of a file as they are."""

    model: Model
    restorer: Restorer
    own_range: bool

    @classmethod
    def of(cls, model: Model, *, options: CompileOptions, self_ensemble: bool) -> Self:
        """Raises CheckpointError for a model without weights."""
        restorer = Restorer.of(model, options=options, self_ensemble=self_ensemble)
        return cls(model, restorer, knows_range(model.description))

    def __call__(self, pixels: NDArray[Any], of: Range) -> Tensor:
        """Denoise an image (C, H, W) of any dtype: float32 (1, C, H, W), in which the range `of` is 0..1."""
        if not self.own_range:
            return self.restorer.restore(torch.from_numpy(of.values(pixels))[None])
        numbers = torch.from_numpy(np.ascontiguousarray(pixels, np.float32))[None]
        return torch.from_numpy(of.values(self._denoised(numbers)[0].numpy()))[None]

    def denoised(self, pixels: NDArray[np.float32], of: Range) -> NDArray[np.float32]:
        """Denoise an image (C, H, W); the result has the numbers of the image."""
        result: NDArray[np.float32] = of.pixels(self(pixels, of)[0].cpu().numpy(), pixels)
        return result

    def _denoised(self, numbers: Tensor) -> Tensor:
        """The model's result, or the mean of the results of the 8 flips and turns."""
        turns = range(_TURNS if self.restorer.self_ensemble else 1)
        x = fitted(numbers, self.model.input_channels)
        total = torch.zeros_like(x)
        for turn in turns:
            seen = turned(x, turn)
            height, width = seen.shape[2:]
            padded = pad_to_multiple(seen, self.restorer.divisor)
            result = self.model.predict(padded, options=self.restorer.options)
            total += turned(result[..., :height, :width].to(x), turn, back=True) / len(turns)
        return total.reshape(numbers.shape)
