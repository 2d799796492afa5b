"""Checks that torch.compile takes forward and backward whole."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

from graphnet.graph import call_by_name
from graphnet.testing.case import Case
from graphnet.testing.check import check, slow_check
from graphnet.testing.compare import expect_close
from graphnet.testing.leaves import Named, leaves, specs_of
from graphnet.testing.outcome import CheckFailure


@check
def compiles(case: Case) -> None:
    """torch.compile(fullgraph=True, backend="eager") traces forward and backward whole."""
    _compiled(case, "eager", 1e-12)


@slow_check
def inductor(case: Case) -> None:
    """Inductor compiles forward and backward, to the same results."""
    _compiled(case, "inductor", 1e-9)


def _compiled(case: Case, backend: str, tolerance: float) -> None:
    arguments = case.arguments()
    expected = case.forward(arguments)
    forward = _trace("forward", _forward(case, specs_of(arguments)), backend)
    found = case.named(
        "forward", case.result_names, _tuple(forward(_asked(case, "forward", arguments)))
    )
    _same("forward", found, expected, tolerance)
    if not case.trainable:
        return
    grads = case.grads(expected)
    gradients = case.backward(arguments, expected, grads)
    given = {**arguments, **expected, **grads}
    specs = specs_of({**arguments, **expected})
    backward = _trace("backward", _backward(case, specs), backend)
    returned = backward(_asked(case, "backward", given))
    alone = tuple(gradients) == (case.layer.signature.variadic,)
    results = (returned,) if alone else _tuple(returned)
    _same("backward", dict(zip(gradients, results, strict=True)), gradients, tolerance)


Traced = Callable[[Named], Any]


def _forward(case: Case, specs: Any) -> Traced:
    layer = case.layer
    names = layer.signature.forward

    def forward(given: Named) -> Any:
        values = {name: specs if name == "specs" else given[name] for name in names}
        return call_by_name(layer, "forward", values)

    return forward


def _backward(case: Case, specs: Any) -> Traced:
    layer = case.layer
    constants = {"specs": specs, "wanted": case.differentiable}
    constants = {name: c for name, c in constants.items() if name in layer.signature.backward}

    def backward(given: Named) -> Any:
        return layer.backward(**given, **constants)

    return backward


def _asked(case: Case, method: str, given: Named) -> Named:
    names = getattr(case.layer.signature, method)
    return {
        name: given[name] for name in names if name in given and name not in ("specs", "wanted")
    }


def _trace(method: str, function: Traced, backend: str) -> Traced:
    compiled = compiled_anew(function, backend)

    def run(given: Named) -> Any:
        try:
            return compiled(given)
        except Exception as error:
            cause = str(error).strip().split("\n", 1)[0]
            raise CheckFailure(
                f"expected {method} to be traced whole by torch.compile(fullgraph=True), found "
                f"{type(error).__name__}: {cause}. Use tensor operations only: no print, no lookup of "
                f"ids, no NumPy."
            ) from error

    return run


def compiled_anew(function: Callable[[Any], Any], backend: str) -> Callable[..., Any]:
    """The function by torch.compile, whole, with nothing left from what was compiled before.

    torch counts how often the code of a function was compiled, and refuses at a limit. So each time it is
    given a copy of that code; what the caller has compiled stays as it is.
    """

    def call(given: Any) -> Any:
        return function(given)

    code = call.__code__.replace()
    copied: Any = FunctionType(code, call.__globals__, closure=call.__closure__)
    compiled: Callable[..., Any] = torch.compile(
        copied, fullgraph=True, backend=backend, dynamic=False
    )
    return compiled


def _tuple(returned: Any) -> tuple[Any, ...]:
    return tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)


def _same(method: str, found: Named, expected: Named, tolerance: float) -> None:
    expect_close(
        leaves(found),
        leaves(expected),
        what=f"{method} gives something else when it is compiled",
        advice="Look for a branch on something that is not an argument.",
        tolerance=tolerance,
    )
