"""Losses of a training: what stands behind `loss`, as terms of a weighted sum for each output.

    loss: mse
    loss: {huber: {delta: 0.1}}
    loss:
      - charbonnier
      - {ssim: {}, weight: 0.2}

A term without a weight counts once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphnet.errors import DescriptionError, InputError, Problem
from graphnet.sdk import Loss, Registry

WEIGHT = "weight"


@dataclass(frozen=True, slots=True)
class LossTerm:
    """A loss, the name by which people know it, and its weight in the sum."""

    loss: Loss
    title: str
    weight: float = 1.0


def losses_for(
    form: object, outputs: Iterable[str], registry: Registry
) -> dict[str, tuple[LossTerm, ...]]:
    """The terms on each output, from one loss, a list of them, or {output: any of these}."""
    names = list(outputs)
    several = isinstance(form, Mapping) and any(key in names for key in form)
    forms = dict(form) if several and isinstance(form, Mapping) else {names[0]: form}
    return {output: loss_terms(one, registry) for output, one in forms.items()}


def loss_terms(form: object, registry: Registry) -> tuple[LossTerm, ...]:
    """The terms behind one loss or a list of them.

    Raises UnknownNameError, DescriptionError, or InputError for what is no loss.
    """
    if not isinstance(form, (list, tuple)):
        return (loss_term(form, registry),)
    if not form:
        raise DescriptionError([Problem("expected one loss or more in the list, found none")])
    return tuple(loss_term(one, registry) for one in form)


def loss_term(form: object, registry: Registry) -> LossTerm:
    """A term from a name, {name: {field: value}} with or without `weight`, or a Loss."""
    weight: object = 1.0
    if isinstance(form, Mapping) and WEIGHT in form:
        weight = form[WEIGHT]
        form = {name: config for name, config in form.items() if name != WEIGHT}
    if (
        isinstance(weight, bool)
        or not isinstance(weight, (int, float))
        or not math.isfinite(weight)
    ):
        raise DescriptionError([Problem(f"expected a finite number, found {weight!r}", WEIGHT)])
    made = registry.make("losses", form)
    title = registry.name_of(made)
    if not isinstance(made, Loss):
        raise InputError(f"{title!r} is not a loss. Known: {', '.join(registry.losses)}.")
    return LossTerm(made, title, float(weight))
