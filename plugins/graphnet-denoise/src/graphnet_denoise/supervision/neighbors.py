"""Neighbor2Neighbor: train on two half-sized images of neighbouring pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import numpy as np
import pydantic
import torch
from torch import Tensor

from graphnet_denoise.supervision.base import Supervision, Views, as_tensor, halved

# Two neighbouring pixels of a cell of 2 x 2, whose pixels are 0 1 / 2 3: side by side or one below the other.
_PAIRS = np.array([(0, 1), (1, 0), (0, 2), (2, 0), (1, 3), (3, 1), (2, 3), (3, 2)])


class Neighbor2Neighbor(Supervision):
    """Neighbouring pixels as two noisy images of one scene (Huang et al. 2021).

    From each cell of 2 x 2 pixels of a noisy patch y, two neighbours are drawn: g1(y) is the input and g2(y)
    the target, both of half the size. The two scenes differ a little; a second term corrects this:

        ||f(g1(y)) - g2(y)||^2 + gamma ||f(g1(y)) - g2(y) - (g1(f(y)) - g2(f(y)))||^2,

    with f the network, and no gradient through f(y). With d = g1(f(y)) - g2(f(y)), the gradient is, except
    for the factor 1 + gamma, that of the mean squared error against the target g2(y) + gamma / (1 + gamma) d,
    so the loss must be mse. The factor, with which the paper's learning rate grows, is left out; Adam's steps
    do not depend on it. The weight of the second term grows from 0 to `gamma` in proportion to the steps
    done.
    """

    single: ClassVar[bool] = True
    gamma: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)] = 2.0

    def side(self, size: int) -> int:
        return halved(size, "neighbor2neighbor")

    def make(self, views: Views) -> tuple[Tensor, ...]:
        noisy = views.noisy()
        height, width = noisy.shape[1:3]
        uniform = views.own().uniform(1, height // 2, width // 2)
        pairs = torch.from_numpy(_PAIRS[np.minimum(uniform * 8, 7).astype(np.int64)])
        return views.as_input(noisy), as_tensor(noisy), pairs

    def finish(
        self, batch: tuple[Tensor, ...], predict: Callable[[Tensor], Any], progress: float
    ) -> tuple[Tensor, ...]:
        shown, noisy, pairs = batch
        first, second = pairs.unbind(-1)
        target = sub_image(noisy, second)
        gamma = self.gamma * progress
        if gamma:
            clean = predict(shown)
            difference = sub_image(clean, first) - sub_image(clean, second)
            target = target + gamma / (1 + gamma) * difference
        return sub_image(shown, first), target


def sub_image(images: Tensor, places: Tensor) -> Tensor:
    """Select one pixel of each cell of 2 x 2: images (N, C, 2H, 2W), places (N, 1, H, W) in 0..3.

    >>> sub_image(torch.arange(4).reshape(1, 1, 2, 2), torch.tensor([[[[2]]]]))
    tensor([[[[2]]]])
    """
    n, c, h, w = images.shape
    cells = images.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 2, 4, 3, 5)
    cells = cells.reshape(n, c, h // 2, w // 2, 4)
    index = places[..., None].expand(n, c, -1, -1, 1)
    return cells.gather(-1, index)[..., 0]
