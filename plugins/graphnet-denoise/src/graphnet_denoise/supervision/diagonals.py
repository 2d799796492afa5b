"""Zero-Shot Noise2Noise: train on the means of both diagonals of each cell of 2 x 2 pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphnet_denoise.layers import DiagonalMeans
from graphnet_denoise.supervision.base import Supervision, Views, as_tensor, halved


class ZeroShotNoise2Noise(Supervision):
    """The means of both diagonals as two noisy images of one scene (Mansour & Heckel 2023).

    With D1 y and D2 y the half-sized images of a noisy patch y (see DiagonalMeans), one is the input and the
    other the target. The result for the half must also agree with the result for the whole:

        ||f(D1 y) - D2 y||^2 + ||f(D1 y) - D1 f(y)||^2,   and the same with D1 and D2 exchanged,

    with f the network. Which half is the input is drawn for each patch. No gradient goes through f(y), as in
    neighbor2neighbor; in `graphnet denoise --zero-shot`, gradients go through it, as in the paper. The
    gradient is then, except for a factor of 2, that of the mean squared error against the target (D2 y + D1
    f(y)) / 2, so the loss must be mse.
    """

    single: ClassVar[bool] = True

    def side(self, size: int) -> int:
        return halved(size, "zero_shot_noise2noise")

    def make(self, views: Views) -> tuple[Tensor, ...]:
        noisy = views.noisy()
        exchanged = torch.from_numpy(views.own().uniform(1, 1, 1) < 0.5)
        return views.as_input(noisy), as_tensor(noisy), exchanged

    def finish(
        self, batch: tuple[Tensor, ...], predict: Callable[[Tensor], Any], progress: float
    ) -> tuple[Tensor, ...]:
        shown, noisy, exchanged = batch
        given, _ = _halves(shown, exchanged)
        _, other = _halves(noisy, exchanged)
        mine, _ = _halves(predict(shown), exchanged)
        return given, (other + mine) / 2


def _halves(images: Tensor, exchanged: Tensor) -> tuple[Tensor, Tensor]:
    """Return both half-sized images, in the other order for the samples in `exchanged`, (N, 1, 1, 1)."""
    first, second = DiagonalMeans().forward(images)
    return torch.where(exchanged, second, first), torch.where(exchanged, first, second)
