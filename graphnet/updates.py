"""Updates: how a training changes its parameters: the optimizer and what goes with it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from graphnet.definition import Definition
from graphnet.optim import Optimizer

Decay = Annotated[float, Field(gt=0.0, lt=1.0)]
Norm = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Updates(Definition):
    """The optimizer, and what is done with gradients before it and with weights after it.

    optimizer: the rule of each parameter; None makes a plan without updates.
    clip_grad_norm: the most that the norm of all gradients together may be (see passes/clip.py).
    ema: decay of a moving average of the weights, for prediction (see passes/average.py).
    """

    optimizer: Optimizer | None = None
    clip_grad_norm: Norm | None = None
    ema: Decay | None = None
