"""Check: one property of a layer or optimizer that the kit tests."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

C = TypeVar("C")
"""The argument of a check: a Case of a layer, or a RuleCase of an optimizer."""


@dataclass(frozen=True, slots=True)
class Check(Generic[C]):
    """A named check, which is called with a case. Slow checks run only if they are requested.

    >>> from graphnet.builtin import ReLU
    >>> from graphnet.testing import Sample, cases_for
    >>> def never_negative(case):
    ...     assert (case.forward(case.arguments(seed=0))["y"] >= 0).all()
    >>> (case,) = cases_for(ReLU(), [Sample(ReLU(), [(2, 3)])])
    >>> Check("never_negative", never_negative)(case)
    """

    name: str
    function: Callable[[C], None]
    slow: bool = False

    @property
    def guards(self) -> str:
        """The property that the check tests, in one line: the first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").split("\n", 1)[0]

    def __call__(self, case: C) -> None:
        """Return if the case passes; else raise CheckFailure or NotApplicable."""
        with undisturbed():
            self.function(case)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Switch autograd off, as for a plan, and ignore torch's warnings, such as those about empty batches."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check(function: Callable[[C], None]) -> Check[C]:
    """Make a check of a function; the check has the function's name."""
    return Check(function.__name__, function)


def slow_check(function: Callable[[C], None]) -> Check[C]:
    """Make a check of a function that runs only if slow checks are requested."""
    return Check(function.__name__, function, slow=True)
