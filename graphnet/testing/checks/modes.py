"""Checks of inference, and of the initial values of parameters and states."""

from __future__ import annotations

import torch
from torch import Tensor

from graphnet.sdk import ParameterSpec, Spec, StateSpec
from graphnet.testing.case import Case
from graphnet.testing.check import check
from graphnet.testing.compare import expect_close, expect_same_bits, same_bits
from graphnet.testing.leaves import leaves
from graphnet.testing.outcome import CheckFailure, NotApplicable


@check
def initializers(case: Case) -> None:
    """Initial parameters and states are finite, and drawn from the given generator alone."""
    slots = {**case.ports.parameters, **case.ports.states}
    present = {name: spec for name, spec in slots.items() if spec is not None}
    if not present:
        raise NotApplicable("the layer has no parameter and no state")
    for name, spec in present.items():
        before = torch.get_rng_state()
        first, second = _start(spec, 1.0), _start(spec, 2.0)
        if not torch.equal(before, torch.get_rng_state()) or not same_bits(first, second):
            raise CheckFailure(
                f"expected {name!r} to start from numbers of the given generator alone, found others. "
                f"Write tensor.normal_(generator=generator), and fill all of it."
            )
        if tuple(first.shape) != tuple(spec.shape) or not bool(first.isfinite().all()):
            raise CheckFailure(
                f"expected {name!r} to start finite, in the shape {tuple(spec.shape)}, found "
                f"{tuple(first.shape)}, finite: {bool(first.isfinite().all())}"
            )
        if first.numel() and _draws(spec) and same_bits(first, _start(spec, 1.0, seed=1)):
            raise CheckFailure(
                f"expected {name!r} to start from the random numbers that it draws, found the same numbers "
                f"for two seeds. Look for what overwrites them."
            )


def _start(spec: ParameterSpec | StateSpec, garbage: float, *, seed: int = 0) -> Tensor:
    """Write the initial value over other numbers, and return it."""
    return _initialize(spec, garbage, torch.Generator().manual_seed(seed))


def _draws(spec: ParameterSpec | StateSpec) -> bool:
    """Whether the initial value takes numbers from the generator."""
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    _initialize(spec, 1.0, generator)
    return not torch.equal(before, generator.get_state())


def _initialize(
    spec: ParameterSpec | StateSpec, garbage: float, generator: torch.Generator
) -> Tensor:
    dtype = spec.dtype if isinstance(spec, StateSpec) and spec.dtype else torch.float64
    return spec.initializer(torch.full(spec.shape, garbage).to(dtype), generator)


@check
def inference(case: Case) -> None:
    """Inference gives forward's outputs; with states or a key it may differ, but must be repeatable."""
    layer = case.layer
    if not layer.signature.inference:
        raise NotApplicable("the layer defines no inference: forward runs")
    arguments = case.arguments()
    found = leaves(case.inference(arguments), layer.outputs)
    expect_same_bits(
        leaves(case.inference(arguments), layer.outputs),
        found,
        what="inference gave another result the second time",
        advice="Let results depend on the arguments alone.",
    )
    expected = leaves(case.forward(arguments), layer.outputs)
    for name, output in expected.items():
        if Spec.of(found[name]) != Spec.of(output):
            raise CheckFailure(
                f"expected inference to return {name!r} as forward does, {Spec.of(output)}, found "
                f"{Spec.of(found[name])}."
            )
    if layer.updates or "key" in layer.signature.forward:
        return  # here inference may differ from training on purpose, so the expected values are unknown
    expect_close(
        found,
        expected,
        what="the inference output is not that of forward",
        advice="Without a state or a key, both compute the same; if in doubt, define no inference.",
        tolerance=1e-10,
    )
