"""Two versions of one scene: noise is added while training, once or twice."""

from __future__ import annotations

from torch import Tensor

from graphnet_denoise.supervision.base import Supervision, Views, as_tensor


class Noise2Noise(Supervision):
    """From one noisy image to another of the same scene (Lehtinen et al. 2018).

    Where noise is zero in the mean, the loss's minimum is that of training on clean targets.
    """

    def make(self, views: Views) -> tuple[Tensor, ...]:
        return views.as_input(views.noisy(0)), as_tensor(views.noisy(1))


class Noise2Clean(Supervision):
    """From a noisy image to the clean one."""

    def make(self, views: Views) -> tuple[Tensor, ...]:
        return views.as_input(views.noisy()), as_tensor(views.clean)
