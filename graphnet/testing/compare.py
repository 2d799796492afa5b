"""Compare: find where two tensors differ and by how much, and guess the mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from graphnet.testing.outcome import CheckFailure

_FLOOR = 1e-8  # differences are relative to the largest value, but to no less than this


def same_bits(found: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors have the same dtype, shape and numbers; NaN equals NaN."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    equal = found == expected
    if found.is_floating_point():
        equal = equal | (found.isnan() & expected.isnan())
    return bool(equal.all())


def expect_same_bits(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, what: str, advice: str
) -> None:
    """Raise CheckFailure for the first leaf that is not equal in every bit."""
    for leaf, tensor in expected.items():
        if not same_bits(found[leaf], tensor):
            raise CheckFailure(f"{leaf!r}: {what}{difference(found[leaf], tensor)}. {advice}")


def expect_close(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    what: str,
    advice: str | Callable[[], str],
    tolerance: float,
    usual: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Raise CheckFailure for the first leaf that differs by more than `tolerance`, as `close` measures it.

    `advice` may be a function, which is called for a difference only: it can look at what is wrong.
    `usual` has values of the usual size of a leaf, for sums that may cancel to almost 0 here.
    """
    for leaf, tensor in expected.items():
        if leaf not in found:
            raise CheckFailure(f"{leaf!r}: {what}: it is missing")
        if not close(found[leaf], tensor, tolerance, usual=usual.get(leaf)):
            told = advice if isinstance(advice, str) else advice()
            raise CheckFailure(f"{leaf!r}: {what}{difference(found[leaf], tensor)}. {told}")


def close(
    found: Tensor, expected: Tensor, tolerance: float, *, usual: Tensor | None = None
) -> bool:
    """Return whether the shapes agree and no difference exceeds `tolerance` times the largest value."""
    if found.shape != expected.shape:
        return False
    if not expected.is_floating_point():
        return bool((found == expected).all())
    found, expected = found.double().cpu(), expected.double().cpu()
    apart = (found - expected).abs()
    apart = apart.masked_fill((found == expected) | (found.isnan() & expected.isnan()), 0.0)
    yardstick = (
        expected
        if usual is None
        else torch.cat([expected.flatten(), usual.double().cpu().flatten()])
    )
    finite = yardstick[yardstick.isfinite()].abs()
    scale = max(_FLOOR, float(finite.max()) if finite.numel() else 0.0)
    return bool((apart <= tolerance * scale).all())


def difference(found: Tensor, expected: Tensor) -> str:
    """Say where two tensors differ most, and by how much."""
    if found.shape != expected.shape:
        return f": expected the shape {tuple(expected.shape)}, found {tuple(found.shape)}"
    if found.dtype != expected.dtype:
        return f": expected {expected.dtype}, found {found.dtype}"
    if not found.numel():
        return ""
    left, right = found.double().cpu(), expected.double().cpu()
    apart = (left - right).abs().nan_to_num(nan=torch.inf).flatten()
    place = int(apart.argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), left.shape))
    at = f" at {index}" if index else ""
    mine, theirs = float(left.flatten()[place]), float(right.flatten()[place])
    return f"{at}: expected {theirs:.6g}, found {mine:.6g}{looks_like(left, right)}"


def looks_like(found: Tensor, expected: Tensor) -> str:
    """Guess the mistake if the found values are one number times the expected ones."""
    norm = float((expected * expected).sum())
    if norm == 0.0 or not bool(found.isfinite().all()):
        return ""
    factor = float((found * expected).sum()) / norm
    if not close(found, expected * factor, 1e-4):
        return ""
    if abs(factor) < 1e-9:
        return " (everywhere 0)"
    if abs(factor + 1.0) < 1e-4:
        return " (everywhere the negative: a sign)"
    if abs(factor - 2.0) < 1e-4:
        return " (everywhere twice that: counted twice?)"
    return f" (everywhere {factor:.6g} times that)"
