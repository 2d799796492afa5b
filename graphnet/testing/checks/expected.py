"""Checks that forward, parameters and states have the values that the author's sample states."""

from __future__ import annotations

import torch
from torch import Tensor

from graphnet.graph import as_tuple
from graphnet.testing.case import Case
from graphnet.testing.check import check
from graphnet.testing.compare import expect_close
from graphnet.testing.leaves import Named, cloned
from graphnet.testing.outcome import CheckFailure, NotApplicable

_TOLERANCE = 1e-9


@check
def expected_values(case: Case) -> None:
    """Forward gives the values that the sample's `expected` computes, to 9 digits."""
    if case.expected is None:
        raise NotApplicable("no sample states expected values")
    for seed in range(2):
        agree_with_expected(case, case.arguments(seed=seed))


def agree_with_expected(case: Case, arguments: Named) -> None:
    """Raise CheckFailure if forward gives another value than the sample's `expected`, if it states one."""
    if case.expected is None:
        return
    layer = case.layer
    names = layer.outputs + tuple(f"{state}_next" for state in layer.updates)
    given = cloned(arguments)
    ordered: list[Tensor | None] = []
    for name in layer.signature.tensors:
        value = given[name]
        ordered += value if isinstance(value, tuple) else [value]
    stated = as_tuple(case.expected(*ordered))
    if len(stated) not in (len(layer.outputs), len(names)):
        raise CheckFailure(
            f"expected the sample's `expected` to return {len(layer.outputs)} outputs "
            f"({', '.join(layer.outputs)}), or these and the new states, found {len(stated)} tensors"
        )
    found = case.forward(arguments)
    for name, value in zip(names, stated, strict=False):
        assert isinstance(value, Tensor)
        expect_close(
            {name: found[name]},
            {name: value},
            what="forward gives another value than the sample's `expected`",
            advice="One of the two is wrong: work one element out by hand.",
            tolerance=_TOLERANCE,
        )


@check
def starting_values(case: Case) -> None:
    """Parameters and states start from the numbers that the sample's `starts` states."""
    if not case.starts:
        raise NotApplicable("no sample states from which numbers parameters and states start")
    slots = {**case.ports.parameters, **case.ports.states}
    if unknown := [name for name in case.starts if name not in slots]:
        raise CheckFailure(
            f"expected names of parameters and states in the sample's `starts`, found {unknown[0]!r}"
        )
    for name, number in case.starts.items():
        spec = slots[name]
        if spec is None:
            continue
        empty = torch.empty(spec.shape, dtype=torch.float64)
        start = spec.initializer(empty, torch.Generator().manual_seed(0))
        expect_close(
            {name: start},
            {name: torch.full_like(start, number)},
            what="it starts from another number than the sample's `starts` states",
            advice="Look at the initializer in `parameters` or `states`.",
            tolerance=_TOLERANCE,
        )
