"""Check that outputs do not depend on the rows and columns outside the declared window."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from graphnet.testing.case import Case, is_kernel
from graphnet.testing.check import check
from graphnet.testing.compare import close
from graphnet.testing.leaves import Named, leaves, replaced
from graphnet.testing.outcome import CheckFailure, NotApplicable

_MOST = 12  # so many rows and columns of an output are checked


@check
def window(case: Case) -> None:
    """Rows of the outputs depend only on the input rows in the layer's `window`."""
    if is_kernel(case) or case.layer.pointwise:
        raise NotApplicable("only for layers that are not pointwise")
    arguments = case.arguments()
    inputs = leaves(arguments, case.ports.inputs)
    ranks = {tensor.ndim for tensor in inputs.values()}
    if len(ranks) != 1 or min(ranks) < 3:
        raise NotApplicable("the inputs are no images (N, C, ...) with the same spatial axes")
    spatial = range(ranks.pop() - 2)
    axes = [axis for axis in spatial if case.layer.window(range(1), axis) is not None]
    if not axes:
        raise NotApplicable("the layer declares no window: it may read the whole image")
    before = _outputs(case, arguments)
    for axis, size in itertools.product(axes, (1, 2)):
        length = min(_MOST, *(y.shape[2 + axis] for y in before.values()))
        for first in range(length - size + 1):
            rows = range(first, first + size)
            read = case.layer.window(rows, axis)
            assert read is not None
            moved = {leaf: _outside(x, read, axis) for leaf, x in inputs.items()}
            after = _outputs(case, replaced(arguments, moved))
            for name, y in before.items():
                expected, found = (t.narrow(2 + axis, first, size) for t in (y, after[name]))
                if not close(found, expected, 1e-12):
                    lines = (
                        ("rows", "columns")[axis] if len(spatial) == 2 else f"places on axis {axis}"
                    )
                    raise CheckFailure(
                        f"expected {lines} {_text(rows)} of {name!r} to depend on {lines} {_text(read)} of "
                        f"the inputs alone, as `window` declares, found that others matter. Widen it, or "
                        f"return None."
                    )


def _outputs(case: Case, arguments: Named) -> dict[str, Tensor]:
    """Return the outputs of inference for these arguments."""
    run = case.inference if case.layer.signature.inference else case.forward
    return case.outputs(run(arguments))


def _outside(x: Tensor, read: range, axis: int) -> Tensor:
    """Change x in all rows outside a range; not a single row, since a layer may broadcast it."""
    if x.shape[2 + axis] == 1:
        return x
    place = torch.arange(x.shape[2 + axis])
    inside = (place >= read.start) & (place < read.stop)
    return torch.where(inside.view(-1, *(1,) * (x.ndim - 3 - axis)), x, x + 1.0)


def _text(rows: range) -> str:
    return f"{rows.start} to {rows.stop - 1}"
