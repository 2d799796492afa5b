"""Losses of a training: the field `loss` as the terms of a weighted sum for each output.

    loss: mse
    loss: {huber: {delta: 0.1}}
    loss:
      - charbonnier
      - {ssim: {}, weight: 0.2}

A term without a weight has the weight 1. A model of several outputs takes {output: any of these}, and None
for an output that has no loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphnet.errors import DescriptionError, InputError, Problem, nearest
from graphnet.sdk import Loss, Registry

WEIGHT = "weight"


@dataclass(frozen=True, slots=True)
class LossTerm:
    """A loss, its name in messages and logs, and its weight in the sum."""

    loss: Loss
    title: str
    weight: float = 1.0


def losses_for(
    form: object, outputs: Iterable[str], registry: Registry
) -> dict[str, tuple[LossTerm, ...]]:
    """The terms on each output, from one loss or a list of them, or {output: any of these, or None}.

    The terms, and so the targets of a step, are in the order of the outputs.

    Raises InputError unless each output has a loss or an explicit None, and at least one a loss.
    """
    names = list(outputs)
    if not isinstance(form, Mapping) or not any(key in names for key in form):
        if len(names) > 1:
            raise InputError(
                f"loss: the model has {len(names)} outputs ({', '.join(names)}), but {form!r} does not say "
                f"which one it is for. {_for_each(names, form)}"
            )
        form = {names[0]: form}
    for name in form:
        if name not in names:
            raise InputError(f"loss: the model has no output {name!r}. {nearest(str(name), names)}")
    missing = [name for name in names if name not in form]
    if missing:
        raise InputError(
            f"loss: nothing is given for {', '.join(missing)}, of the outputs {', '.join(names)}. "
            f"{_for_each(names, form)}"
        )
    found = {  # in the order of the outputs, which is that of the targets
        name: loss_terms(form[name], registry, "loss" if len(names) == 1 else f"loss.{name}")
        for name in names
        if form[name] is not None
    }
    if not found:
        raise InputError(
            f"loss: None for {', '.join(names)}; give at least one output a loss to train on"
        )
    return found


def term_names(losses: Mapping[str, Sequence[LossTerm]]) -> tuple[str, ...]:
    """A name for each term, in order: its loss; after its output if several outputs have losses.

    If two terms have the same name, the second one gets a number.
    """
    found: list[str] = []
    for output, terms in losses.items():
        for term in terms:
            name = term.title if len(losses) == 1 else f"{output}.{term.title}"
            count = sum(one == name or one.startswith(f"{name}#") for one in found)
            found.append(f"{name}#{count + 1}" if count else name)
    return tuple(found)


def _for_each(names: Sequence[str], form: object) -> str:
    """Advice for an error: the form that has a loss for each output."""
    given = form if isinstance(form, Mapping) and any(name in form for name in names) else {}
    example = given or {names[0]: form}
    whole = ", ".join(f"{name!r}: {example.get(name)!r}" for name in names)
    return f"Give one for each output, None for one that has no loss: loss={{{whole}}}."


def loss_terms(form: object, registry: Registry, place: str = "") -> tuple[LossTerm, ...]:
    """The terms of one loss or a list of losses.

    Raises UnknownNameError, or DescriptionError, whose paths begin with `place`.
    """
    if not isinstance(form, (list, tuple)):
        return (_placed_term(form, registry, place),)
    if not form:
        raise DescriptionError(
            [Problem("expected one loss or more in the list, found none", place)]
        )
    return tuple(_placed_term(one, registry, f"{place}[{i}]") for i, one in enumerate(form))


def _placed_term(form: object, registry: Registry, place: str) -> LossTerm:
    try:
        return _term(form, registry)
    except DescriptionError as error:
        raise error.under(place) from None


def _term(form: object, registry: Registry) -> LossTerm:
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
    return LossTerm(made, title, float(weight))
