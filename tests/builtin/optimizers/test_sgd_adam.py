"""Optimizers against torch.optim, schedules against torch's and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet.builtin import SGD, Adam, AdamW
from graphnet.builtin.schedules import ConstantSchedule, Cosine, OneCycle, WarmUp
from graphnet.errors import ContractError, DescriptionError, UnknownNameError
from graphnet.model import Model
from graphnet.sdk import Optimizer, Register, Schedule, Spec, StateSpec, hookimpl, load_registry
from tests.support.models import Scale

Torch = Callable[[list[Tensor]], torch.optim.Optimizer]
RULES: dict[str, tuple[Optimizer, Torch]] = {
    "sgd": (SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "sgd momentum": (
        SGD(lr=0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    ),
    "sgd dampening": (
        SGD(lr=0.1, momentum=0.9, dampening=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1),
    ),
    "sgd nesterov": (
        SGD(lr=0.1, momentum=0.8, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True),
    ),
    "sgd weight decay": (
        SGD(lr=0.1, weight_decay=0.03),
        lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.03),
    ),
    "sgd all": (
        SGD(lr=0.1, momentum=0.7, dampening=0.3, weight_decay=0.03),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.7, dampening=0.3, weight_decay=0.03),
    ),
    "sgd nesterov weight decay": (
        SGD(lr=0.1, momentum=0.7, nesterov=True, weight_decay=0.03),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.7, nesterov=True, weight_decay=0.03),
    ),
    "adam": (Adam(), lambda p: torch.optim.Adam(p)),
    "adam all": (
        Adam(lr=0.02, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1),
    ),
    "adam without memory": (
        Adam(lr=0.02, betas=(0.0, 0.0)),
        lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.0, 0.0)),
    ),
    "adamw": (AdamW(lr=0.02), lambda p: torch.optim.AdamW(p, lr=0.02)),
    "adamw all": (
        AdamW(lr=0.02, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.3),
        lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.3),
    ),
}
rules = pytest.mark.parametrize("name", RULES)


def noise(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def states_of(rule: Optimizer, parameter: Tensor) -> dict[str, Tensor | None]:
    spec = Spec(tuple(parameter.shape), parameter.dtype, parameter.device)
    return {
        name: None
        if state is None
        else torch.zeros(state.shape, dtype=state.dtype or spec.dtype, device=spec.device)
        for name, state in rule.states(spec).items()
    }


def run(
    rule: Optimizer, parameter: Tensor, grads: list[Tensor], *, rates: list[float] | None = None
) -> Tensor:
    """The parameter after a step for each gradient."""
    parameter = parameter.clone()
    states = states_of(rule, parameter)
    for i, grad in enumerate(grads):
        options: dict[str, Any] = {"device": parameter.device}
        lr = torch.tensor(rates[i] if rates else rule.lr, dtype=parameter.dtype, **options)
        named = {"parameter": parameter, "grad": grad, "lr": lr, "step": torch.tensor(i, **options)}
        rule.update(**{name: {**named, **states}[name] for name in rule.arguments})
    return parameter


def run_torch(
    make: Torch, parameter: Tensor, grads: list[Tensor], *, rates: list[float] | None = None
) -> Tensor:
    leaf = parameter.clone().requires_grad_()
    optimizer = make([leaf])
    for i, grad in enumerate(grads):
        if rates:
            optimizer.param_groups[0]["lr"] = rates[i]
        leaf.grad = grad.clone()
        optimizer.step()
    return leaf.detach()


@rules
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_ten_steps_equal_torch_optim(
    name: str, dtype: torch.dtype, rtol: float, device: torch.device
) -> None:
    rule, make = RULES[name]
    parameter = noise(5, 3, seed=0, dtype=dtype).to(device)
    grads = [noise(5, 3, seed=i + 1, dtype=dtype).to(device) for i in range(10)]
    kept = [grad.clone() for grad in grads]
    found = run(rule, parameter, grads)
    expected = run_torch(make, parameter, grads)
    assert not torch.equal(found, parameter)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * 0.1)
    assert all(map(torch.equal, grads, kept))


@rules
def test_a_learning_rate_that_changes_equals_torch_optim(name: str) -> None:
    rule, make = RULES[name]
    parameter, rates = noise(4, seed=0), [0.1 / (i + 1) for i in range(10)]
    grads = [noise(4, seed=i + 1) for i in range(10)]
    found = run(rule, parameter, grads, rates=rates)
    expected = run_torch(make, parameter, grads, rates=rates)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


NETWORK: dict[str, Any] = {
    "input": {"channels": 2},
    "layers": [
        {"id": "a", "conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}},
        "sigmoid",
        {"id": "b", "conv2d": {"out_channels": 2, "kernel_size": 2, "bias": False}},
    ],
}


def network(x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    h = torch.nn.functional.conv2d(x, weights["a.weight"], weights["a.bias"], padding=1)
    return torch.nn.functional.conv2d(h.sigmoid(), weights["b.weight"])


@rules
def test_ten_steps_of_a_program_equal_torch(name: str, device: torch.device) -> None:
    rule, make = RULES[name]
    program = Model(NETWORK).compile(
        (3, 2, 5, 5), loss="mse", optimizer=rule, device=device, dtype=torch.float64
    )
    leaves = {n: t.clone().requires_grad_() for n, t in program.weights.items()}
    optimizer = make(list(leaves.values()))
    for i in range(10):
        x = noise(3, 2, 5, 5, seed=2 * i).to(device)
        target = noise(3, 2, 4, 4, seed=2 * i + 1).to(device)
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(network(x, leaves), target)
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(program.step(x, target), loss.detach(), rtol=1e-9, atol=0)
    for n, leaf in leaves.items():
        torch.testing.assert_close(program.weights[n], leaf.detach(), rtol=1e-9, atol=1e-11)


class RoundedScale(Scale):
    """A layer whose parameter has a gradient in bfloat16, whatever its own dtype."""

    def backward(self, grad_y: Tensor, x: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        grad_x, grad_factor = super().backward(grad_y, x, factor)
        return grad_x, grad_factor.to(torch.bfloat16)


class Rounding:
    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("acme/rounded_scale", RoundedScale)


@rules
def test_a_narrow_gradient_updates_a_wide_parameter(name: str) -> None:
    rule, make = RULES[name]
    registry = load_registry(plugins=[Rounding()], entry_points=False)
    model = Model({"input": {"channels": 1}, "layers": ["acme/rounded_scale"]}, registry=registry)
    program = model.compile((1, 1, 2, 2), loss="mse", optimizer=rule)
    (weight,) = program.weights.values()
    start, grads = weight.clone(), []
    for i in range(3):
        x, target = noise(1, 1, 2, 2, seed=2 * i).float(), noise(1, 1, 2, 2, seed=2 * i + 1).float()
        grads.append((0.5 * (weight * x - target) * x).sum().reshape(1).bfloat16().float())
        program.step(x, target)
    torch.testing.assert_close(weight, run_torch(make, start, grads), rtol=1e-5, atol=1e-6)


def test_parameters_are_walked_in_the_order_of_the_description_each_once() -> None:
    model = Model(
        {
            "input": {"channels": 2},
            "layers": [
                {"id": "z", "conv2d": {"out_channels": 2, "kernel_size": 1}},
                {"id": "a", "conv2d": {"out_channels": 2, "kernel_size": 1, "bias": False}},
                {"id": "again", "conv2d": {"out_channels": 2, "kernel_size": 1}, "share": "z"},
                {"id": "b", "upsampling": {"out_channels": 2, "kernel_size": 1}},
            ],
        }
    )
    program = model.compile((1, 2, 2, 2), loss="mse", optimizer=SGD(lr=0.1, momentum=0.9))
    order = ["z.weight", "z.bias", "a.weight", "b.weight", "b.bias"]
    assert list(program.weights) == order
    assert list(program.optimizer_state) == [f"{name}:momentum_buffer" for name in order]
    updates = [s.call.name for s in program.plan.steps if s.call.name.endswith(":update")]
    assert sorted(updates) == sorted(f"{name}:update" for name in order)


def test_an_optimizer_without_states_keeps_none() -> None:
    program = Model(NETWORK).compile((1, 2, 5, 5), loss="mse", optimizer=SGD(lr=0.1))
    assert program.optimizer_state == {}


class Lion(Optimizer):
    """Chen et al. 2023, algorithm 2; as a third party would write it."""

    lr: float = 0.01
    beta: float = 0.9

    def states(self, parameter: Spec) -> dict[str, StateSpec | None]:
        return {"average": StateSpec(parameter.shape)}

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, average: Tensor) -> None:
        average.lerp_(grad, 1 - self.beta)
        parameter.sub_(lr * average.sign())


def test_an_optimizer_of_a_third_party_takes_part() -> None:
    program = Model(NETWORK).compile((1, 2, 5, 5), loss="mse", optimizer=Lion())
    before = {name: tensor.clone() for name, tensor in program.weights.items()}
    program.step(torch.ones(1, 2, 5, 5), torch.zeros(1, 2, 4, 4))
    for name, tensor in program.weights.items():  # every gradient is not 0, so each moves by lr
        torch.testing.assert_close((tensor - before[name]).abs(), torch.full_like(tensor, 0.01))


RISES = [
    (10, 0.3),
    (37, 0.25),
    (100, 0.5),
    (8, 0.9),
    (1000, 0.01),
]


@pytest.mark.parametrize(("total", "pct_start"), RISES)
@pytest.mark.parametrize(("div", "final_div"), [(25.0, 1e4), (4.0, 10.0)])
def test_one_cycle_equals_torch(total: int, pct_start: float, div: float, final_div: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=2.0,
        total_steps=total,
        pct_start=pct_start,
        div_factor=div,
        final_div_factor=final_div,
        cycle_momentum=False,
    )
    schedule = OneCycle(pct_start=pct_start, div_factor=div, final_div_factor=final_div)
    for step in range(total):
        (expected,) = scheduler.get_last_lr()
        assert 2.0 * schedule.factor(step, total) == pytest.approx(expected, rel=1e-12)
        optimizer.step()
        if step < total - 1:
            scheduler.step()


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 10])
@pytest.mark.parametrize("pct_start", [0.05, 0.1, 0.2, 0.25, 0.5, 0.99])
def test_one_cycle_of_few_steps_rises_then_falls(total: int, pct_start: float) -> None:
    # Without a rise (pct_start * total <= 1) torch divides by 0; the first step is then the top.
    factors = [OneCycle(pct_start=pct_start).factor(step, total) for step in range(total)]
    assert all(0.0 < factor <= 1.0 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    if pct_start * total == 1.0:
        assert factors[0] == 1.0
    if total > 1:
        assert factors[-1] == pytest.approx(1 / 25e4, rel=1e-9) or pct_start == 0.99


@pytest.mark.parametrize(("total", "final"), [(1, 0.0), (7, 0.0), (50, 0.1)])
def test_cosine_equals_torch(total: int, final: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=total, eta_min=0.5 * final
    )
    for step in range(total):
        (expected,) = scheduler.get_last_lr()
        assert 0.5 * Cosine(final=final).factor(step, total) == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("steps", [2, 5, 13])
def test_warm_up_equals_torch_linear_rise(steps: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=1 / steps, total_iters=steps - 1
    )
    for step in range(20):
        (expected,) = scheduler.get_last_lr()
        assert 0.5 * WarmUp(steps=steps).factor(step, 20) == pytest.approx(expected, rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_schedules_by_hand() -> None:
    def factors(schedule: Schedule, total: int) -> list[float]:
        return [schedule.factor(step, total) for step in range(total)]

    assert factors(ConstantSchedule(), 3) == [1.0, 1.0, 1.0]
    assert factors(WarmUp(steps=4), 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert factors(WarmUp(steps=1), 2) == [1.0, 1.0]
    # cos(0) = 1, cos(pi/3) = 1/2, cos(2 pi/3) = -1/2
    assert factors(Cosine(), 3) == pytest.approx([1.0, 0.75, 0.25])
    assert factors(Cosine(final=0.2), 3) == pytest.approx([1.0, 0.8, 0.4])
    # two steps of rise, then the same cosine over the three that are left
    rise = factors(Cosine(warm_up_steps=2), 5)
    assert rise == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.25])
    assert all(map(math.isfinite, factors(Cosine(warm_up_steps=9), 4)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(), "lr: must be given"),
        (lambda: SGD(lr=-0.1), "lr: expected greater than or equal to 0, found -0.1"),
        (lambda: SGD(lr=math.inf), "lr: expected"),
        (lambda: SGD(lr=math.nan), "lr: expected"),
        (lambda: SGD(lr="0.1"), "lr: expected number, found '0.1'"),
        (lambda: SGD(lr=0.1, nesterov=True), "nesterov: expects momentum above 0"),
        (
            lambda: SGD(lr=0.1, momentum=0.9, dampening=0.1, nesterov=True),
            "nesterov: expects momentum above 0 and dampening 0",
        ),
        (lambda: SGD(lr=0.1, momentum=-1.0), "momentum: expected"),
        (lambda: SGD(lr=0.1, weight_decay=-1.0), "weight_decay: expected"),
        (lambda: SGD(lr=0.1, momentun=0.9), "momentun: unknown field. Did you mean 'momentum'"),
        (lambda: Adam(betas=(0.9, 1.0)), "betas.1: expected less than 1, found 1.0"),
        (lambda: Adam(betas=(0.9,)), "betas"),
        (lambda: Adam(eps=0.0), "eps: expected greater than 0, found 0.0"),
        (lambda: AdamW(weight_decay=-0.1), "weight_decay: expected"),
        (lambda: WarmUp(steps=0), "steps: expected greater than 0, found 0"),
        (lambda: Cosine(final=1.5), "final: expected less than 1, found 1.5"),
        (lambda: OneCycle(pct_start=0.0), "pct_start: expected greater than 0"),
        (lambda: OneCycle(div_factor=0.5), "div_factor: expected"),
    ],
)
def test_wrong_configuration_is_an_error(make: Callable[[], object], message: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        make()
    assert message in str(caught.value)


def test_all_that_is_wrong_with_an_optimizer_is_said_at_once() -> None:
    with pytest.raises(DescriptionError) as caught:
        Adam(lr=-1.0, eps=-1.0, beta=0.9)
    assert [problem.path for problem in caught.value.problems] == ["lr", "eps", "beta"]


def test_rules_and_schedules_are_registered_by_name() -> None:
    registry = load_registry(entry_points=False)
    assert registry.make("optimizers", {"sgd": {"lr": 1}}) == SGD(lr=1.0)
    assert registry.make("optimizers", "adamw") == AdamW()
    assert registry.make("optimizers", {"adam": {"betas": [0.5, 0.5]}}) == Adam(betas=(0.5, 0.5))
    assert registry.make("schedules", {"warm_up": {"steps": 3}}) == WarmUp(steps=3)
    with pytest.raises(UnknownNameError, match="unknown optimizer 'adan'. Did you mean 'adam'"):
        registry.make("optimizers", "adan")


def test_an_update_with_other_arguments_is_refused_in_words() -> None:
    with pytest.raises(ContractError, match=r"Wrong\.update must take parameter and grad first"):

        class Wrong(Optimizer):
            def update(self, p: Tensor, g: Tensor) -> None: ...

    class Unknown(Optimizer):
        lr: float = 0.1

        def update(self, parameter: Tensor, grad: Tensor, momentum: Tensor) -> None: ...

    with pytest.raises(ContractError, match=r"Unknown.update names 'momentum'"):
        Model(NETWORK).compile((1, 2, 5, 5), loss="mse", optimizer=Unknown())

    class Nothing(Optimizer):
        pass

    with pytest.raises(ContractError, match=r"Nothing defines no update"):
        Nothing(lr=0.1).update()
