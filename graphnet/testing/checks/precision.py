"""Checks of other dtypes and devices against float64 on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from graphnet.sdk import Kernel
from graphnet.testing.case import Case, Pass
from graphnet.testing.check import check
from graphnet.testing.checks.observed import expect_dtype
from graphnet.testing.compare import difference, expect_close
from graphnet.testing.expression import CPU
from graphnet.testing.leaves import Named, converted, floating, leaves, replaced
from graphnet.testing.outcome import CheckFailure, NotApplicable


@check
def float32(case: Case) -> None:
    """float32 inputs give the results of float64 to 4 digits, in float32."""
    _as_in_float64(case, torch.float32, 1e-4)


@check
def bfloat16(case: Case) -> None:
    """bfloat16 inputs give the results of float64 to a few percent, in bfloat16."""
    _in_half(case, torch.bfloat16, 4e-2)


@check
def float16(case: Case) -> None:
    """float16 inputs give the results of float64 to one percent, in float16."""
    _in_half(case, torch.float16, 1e-2)


def _in_half(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    try:
        if not any(layer.precision != "float32" for layer in case.layers):
            raise NotApplicable("the layer runs in float32 at least, as its precision says")
        _as_in_float64(case, dtype, tolerance)
    except (NotImplementedError, RuntimeError) as error:
        if "not implemented for" not in str(error):
            raise
        raise NotApplicable(f"torch has no such operator: {error}") from error


def _as_in_float64(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    _require_match(case, dtype, CPU)
    arguments = case.arguments(dtype=dtype)
    if not floating(arguments):
        raise NotApplicable("the layer takes no floating tensor")
    wide = converted(arguments, torch.float64)
    results, exact = case.forward(arguments), case.forward(wide)
    for name in case.layer.outputs:
        expect_dtype(f"the output {name!r}", results[name], arguments)
    _near(leaves(results, case.layer.outputs), leaves(exact, case.layer.outputs), tolerance)
    if not case.trainable:
        return
    grads = case.grads(results)
    wide_grads = converted(grads, torch.float64)
    found = Pass(arguments, results, grads, case.backward(arguments, results, grads))
    expected = case.backward(wide, exact, wide_grads)
    names = sorted(case.differentiable)
    for leaf, gradient in leaves(found.gradients, names).items():
        if leaf not in case.ports.parameters:
            expect_dtype(f"the gradient of {leaf!r}", gradient, arguments)
    _near(leaves(found.gradients, names), leaves(expected, names), 2.0 * tolerance)


def _require_match(case: Case, dtype: torch.dtype, device: torch.device) -> None:
    """Raise NotApplicable if the case's kernel does not match inputs of this dtype on this device."""
    if case.expression is None or not isinstance(case.layer, Kernel):
        return
    inputs = case.input_specs(dtype)
    if case.expression.match(type(case.layer), inputs, device=device) is None:
        raise NotApplicable(f"the kernel does not match inputs in {dtype} on {device}")


def _near(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Compare Euclidean norms, since rounding may move single elements across a kink."""
    for leaf, exact in expected.items():
        rounded = found[leaf].double()
        if rounded.shape != exact.shape:
            raise CheckFailure(f"{leaf!r}{difference(rounded, exact)}")
        if not exact.is_floating_point() or not bool(exact.isfinite().all()):
            continue
        error = float((rounded - exact).norm())
        if not error <= tolerance * float(exact.norm()) + 1e-6:
            raise CheckFailure(
                f"{leaf!r} is not that of float64 within {tolerance:g} of its norm"
                f"{difference(rounded, exact)}. Look for a difference of large numbers, an exp that "
                f"overflows, or a small constant that this dtype cannot hold."
            )


@check
def kept_rounded(case: Case) -> None:
    """Backward accepts the values that `kept` names in bfloat16, with the same result as in float32."""
    names = [name for name in case.layer.kept if name in case.layer.signature.backward]
    if not names:
        raise NotApplicable("the layer takes nothing in another dtype than it was made in")
    arguments = case.arguments(dtype=torch.float32)
    results = case.forward(arguments)
    grads = case.grads(results)

    def backward(dtype: torch.dtype) -> Named:
        """Compute the gradients from kept values that are rounded to bfloat16, in this dtype."""
        given, made = (
            {n: v.bfloat16().to(dtype) if n in names else v for n, v in named.items()}
            for named in (arguments, results)
        )
        return case.backward(given, made, grads)

    leaf_names = sorted(case.differentiable)
    expect_close(
        leaves(backward(torch.bfloat16), leaf_names),
        leaves(backward(torch.float32), leaf_names),
        what="the gradient from what was kept in bfloat16 is not that of the same numbers in float32",
        advice="Convert it where it is read, or take it out of kept.",
        tolerance=1e-5,
    )


@check
def cuda(case: Case) -> None:
    """CUDA gives the results of the CPU, and nothing waits for the device."""
    if not torch.cuda.is_available():
        raise NotApplicable("there is no CUDA device")
    device = torch.device("cuda")
    _require_match(case, torch.float64, device)
    one = _run_on(case, CPU)
    _run_on(case, device)  # the first call of a library may wait while it is set up
    arguments = case.arguments(device=device)
    grads = replaced(one.grads, {k: g.to(device) for k, g in leaves(one.grads).items()})
    with unsynchronized():
        results = case.forward(arguments)
        trained = bool(one.gradients)
        gradients = case.backward(arguments, results, grads) if trained else {}
    found = leaves(results, case.layer.outputs) | leaves(gradients, sorted(one.gradients))
    for name, tensor in found.items():
        if tensor.device.type != "cuda":
            raise CheckFailure(f"expected {name!r} on {device}, found it on {tensor.device}")
    expect_close(
        found,
        leaves(one.results, case.layer.outputs) | leaves(one.gradients),
        what="the result on CUDA differs from that on the CPU",
        advice="Both are float64: look for operators that differ, or for memory that is not set.",
        tolerance=1e-9,
    )


@contextmanager
def unsynchronized() -> Iterator[None]:
    """Make every operation that waits for a CUDA device an error."""
    mode = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():  # torch says once that the mode is a prototype
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def _run_on(case: Case, device: torch.device) -> Pass:
    """Run forward and backward, and return the wanted gradients only."""
    arguments = case.arguments(device=device)
    results = case.forward(arguments)
    grads = case.grads(results)
    if not case.trainable:
        return Pass(arguments, results, grads, {})
    gradients = case.backward(arguments, results, grads)
    wanted = {name: gradients[name] for name in sorted(case.differentiable)}
    return Pass(arguments, results, grads, wanted)
