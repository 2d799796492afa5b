"""dropout: its statistics, its independence, its mask in backward, and a step against torch.

The bounds are in standard deviations. Everything is fixed by keys, so a test passes or fails for good.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from graphnet.builtin.layers.dropout import Dropout
from graphnet.errors import DescriptionError
from graphnet.model import Model
from graphnet.sdk import random
from tests.support.oracle import STRIDES, random_tensor, relative_error

N = 1 << 18


def key_of(seed: int = 0, step: int = 0, node: str = "dropout_1") -> Tensor:
    return random.key(torch.tensor(seed), torch.tensor(step), random.node_constant(node))


def kept(p: float, shape: tuple[int, ...] = (N,), **which: int | str) -> Tensor:
    """1 where an element is kept."""
    y = Dropout(p=p).forward(torch.ones(shape, dtype=torch.float64), key_of(**which))  # type: ignore[arg-type]
    return (y != 0).double()


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's correlation times sqrt(n): standard normal for independent numbers."""
    pair = torch.stack((one.flatten(), other.flatten()))
    return float(torch.corrcoef(pair)[0, 1]) * math.sqrt(one.numel())


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_the_share_that_is_dropped_is_p_and_the_mean_stays(p: float) -> None:
    deviation = math.sqrt(p * (1 - p) / N)
    for seed in range(4):
        share = 1 - float(kept(p, seed=seed).mean())
        assert abs(share - p) < 4 * deviation
        y = Dropout(p=p).forward(torch.ones(N, dtype=torch.float64), key_of(seed=seed))
        assert sorted(y.unique().tolist()) == pytest.approx([0.0, 1 / (1 - p)], rel=1e-12)
        assert abs(float(y.mean()) - 1) < 4 * deviation / (1 - p)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_masks_of_seeds_steps_and_nodes_are_independent(p: float) -> None:
    masks = [
        kept(p, seed=seed, step=step, node=node)
        for seed, step, node in itertools.product((0, 1), (0, 1, 2), ("dropout_1", "dropout_2"))
    ]
    for one, other in itertools.combinations(masks, 2):
        assert abs(correlation(one, other)) < 4.5


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_positions_of_an_image_are_independent(p: float) -> None:
    mask = kept(p, (16, 16, 32, 32))
    for axis, lag in itertools.product(range(4), (1, 2, 5)):
        length = mask.shape[axis] - lag
        near, far = mask.narrow(axis, 0, length), mask.narrow(axis, lag, length)
        assert abs(correlation(near, far)) < 4.5, (axis, lag)
    for axis in range(4):  # each channel, row and column has its share
        others = [other for other in range(4) if other != axis]
        shares = mask.mean(others)
        deviation = math.sqrt(p * (1 - p) * mask.shape[axis] / mask.numel())
        assert float((shares - (1 - p)).abs().max()) < 4.5 * deviation


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_backward_uses_the_mask_of_forward_for_any_strides(
    p: float, strides: str, device: torch.device
) -> None:
    x = random_tensor((2, 3, 4, 5), seed=1, strides=strides, device=device)
    grad_y = random_tensor((2, 3, 4, 5), seed=2, device=device)
    key, layer, copies = key_of().to(device), Dropout(p=p), (x.clone(), grad_y.clone())
    mask = random.uniform(key, (2, 3, 4, 5)) >= p
    factor = 0.0 if p == 1.0 else 1 / (1 - p)
    assert relative_error(layer.forward(x, key), mask * x * factor) <= 1e-15
    assert relative_error(layer.backward(grad_y, key), mask * grad_y * factor) <= 1e-15
    assert torch.equal(layer.inference(x), x)
    assert all(map(torch.equal, (x, grad_y), copies))


def test_the_factor_is_not_rounded_to_the_dtype_of_the_input() -> None:
    y = Dropout(p=0.1).forward(torch.full((1 << 16,), 0.9, dtype=torch.bfloat16), key_of())
    largest = torch.tensor(0.9, dtype=torch.bfloat16).double() / 0.9
    assert y.max() == largest.bfloat16()  # 1 / 0.9 in bfloat16 would be 0.1 % too large


def test_nan_is_not_hidden_by_a_mask() -> None:
    y = Dropout(p=0.5).forward(torch.full((100,), math.nan), key_of())
    assert bool(y.isnan().all())


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_p_that_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(DescriptionError, match="p: expected"):
        Dropout(p=p)


@pytest.mark.parametrize("chosen", ["auto", "reference"])
def test_steps_equal_torch_with_the_same_masks_and_prediction_drops_nothing(chosen: str) -> None:
    conv = {"conv2d": {"out_channels": 4, "kernel_size": 3}}
    model = Model(
        {
            "input": {"channels": 3},
            "layers": [conv, {"id": "d", "dropout": {"p": 0.25}}, "relu", "dropout", conv],
        }
    )
    program = model.compile(
        (2, 3, 9, 9),
        loss="mse",
        optimizer={"sgd": {"lr": 0.2}},
        device="cpu",
        dtype=torch.float64,
        kernels=chosen,
        seed=11,
    )
    x, target = random_tensor((2, 3, 9, 9), seed=1), random_tensor((2, 4, 5, 5), seed=2)
    weights = [weight.clone().requires_grad_() for weight in program.weights.values()]

    def network(masks: tuple[Tensor, Tensor] | None) -> Tensor:
        inner = torch.nn.functional.conv2d(x, *weights[:2])
        one, two = (torch.ones_like(inner),) * 2 if masks is None else masks
        return torch.nn.functional.conv2d((inner * one).relu() * two, *weights[2:])

    losses = []
    for step in range(3):
        masks = (
            kept(0.25, (2, 4, 7, 7), seed=11, step=step, node="d") / 0.75,
            kept(0.5, (2, 4, 7, 7), seed=11, step=step) / 0.5,
        )
        loss = torch.nn.functional.mse_loss(network(masks), target)
        losses.append(float(loss.detach()))
        for weight, grad in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.data -= 0.2 * grad
    assert [float(program.step(x, target)) for _ in range(3)] == pytest.approx(losses, rel=1e-12)
    for found, expected in zip(program.weights.values(), weights, strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(program.predict(x), network(None).detach(), rtol=1e-10, atol=1e-12)
