"""Choices: the options of a compilation and the settings of its updates, from a call's arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphnet.description import UpdateSettings, split_updates
from graphnet.errors import DescriptionError, InputError, nearest
from graphnet.plan import CompileOptions, split_options
from graphnet.sdk import KINDS, Optimizer, Registry
from graphnet.system import require


def changed_options(
    options: CompileOptions, overrides: Mapping[str, Any], others: Sequence[str] = ()
) -> CompileOptions:
    """Replace fields of the options. The error for an unknown name also suggests the names in `others`."""
    require(options, CompileOptions, "options", "an instance of gn.CompileOptions")
    fields, unknown = split_options(overrides)
    for name in unknown:
        known = (*CompileOptions.field_names(), *others)
        raise InputError(f"unknown option {name!r}. {nearest(name, known)}")
    return replace(options, **fields) if fields else options


def training_choices(
    optimizer: Optimizer | None, options: CompileOptions, overrides: Mapping[str, Any]
) -> tuple[UpdateSettings, CompileOptions]:
    """Split `overrides` into the settings of updates and the fields of the options that they replace."""
    settings, rest = split_updates(overrides)
    updates = UpdateSettings(optimizer=optimizer, **settings)
    return updates, changed_options(options, rest, list(updates.record()))


def check_training(loss: object, optimizer: object) -> None:
    """Raise InputError unless a training has a loss and an optimizer."""
    for name, given, example in (
        ("loss", loss, 'loss="mse"'),
        ("optimizer", optimizer, 'optimizer={"adam": {"lr": 0.001}}'),
    ):
        if given is None:
            raise InputError(
                f"compile: expected {name}=..., such as {example}, found none. To predict without a "
                f"training, call model.predict; for the plan alone, model.plan."
            )


def definition_of(kind: str, form: object, registry: Registry) -> Any:
    """The definition that `registry.make` makes; an error names the argument and the field.

    Raises:
        UnknownNameError: nothing of this kind has the name.
        DescriptionError: the form is none of those that `registry.make` takes, or fields are wrong.
    """
    try:
        return registry.make(kind, form)
    except DescriptionError as error:
        raise error.under(KINDS[kind].singular) from None
