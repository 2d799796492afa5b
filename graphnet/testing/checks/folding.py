"""Checks of affine_map and absorb, by which a plan folds a layer into its neighbour."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from graphnet.graph import invoke, result_names
from graphnet.sdk import AFFINE
from graphnet.testing.case import Case
from graphnet.testing.check import check
from graphnet.testing.compare import expect_close
from graphnet.testing.draw import draw
from graphnet.testing.leaves import Named, leaves
from graphnet.testing.outcome import CheckFailure, NotApplicable

_TOLERANCE = 1e-10


@check
def affine_map(case: Case) -> None:
    """In inference, a channel of the output is scale * input + shift, as affine_map returns them."""
    layer = case.layer
    if not layer.signature.affine_map:
        raise NotApplicable("the layer has no affine_map")
    arguments = case.arguments()
    scale, shift = _called(case, "affine_map", arguments).values()
    x = arguments[layer.signature.tensors[0]]
    for name, part in zip(AFFINE, (scale, shift), strict=True):
        if part.dtype != x.dtype:
            raise CheckFailure(
                f"expected affine_map to return {name!r} in {x.dtype}, as its arguments are, found "
                f"{part.dtype}. Do not convert it."
            )
    expect_close(
        {layer.outputs[0]: _predicted(case, arguments)},
        {layer.outputs[0]: _mapped(x, scale, shift)},
        what="the inference output is not scale * input + shift, as affine_map returns them",
        advice="Return both for the channels (axis 1), from parameters and states as inference takes them.",
        tolerance=_TOLERANCE,
    )


@check
def absorb(case: Case) -> None:
    """With the parameters that absorb returns, each channel of the output is scaled and shifted."""
    layer = case.layer
    if not layer.signature.absorb:
        raise NotApplicable("the layer has no absorb")
    arguments = case.arguments()
    y = _predicted(case, arguments)
    scale, shift = (draw((y.shape[1],), name, 0) for name in AFFINE)
    absorbed = _called(case, "absorb", {**arguments, "scale": scale, "shift": shift})
    for name, changed in absorbed.items():
        before = arguments[name]
        if before is not None and changed.shape != before.shape:
            raise CheckFailure(
                f"expected absorb to return {name!r} in its shape {tuple(before.shape)}, found "
                f"{tuple(changed.shape)}"
            )
        if before is not None and changed.dtype != before.dtype:
            raise CheckFailure(
                f"expected absorb to return {name!r} in {before.dtype}, as it is given, found "
                f"{changed.dtype}. Do not convert it."
            )
    expect_close(
        {layer.outputs[0]: _predicted(case, {**arguments, **absorbed})},
        {layer.outputs[0]: _mapped(y, scale, shift)},
        what="with the parameters that absorb returns, the output is not scale * output + shift",
        advice="Scale every parameter that the output is linear in; a bias is scaled, then shifted.",
        tolerance=_TOLERANCE,
    )


def _predicted(case: Case, arguments: Named) -> Tensor:
    """Return the output of inference."""
    run = case.inference if case.layer.signature.inference else case.forward
    y: Tensor = run(arguments)[case.layer.outputs[0]]
    return y


def _called(case: Case, method: str, values: Named) -> dict[str, Any]:
    """Call a method, and return its results by name.

    Raises LayerError if their number is wrong, CheckFailure if the method writes to an argument.
    """
    before = {leaf: tensor._version for leaf, tensor in leaves(values).items()}
    returned = invoke(case.layer, method, values)
    for leaf, tensor in leaves(values).items():
        if tensor._version != before[leaf]:
            raise CheckFailure(
                f"expected {method} to leave {leaf!r} alone, found that it wrote to it. Compute a new "
                f"tensor: x.mul(2), not x.mul_(2)."
            )
    return case.named(method, result_names(case.layer, method), returned)


def _mapped(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Multiply each channel of x, on axis 1, by its scale, and add its shift."""
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    return x * scale.view(shape) + shift.view(shape)
