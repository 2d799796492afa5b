"""Checks that torch.compile can trace all of forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

from graphnet.graph import invoke
from graphnet.testing.case import Case
from graphnet.testing.check import check, slow_check
from graphnet.testing.compare import expect_close
from graphnet.testing.leaves import Named, leaves, specs_of
from graphnet.testing.outcome import CheckFailure


@check
def compiles(case: Case) -> None:
    """torch.compile(fullgraph=True, backend="eager") can trace forward and backward."""
    _compiled(case, "eager", 1e-12)


@slow_check
def inductor(case: Case) -> None:
    """Forward and backward give the same results when Inductor compiles them."""
    _compiled(case, "inductor", 1e-9)


def _compiled(case: Case, backend: str, tolerance: float) -> None:
    arguments = case.arguments()
    expected = case.forward(arguments)
    forward = _trace("forward", _invoked(case, "forward", {"specs": specs_of(arguments)}), backend)
    found = case.named("forward", case.result_names, forward(_asked(case, "forward", arguments)))
    _same("forward", found, expected, tolerance)
    if not case.trainable:
        return
    grads = case.grads(expected)
    gradients = case.backward(arguments, expected, grads)
    given = {**arguments, **expected, **grads}
    constants = {"specs": specs_of({**arguments, **expected}), "wanted": case.differentiable}
    backward = _trace("backward", _invoked(case, "backward", constants), backend)
    results = backward(_asked(case, "backward", given))
    _same("backward", dict(zip(gradients, results, strict=True)), gradients, tolerance)


Traced = Callable[[Named], tuple[Any, ...]]


def _invoked(case: Case, method: str, constants: Named) -> Traced:
    """Return the method as a function of its tensors; `constants` are its other arguments."""

    def run(given: Named) -> tuple[Any, ...]:
        return invoke(case.layer, method, {**given, **constants})

    return run


def _asked(case: Case, method: str, given: Named) -> Named:
    names = case.layer.signature.of(method)
    return {
        name: given[name] for name in names if name in given and name not in ("specs", "wanted")
    }


def _trace(method: str, function: Traced, backend: str) -> Traced:
    compiled = compiled_anew(function, backend)

    def run(given: Named) -> tuple[Any, ...]:
        try:
            results: tuple[Any, ...] = compiled(given)
            return results
        except Exception as error:
            cause = str(error).strip().split("\n", 1)[0]
            raise CheckFailure(
                f"expected {method} to be traced whole by torch.compile(fullgraph=True), found "
                f"{type(error).__name__}: {cause}. Use tensor operations only: no print, no lookup of "
                f"ids, no NumPy."
            ) from error

    return run


def compiled_anew(function: Callable[[Any], Any], backend: str) -> Callable[..., Any]:
    """Compile a function with torch.compile(fullgraph=True), independently of earlier compilations.

    torch counts how often the code of a function is compiled, and refuses beyond a limit. So it gets a new
    copy of the code each time.
    """

    def call(given: Any) -> Any:
        return function(given)

    code = call.__code__.replace()
    copied: Any = FunctionType(code, call.__globals__, closure=call.__closure__)
    compiled: Callable[..., Any] = torch.compile(
        copied, fullgraph=True, backend=backend, dynamic=False
    )
    return compiled


def _same(method: str, found: Named, expected: Named, tolerance: float) -> None:
    expect_close(
        leaves(found),
        leaves(expected),
        what=f"{method} gives another result when it is compiled",
        advice="Look for a branch on something that is not an argument.",
        tolerance=tolerance,
    )
