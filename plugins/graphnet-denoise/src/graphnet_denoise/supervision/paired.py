"""Two versions of one scene: noise is added during training, once or twice."""

from __future__ import annotations

import pydantic
from torch import Tensor

from graphnet_denoise.supervision.base import Supervision, Views, as_tensor


class Noise2Noise(Supervision):
    """Train on two noisy images of the same scene (Lehtinen et al. 2018).

    If the noise has the mean zero, the loss has the same minimum as with clean targets. Its gradients are
    noisier: so is the target. `targets` makes the target the mean of so many noisy images of the scene, as of
    a burst of exposures, which reduces the variance of the target's noise by this factor.
    """

    targets: pydantic.PositiveInt = 1

    def make(self, views: Views) -> tuple[Tensor, ...]:
        return views.as_input(views.noisy(0)), as_tensor(views.mean_of(self.targets))


class Noise2Clean(Supervision):
    """Train on a noisy image and the clean one."""

    def make(self, views: Views) -> tuple[Tensor, ...]:
        return views.as_input(views.noisy()), as_tensor(views.clean)
