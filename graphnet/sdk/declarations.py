"""Declarations: what a layer's class says about itself, checked when the class is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

import torch

from graphnet.errors import ContractError, nearest


def check_declarations(cls: type[Any], precisions: Any) -> None:
    """Check that each declaration of a layer has the form that the SDK reads.

    Args:
        cls: the layer's class.
        precisions: the Literal of the values that `precision` may have.

    Raises:
        ContractError: a declaration has another form; the message shows an example.
    """
    known = get_args(precisions)
    forms: dict[str, tuple[Callable[[Any], bool], str]] = {
        **dict.fromkeys(_NAMES, (_are_names, 'a tuple of names, such as ("y",)')),
        "pointwise": (lambda value: isinstance(value, bool), "True or False"),
        "precision": (lambda value: value in known, " or ".join(map(repr, known))),
        "overwrites": (_maps_to(str), 'a mapping from result to argument, such as {"y": "x"}'),
        "memory_formats": (
            _maps_to(torch.memory_format),
            'a mapping from input or output to its format, such as {"x": torch.channels_last}',
        ),
    }
    for name, (fits, expected) in forms.items():
        value = getattr(cls, name)
        if not isinstance(value, property) and not fits(value):
            hint = ""
            if isinstance(value, str) and name == "precision":
                hint = f" {nearest(value, known)}"
            elif isinstance(value, str) and name in _NAMES:
                hint = f" Write ({value!r},)."
            raise ContractError(
                f"{cls.__name__}.{name}: expected {expected}, found {value!r}.{hint}"
            )


_NAMES = ("outputs", "saves", "updates", "nondifferentiable", "kept")


def _are_names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) and name for name in value)


def _maps_to(kind: type) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        return isinstance(value, Mapping) and all(
            isinstance(key, str) and isinstance(item, kind) for key, item in value.items()
        )

    return fits
