"""The modules over one, two and three spatial axes against torch's of the same names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphnet import nn
from graphnet.errors import GraphError
from graphnet.sdk import Spatial, default_registry

F64 = torch.float64
MODES = ("reflect", "replicate", "circular")
# name in graphnet.nn, in torch.nn (the same by default), the arguments by position, the others by name
CASES: list[tuple[str, str | None, tuple[Any, ...], dict[str, Any]]] = [
    *((f"Conv{n}d", None, (4, 6, 3, 2, 1, 1, 2), {}) for n in (1, 2, 3)),
    *(
        (f"Conv{n}d", None, (4, 2, 3), {"padding": 2, "padding_mode": m})
        for n in (1, 2, 3)
        for m in MODES
    ),
    ("Conv2d", None, (4, 2, (2, 3)), {"padding": "same", "padding_mode": "circular"}),
    *((f"TransposeConv{n}d", f"ConvTranspose{n}d", (4, 6, 3, 2, 1, 1, 2), {}) for n in (1, 2, 3)),
    *((f"MaxPool{n}d", None, (3, 2, 1), {"ceil_mode": True}) for n in (1, 2, 3)),
    *((f"AvgPool{n}d", None, (3, 2, 1, True, False), {}) for n in (1, 2, 3)),
    *((f"AdaptiveAvgPool{n}d", None, (4,), {}) for n in (1, 2, 3)),
    *((f"AdaptiveMaxPool{n}d", None, (4,), {}) for n in (1, 2, 3)),
    *((f"BatchNorm{n}d", None, (4, 1e-3, 0.3), {}) for n in (1, 2, 3)),
    *(("InstanceNorm", f"InstanceNorm{n}d", (4,), {"affine": True}) for n in (1, 2, 3)),
    ("GroupNorm", None, (2, 4), {}),
    *((f"ConstantPad{n}d", None, (2, 1.5), {}) for n in (1, 2, 3)),
    *(
        (f"{kind}Pad{n}d", None, (2,), {})
        for kind in ("Reflection", "Replication")
        for n in (1, 2, 3)
    ),
    *((f"CircularPad{n}d", None, (2,), {}) for n in (1, 2, 3)),
]


def axes_of(name: str) -> int:
    return next((n for n in (1, 2, 3) if f"{n}d" in name), 2)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize(
    ("ours", "torchs", "arguments", "options"),
    CASES,
    ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)],
)
def test_module_equals_that_of_torch(
    ours: str, torchs: str | None, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    torch.manual_seed(3)
    expected = getattr(torch.nn, torchs or ours)(*arguments, **options).to(F64)
    torch.manual_seed(3)
    module = getattr(nn, ours)(*arguments, **options).to(F64)
    generator = torch.Generator().manual_seed(1)
    shape = (2, 4, *(5, 6, 7)[: axes_of(torchs or ours)])
    x = torch.randn(shape, generator=generator, dtype=F64).requires_grad_()
    y = expected(x)
    grad_y = torch.randn(y.shape, generator=generator, dtype=F64)
    y.backward(grad_y)
    torch.testing.assert_close(module(x.detach()), y.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(module.backward(grad_y), x.grad, rtol=1e-10, atol=1e-12)
    for (parameter, gradient), theirs in zip(module.param(), expected.parameters(), strict=True):
        torch.testing.assert_close(parameter, theirs.detach(), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(gradient, theirs.grad, rtol=1e-6, atol=1e-7)


def test_every_layer_over_spatial_axes_has_its_module() -> None:
    layers = default_registry().layers
    spatial = {
        name
        for name, entry in layers.items()
        if issubclass(entry.value, Spatial) or name.endswith(("1d", "3d"))
    }
    assert len(spatial) >= 40
    for name in spatial:
        assert getattr(nn, layers[name].value.__name__).__name__ == layers[name].value.__name__


def test_a_module_refuses_an_input_of_other_axes() -> None:
    with pytest.raises(GraphError, match="expected an input N x C x L, got 1x3x4x4"):
        nn.Conv1d(3, 8, 3)(torch.ones(1, 3, 4, 4))
