"""Checks that a layer is a pure function: results depend on arguments alone, and nothing is written."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from graphnet.graph import Operation, is_mask, operations_of
from graphnet.testing.case import Case
from graphnet.testing.check import check
from graphnet.testing.compare import close, expect_same_bits, same_bits
from graphnet.testing.leaves import Named, leaves
from graphnet.testing.outcome import CheckFailure, NotApplicable


@check
def runs(case: Case) -> None:
    """Forward, backward and inference run on the sample, and return the right number of tensors."""
    _ = case.ports
    case.run_all()


def _operations(case: Case) -> list[Operation]:
    arguments = case.arguments()
    results: Named = {}
    operations = operations_of(lambda: results.update(case.forward(arguments)))
    if case.trainable:
        grads = case.grads(results)
        operations += operations_of(lambda: case.backward(arguments, results, grads))
    return operations


@check
def host_reads(case: Case) -> None:
    """No number is read back to the host (.item(), float(), if): the host would wait for the device."""
    for operation in _operations(case):
        if "data_dependent_output" in operation.tags:
            raise CheckFailure(
                f"expected no number to be read back to the host, found {operation}. Compute with "
                f"tensors: torch.where in place of if, a 0-dim tensor in place of .item()."
            )


@check
def data_dependent_shapes(case: Case) -> None:
    """No shape depends on data, since a plan is made from shapes alone."""
    for operation in _operations(case):
        if "dynamic_output_shape" not in operation.tags:
            continue
        if "index" in str(operation) and not any(map(is_mask, operation.arguments[1])):
            continue  # indexing by integers: the shape is that of the index
        raise CheckFailure(
            f"expected shapes that follow from shapes, found {operation}, whose result's shape depends "
            f"on data. Multiply by a mask, or use torch.where."
        )


@check
def global_random(case: Case) -> None:
    """Random numbers are drawn from `key`, not from the global generators."""
    arguments = case.arguments()
    with undrawn("forward"):
        results = case.forward(arguments)
    if case.trainable:
        grads = case.grads(results)
        with undrawn("backward"):
            case.backward(arguments, results, grads)


@contextmanager
def undrawn(method: str) -> Iterator[None]:
    """Raise CheckFailure if the code within draws from a global random generator, or seeds one."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(
            20150325
        )  # a seed that nobody would set; only on the CPU
        before = _random_states()
        yield
        after = _random_states()
    moved = [name for name in before if before[name] != after[name]]
    if moved:
        raise CheckFailure(
            f"expected {method} to leave global random state alone, found that it drew from "
            f"{moved[0]}'s. Name `key` and draw with graphnet.random.uniform(key, shape)."
        )


def _random_states() -> dict[str, str | bytes]:
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "Python": repr(random.getstate()),
        "NumPy": repr(np.random.get_state(legacy=False)),
    }


@check
def forward_pure(case: Case) -> None:
    """Forward and inference do not write to their inputs, parameters or key."""
    arguments = case.arguments()
    watched = {k: v for k, v in arguments.items() if k not in case.ports.states}
    _untouched("forward", watched, lambda: case.forward(arguments))
    if case.layer.signature.inference:
        _untouched("inference", watched, lambda: case.inference(arguments))


@check
def backward_pure(case: Case) -> None:
    """Backward does not write to gradients, saved values or other arguments."""
    case.require_backward()
    arguments = case.arguments()
    results = case.forward(arguments)
    grads = case.grads(results)
    watched = {k: v for k, v in {**arguments, **results}.items() if k not in case.ports.states}
    _untouched("backward", {**watched, **grads}, lambda: case.backward(arguments, results, grads))


@check
def states_untouched(case: Case) -> None:
    """No method writes to a state; forward returns the new values of the states in `updates`."""
    if not case.ports.states:
        raise NotApplicable("the layer has no state")
    arguments = case.arguments()
    states = {name: arguments[name] for name in case.ports.states}
    advice = "Return the new value last, and name the state in `updates`"
    _untouched("forward", states, lambda: case.forward(arguments), advice)
    if case.trainable:
        results = case.forward(arguments)
        grads = case.grads(results)
        _untouched("backward", states, lambda: case.backward(arguments, results, grads), advice)
    if case.layer.signature.inference:
        _untouched("inference", states, lambda: case.inference(arguments), advice)


def _untouched(
    method: str,
    watched: Named,
    call: Callable[[], object],
    advice: str = "Compute a new tensor: x.add(1), not x.add_(1)",
) -> None:
    tensors = leaves(watched)
    before = {leaf: (tensor.clone(), tensor._version) for leaf, tensor in tensors.items()}
    call()
    for leaf, tensor in tensors.items():
        value, version = before[leaf]
        if tensor._version != version or not same_bits(tensor, value):
            raise CheckFailure(
                f"expected {method} to leave {leaf!r} alone, found that it wrote to it. {advice}."
            )


@check
def forward_repeats(case: Case) -> None:
    """Forward gives the same bits for the same arguments."""
    first, second = (leaves(case.forward(case.arguments())) for _ in range(2))
    expect_same_bits(
        second,
        first,
        what="forward gave another result the second time",
        advice="Let results depend on the arguments alone.",
    )


@check
def backward_repeats(case: Case) -> None:
    """Backward gives the same bits for the same arguments; it does not accumulate gradients."""
    case.require_backward()
    one = case.run()
    first = {leaf: tensor.clone() for leaf, tensor in leaves(one.gradients).items()}
    second = leaves(case.backward(one.arguments, one.results, one.grads))
    grown = any(not close(second[leaf], tensor, 1e-9) for leaf, tensor in first.items())
    expect_same_bits(
        second,
        first,
        what="backward gave another result the second time",
        advice="Return each gradient; graphnet adds them up."
        if grown
        else "Keep the order of sums.",
    )


@check
def interleaved_calls(case: Case) -> None:
    """Two calls do not influence each other: a later forward does not change saved values."""
    case.require_backward()
    alone = {leaf: tensor.clone() for leaf, tensor in leaves(case.run().gradients).items()}
    arguments = case.arguments()
    results = case.forward(arguments)
    grads = case.grads(results)
    kept = {leaf: tensor.clone() for leaf, tensor in leaves(results).items()}
    case.run(seed=1)
    expect_same_bits(
        leaves(results),
        kept,
        what="the result of an earlier forward changed when forward ran again",
        advice="Return a new tensor from each call.",
    )
    expect_same_bits(
        leaves(case.backward(arguments, results, grads)),
        alone,
        what="the gradient changed because another forward ran in between",
        advice="Let backward take what it needs by name; keep nothing elsewhere.",
    )
