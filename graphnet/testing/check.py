"""Check: one question that the kit asks of a layer or rule."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

C = TypeVar("C")
"""What a check is called with: a Case of a layer, or a RuleCase of an optimizer."""


@dataclass(frozen=True, slots=True)
class Check(Generic[C]):
    """A named check; call it with a case. `slow` ones run only when they are requested."""

    name: str
    function: Callable[[C], None]
    slow: bool = False

    @property
    def guards(self) -> str:
        """What the check guards, in one line."""
        return (inspect.getdoc(self.function) or "").split("\n", 1)[0]

    def __call__(self, case: C) -> None:
        """Raise CheckFailure or NotApplicable, or return."""
        with undisturbed():
            self.function(case)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without gradients, as a plan runs, and without torch's warnings about empty batches and such."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check(function: Callable[[C], None]) -> Check[C]:
    """A function as the check of its name."""
    return Check(function.__name__, function)


def slow_check(function: Callable[[C], None]) -> Check[C]:
    """A function as the check of its name, run only when slow ones are requested."""
    return Check(function.__name__, function, slow=True)
