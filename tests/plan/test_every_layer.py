"""Random models of all installed layers compute the same by every executor and with every set of passes.

The reference runs the layers' own code in float64, without the passes that can be switched off. `make fuzz`
sets GRAPHNET_FUZZ_GRAPHS and GRAPHNET_FUZZ_COMPILED for many more models than the suite takes. A model that
fails is made as small as it can be, and shown as a model file.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from graphnet.sdk import Registry, default_registry
from graphnet.testing.case import Case
from tests.support.random_graphs import (
    OPTIMIZERS,
    REFUSED,
    Trial,
    cases_of,
    failure,
    random_options,
    random_trial,
    shrink,
)

GRAPHS = int(os.environ.get("GRAPHNET_FUZZ_GRAPHS", "100"))
COMPILED = int(os.environ.get("GRAPHNET_FUZZ_COMPILED", "1"))
CHUNK = 50  # models in one test
TOLERANCE = {"float64": 1e-7, "float32": 1e-3}
ROUNDING = {"float64": 1e-14, "float32": 1e-7}

Cases = Mapping[str, Sequence[Case]]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return default_registry()


@pytest.fixture(scope="module")
def cases(registry: Registry) -> Cases:
    return cases_of(registry)


def trial_of(cases: Cases, seed: int, *, executor: str, dtype: str) -> Trial:
    """A random model with random settings and options."""
    draw = random.Random(seed)
    trial = random_trial(cases, draw.randint(2, 9), draw)
    if dtype == "float32":  # the others divide by the size of a gradient, however small
        trial = replace(trial, settings={**trial.settings, "optimizer": OPTIMIZERS[1]})
    options = {"executor": executor, "dtype": dtype, **random_options(draw)}
    return replace(trial, options=options)


def expect_the_same(trial: Trial, registry: Registry, seed: int) -> None:
    """Fail with the smallest trial that fails too, if this one does."""
    tolerance, rounding = (one[trial.options["dtype"]] for one in (TOLERANCE, ROUNDING))

    def wrong(one: Trial) -> str:
        return failure(one, registry, tolerance=tolerance, rounding=rounding)

    if found := wrong(trial):
        refused = found.startswith(REFUSED)  # an invalid model is another fault than a wrong number
        small = shrink(
            trial, lambda one: bool(w := wrong(one)) and w.startswith(REFUSED) == refused
        )
        pytest.fail(f"seed {seed}: {wrong(small)}\n{small}")


def test_there_are_cases_of_every_layer(cases: Cases, registry: Registry) -> None:
    assert set(cases) == set(registry.layers)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("start", range(0, GRAPHS, CHUNK))
def test_random_models_run_eagerly_as_the_reference_does(
    cases: Cases, registry: Registry, start: int, dtype: str
) -> None:
    for seed in range(start, start + CHUNK):
        trial = trial_of(cases, seed, executor="eager", dtype=dtype)
        expect_the_same(trial, registry, seed)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("seed", range(COMPILED))
def test_random_models_run_compiled_as_the_reference_does(
    cases: Cases, registry: Registry, seed: int
) -> None:
    dtype = random.Random(seed).choice([*TOLERANCE])
    trial = trial_of(cases, seed, executor="inductor", dtype=dtype)
    expect_the_same(trial, registry, seed)


def test_a_failing_model_becomes_as_small_as_it_can(cases: Cases) -> None:
    def has_relu(trial: Trial) -> bool:
        return any("relu" in node for node in trial.nodes)

    trial = next(
        trial
        for trial in (
            trial_of(cases, seed, executor="eager", dtype="float64") for seed in range(999)
        )
        if has_relu(trial) and len(trial.nodes) > 5
    )
    small = shrink(trial, has_relu)
    assert len(small.losses) == 1
    assert "relu" in small.nodes[0]
    assert not {"ema", "accumulate", "memory", "without"} & {*small.settings, *small.options}
