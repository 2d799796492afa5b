"""Composite: the base of modules that consist of other modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from graphnet.errors import InputError
from graphnet.nn.module import Module
from graphnet.nn.tree import Tree


class Composite(Module):
    """Base of modules that consist of other modules."""

    def __init__(self, modules: Mapping[str, Tree]) -> None:
        for name, module in modules.items():
            if not isinstance(name, str) or not name:
                raise InputError(f"{self.title}: expected names of modules, got {name!r}")
            if not isinstance(module, Tree):
                raise InputError(
                    f"{self.title}: {name!r}: expected a module of graphnet.nn, got a "
                    f"{type(module).__name__}. nn.make(layer) makes a module of a layer."
                )
        self._modules = dict(modules)
        self._pairs = {}
        self._states = {}
        self._context = None

    @property
    def title(self) -> str:
        """The name of the class."""
        return type(self).__name__

    def extra_repr(self) -> str:
        """Return nothing: the printed form consists of the modules."""
        return ""

    def _check_made(self) -> None:
        """A composite has no parameters of its own."""

    def _move(
        self, device: torch.device | None, dtype: torch.dtype | None, *, non_blocking: bool
    ) -> None:
        for module in self.children():
            module._move(device, dtype, non_blocking=non_blocking)
        self._context = None

    @torch.no_grad()
    def update_parameters(self, lr: float) -> None:
        """Do one step of gradient descent, p -= lr * gradient, and set the gradients to zero."""
        for parameter, gradient in self.param():
            parameter.sub_(gradient, alpha=lr)
            gradient.zero_()

    def __getattr__(self, name: str) -> Any:
        """Return a module inside this one by its name."""
        return Tree.__getattr__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a module inside this one cannot be replaced."""
        if name in self.__dict__.get("_modules", {}):
            raise InputError(
                f"{self.title}: {name!r} cannot be replaced. Make another {self.title}."
            )
        object.__setattr__(self, name, value)
