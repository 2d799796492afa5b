"""Check: one question that the kit asks of a layer or rule, and the two ways not to pass it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from graphnet.testing.case import Case
    from graphnet.testing.rule_case import RuleCase


@dataclass(frozen=True, slots=True)
class Check:
    """A named check; call it with a case. `slow` ones run only when they are asked for."""

    name: str
    function: Callable[[Any], None]
    slow: bool = False

    @property
    def guards(self) -> str:
        """What the check guards, in one line."""
        return (inspect.getdoc(self.function) or "").split("\n", 1)[0]

    def __call__(self, case: Case | RuleCase) -> None:
        """Raise CheckFailure or NotApplicable, or return."""
        with undisturbed():
            self.function(case)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without gradients, as a plan runs, and without torch's warnings about empty batches and such."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check(function: Callable[[Any], None]) -> Check:
    """A function as the check of its name."""
    return Check(function.__name__, function)


def slow_check(function: Callable[[Any], None]) -> Check:
    """A function as the check of its name, run only when slow ones are asked for."""
    return Check(function.__name__, function, slow=True)
