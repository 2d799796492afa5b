"""Optimizers and learning-rate schedules: rules over one parameter node at a time.

An Optimizer states, for one parameter, which tensors it keeps and how a step changes them. The update
pass makes one call of it for each parameter node, in the order of the graph's parameters. It is the
one place where graphnet writes in place.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from graphnet.errors import ContractError
from graphnet.sdk.definition import Definition
from graphnet.sdk.fields import Rate
from graphnet.sdk.spec import Spec, StateSpec


class Optimizer(Definition):
    """How one parameter is updated; subclasses define `update` and, if they keep tensors, `states`.

    `update` asks for its arguments by name: `parameter`, `grad` (the same shape and dtype), `lr` (0-dim,
    the parameter's dtype), `step` (0-dim int64, 0 in the first step) and its own states (None for an
    absent one). It writes the parameter and the states in place and returns nothing.
    """

    arguments: ClassVar[tuple[str, ...]]
    lr: Rate

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.update is not Optimizer.update:
            cls.arguments = tuple(inspect.signature(cls.update).parameters)[1:]
            if cls.arguments[:2] != ("parameter", "grad"):
                raise ContractError(
                    f"{cls.__name__}.update must take parameter and grad first, takes "
                    f"{', '.join(cls.arguments) or 'nothing'}"
                )

    def rule_for(self, parameter: Spec) -> Optimizer:
        """The optimizer of a parameter of this spec: this one, or another, with an `lr` of its own."""
        return self

    def states(self, parameter: Spec) -> Mapping[str, StateSpec | None]:
        """The tensors kept for one parameter, by update's names; None for one that is absent."""
        return {}

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Write the parameter and its states."""
        raise ContractError(f"{type(self).__name__} defines no update(parameter, grad, ...)")
