"""muon against torch.optim.Muon, alone and beside AdamW in a program."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from graphnet.builtin import SGD, AdamW, Muon
from graphnet.errors import DescriptionError
from graphnet.graph import Kind
from graphnet.model import Model
from graphnet.sdk import Spec, Times
from tests.support.models import SEED
from tests.support.oracle import random_tensor, relative_error

RULES: dict[str, dict[str, Any]] = {
    "default": {},
    "fast": {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.0},
    "no nesterov": {"lr": 0.02, "nesterov": False, "weight_decay": 0.5},
    "match rms": {"lr": 0.02, "adjust_lr_fn": "match_rms_adamw"},
    "other iteration": {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 9, "eps": 1e-3},
}
rules = pytest.mark.parametrize("fields", RULES.values(), ids=list(RULES))


def in_torch(fields: dict[str, Any], leaves: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Muon(leaves, **fields)


def iterated(fields: dict[str, Any], matrix: Tensor) -> Tensor:
    """What NS makes of a matrix, by its singular values: x (a + b x^2 + c x^4), again and again."""
    rule = Muon(**fields)
    a, b, c = rule.ns_coefficients
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm().clamp(min=rule.eps)
    for _ in range(rule.ns_steps):
        s = s * (a + b * s**2 + c * s**4)
    return u @ s.diag() @ v


@rules
@pytest.mark.parametrize("shape", [(5, 3), (3, 7), (4, 4), (1, 6), (6, 1), (30, 400), (90, 40)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
def test_singular_values_go_through_the_polynomial(
    fields: dict[str, Any],
    shape: tuple[int, int],
    dtype: torch.dtype,
    bound: float,
    device: torch.device,
) -> None:
    for kind in ("random", "of rank 1", "zero"):
        matrix = random_tensor(shape, seed=3, dtype=dtype, device=device)
        if kind != "random":
            matrix = matrix[:, :1] * matrix[:1] * (kind != "zero")
        for steps, room in ((0, 1), (1, 1), (5, 1), (8, 30)):  # rounding grows too
            given = {**fields, "ns_steps": steps}
            found = Muon(**given).orthogonal(matrix)
            expected = iterated(given, matrix)
            assert found.dtype == dtype
            assert relative_error(found.double(), expected) <= bound * room


@rules
@pytest.mark.parametrize("shape", [(5, 3), (3, 7), (4, 4), (1, 6), (6, 1), (4, 3, 3, 2), (8, 2, 2)])
def test_ten_steps_are_those_of_torch_but_for_its_rounding(
    fields: dict[str, Any], shape: tuple[int, ...], device: torch.device
) -> None:
    rule = Muon(**fields)
    parameter = random_tensor(shape, seed=0, dtype=torch.float32, device=device)
    leaf = parameter.clone().flatten(1).requires_grad_()
    optimizer = in_torch(fields, [leaf])
    buffer = torch.zeros_like(parameter)
    start = parameter.clone().flatten(1)
    for step in range(10):
        rate = rule.lr / (1 + step)
        grad = random_tensor(shape, seed=step + 1, dtype=torch.float32, device=device)
        kept = grad.clone()
        rule.update(parameter, grad, torch.tensor(rate, device=device), buffer)
        assert torch.equal(grad, kept)
        optimizer.param_groups[0]["lr"] = rate
        leaf.grad = grad.flatten(1)
        optimizer.step()
    moved = leaf.detach() - start
    assert float((parameter.flatten(1) - start - moved).norm()) <= 0.03 * float(moved.norm())


@pytest.mark.parametrize("strides", ["channels_last", "reversed", "sliced"])
def test_any_strides_of_a_gradient_are_accepted(strides: str) -> None:
    shape, rule, lr = (4, 3, 2, 2), Muon(), torch.tensor(0.1, dtype=torch.float64)
    found = []
    for given in ("contiguous", strides):
        parameter = random_tensor(shape, seed=0, strides=given)
        grad = random_tensor(shape, seed=1, strides=given)
        rule.update(parameter, grad, lr, torch.zeros_like(parameter))
        found.append(parameter)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_a_direction_becomes_nearly_orthogonal() -> None:
    """The quintic of these coefficients takes singular values to 0.7 .. 1.2, but for the smallest."""
    for shape in ((6, 20), (20, 6)):
        matrix = random_tensor(shape, seed=3)
        values = torch.linalg.svdvals(Muon().orthogonal(matrix).double())
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        torch.testing.assert_close(Muon().orthogonal(matrix).double(), u @ v, rtol=0, atol=0.3)


def test_parameters_of_fewer_axes_go_by_adamw() -> None:
    rule = Muon(weight_decay=0.3, adamw_lr=0.5, adamw_betas=(0.8, 0.9), adamw_eps=0.1)
    assert rule.rule_for(Spec((4, 3))) is rule
    expected = AdamW(lr=0.5, betas=(0.8, 0.9), eps=0.1, weight_decay=0.3)
    assert rule.rule_for(Spec((4,))) == rule.rule_for(Spec(())) == expected
    assert SGD(lr=0.1).rule_for(Spec((4,))) == SGD(lr=0.1)


SHAPE = (4, 3, 8, 8)


def test_a_program_trains_weights_by_muon_and_biases_by_adamw_with_its_own_rate(
    device: torch.device,
) -> None:
    rule = Muon(lr=0.02, adamw_lr=0.005, weight_decay=0.1)
    program = Model(SEED).compile(
        SHAPE, loss="mse", optimizer=rule, device=device, dtype=torch.float64,
        parameters=[{"match": "conv2d_*.bias", "weight_decay": 0.0, "lr_scale": 3.0}],
    )  # fmt: skip
    dense = torch.contiguous_format
    leaves = {n: t.clone(memory_format=dense).requires_grad_() for n, t in program.weights.items()}
    # torch takes matrices only: their views share the leaves' memory
    matrices = {n: t.detach().flatten(1) for n, t in leaves.items() if t.ndim > 1}
    optimizers: list[Any] = [
        torch.optim.Muon([matrix], lr=0.02, weight_decay=0.1) for matrix in matrices.values()
    ]
    groups: list[dict[str, Any]] = [
        {"params": [leaves["conv2d_1.bias"], leaves["conv2d_2.bias"]], "lr": 0.015, "weight_decay": 0.0},
        {"params": [leaves["upsampling_1.bias"], leaves["upsampling_2.bias"]]},
    ]  # fmt: skip
    optimizers.append(torch.optim.AdamW(groups, lr=0.005, weight_decay=0.1))

    def layer(name: str) -> tuple[Tensor, Tensor]:
        return leaves[f"{name}.weight"], leaves[f"{name}.bias"]

    for step in range(4):
        if step == 2:
            program.lr *= 0.5
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] *= 0.5
        x = random_tensor(SHAPE, seed=step, device=device)
        target = random_tensor(SHAPE, seed=step + 9, device=device).sigmoid()
        y = F.conv2d(x, *layer("conv2d_1"), stride=2).relu()
        y = F.conv2d(y, *layer("conv2d_2"), stride=2).relu()
        y = F.conv_transpose2d(y, *layer("upsampling_1"), stride=2).relu()
        y = F.conv_transpose2d(y, *layer("upsampling_2"), stride=2).sigmoid()
        grads = torch.autograd.grad(F.mse_loss(y, target), list(leaves.values()))
        for (name, leaf), grad in zip(leaves.items(), grads, strict=True):
            if name in matrices:
                matrices[name].grad = grad.flatten(1)
            else:
                leaf.grad = grad
        for optimizer in optimizers:
            optimizer.step()
        program.step(x, target)
    for name, leaf in leaves.items():
        # torch iterates in bfloat16; weights move by 0.05, biases as far
        torch.testing.assert_close(program.weights[name], leaf.detach(), rtol=0, atol=5e-3)
    updates = {s.call.name: s.call for s in program.plan.steps if s.call.kind is Kind.UPDATE}
    assert updates["conv2d_1.weight:update"].layer == rule
    assert updates["upsampling_1.bias:update"].layer == AdamW(lr=0.005, weight_decay=0.1)
    assert updates["conv2d_1.bias:update"].layer == AdamW(lr=0.005, weight_decay=0.0)
    rates = [s.call.layer for s in program.plan.steps if s.call.title == "lr"]
    assert rates == [Times(factor=3.0 * (0.005 / 0.02)), Times(factor=0.005 / 0.02)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": 0.0}, "lr: expected greater than 0, found 0.0"),
        ({"ns_steps": 100}, "ns_steps: expected less than 100, found 100"),
        ({"adjust_lr_fn": "rms"}, "adjust_lr_fn: expected 'original' or 'match_rms_adamw'"),
        ({"ns_coefficients": (1.0, 2.0)}, "ns_coefficients"),
        ({"adamw_lr": -1.0}, "adamw_lr: expected greater than or equal to 0"),
    ],
)
def test_wrong_fields_are_errors(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        Muon(**fields)
    assert message in str(caught.value)
