"""The kit's checks of optimizers and of kernels for many tensors: what is right passes, what is not bites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import graphnet as gn
from graphnet.builtin.kernels import multi_tensor
from graphnet.builtin.schedules import ConstantSchedule
from graphnet.sdk import Definition, Spec, StateSpec, Tensors, load_registry
from graphnet.testing import (
    RULE_CHECKS,
    LayerTests,
    Status,
    assert_checks_pass,
    run_checks,
)

REGISTRY = load_registry(entry_points=False)


@pytest.mark.parametrize("name", REGISTRY.optimizers)
def test_built_in_optimizer_passes_all_checks(name: str) -> None:
    report = assert_checks_pass(REGISTRY.optimizers[name].value, registry=REGISTRY)
    assert sum(row.status is Status.PASSED for row in report.rows) >= 8


@pytest.mark.parametrize("name", multi_tensor.KERNELS)
def test_built_in_kernel_passes_all_checks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_tensor, "DEVICES", {"cpu", "cuda"})
    report = assert_checks_pass(multi_tensor.KERNELS[name], registry=REGISTRY)
    assert sum(row.status is Status.PASSED for row in report.rows) >= 8


def test_kernel_that_matches_no_sample_is_skipped() -> None:
    if torch.cuda.is_available():
        pytest.skip("it runs on this machine's GPU")
    report = run_checks(multi_tensor.KERNELS["aten/sgd"], registry=REGISTRY)
    assert {row.status for row in report.rows} == {Status.SKIPPED}
    assert "there is no CUDA device" in report.rows[0].message


class Lion(gn.Optimizer):
    """p -= lr sign(b m + (1 - b) g); m = b m + (1 - b) g   (Chen et al. 2023, with one beta)."""

    beta: float = 0.9

    def states(self, parameter: Spec) -> Mapping[str, StateSpec | None]:
        return {"exp_avg": StateSpec(parameter.shape)}

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> None:
        exp_avg.lerp_(grad, 1.0 - self.beta)
        parameter.sub_(lr * exp_avg.sign())


class TestLion(LayerTests):
    layer = Lion(lr=0.1)


class Forgetful(Lion):
    """States nothing of the tensor that it asks for."""

    def states(self, parameter: Spec) -> Mapping[str, StateSpec | None]:
        return {}


class Returning(Lion):
    """Returns the new parameter, and writes none."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> Any:
        return parameter - lr * grad


class Greedy(Lion):
    """Scales the gradient where it stands."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> None:
        parameter.sub_(grad.mul_(lr))


class Mixing(Lion):
    """Divides by the norm of the whole gradient, and says that it is elementwise."""

    elementwise = True

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> None:
        parameter.sub_(lr * grad / grad.norm())


class MeanState(Lion):
    """Keeps one number for all elements, and says that it is elementwise."""

    elementwise = True

    def states(self, parameter: Spec) -> Mapping[str, StateSpec | None]:
        return {"mean": StateSpec(())}

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, mean: Tensor) -> None:
        mean.add_(grad.mean())
        parameter.sub_(lr * grad)


class Counting(Lion):
    """Counts its calls outside of the states."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> None:
        _CALLS.append(1)
        parameter.sub_(lr * grad / len(_CALLS))


_CALLS: list[int] = []


class Reading(Lion):
    """Reads the norm back."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> None:
        if grad.norm() > 0:
            parameter.sub_(lr * grad)


class Drawing(Lion):
    """Adds noise, always the same, from the global generator."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> None:
        torch.manual_seed(0)
        parameter.sub_(lr * (grad + torch.rand(())))


class Raw(Lion):
    """Reads the gradient's numbers as they lie in memory."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> None:
        flat = grad.as_strided((grad.numel(),), (1,))
        parameter.sub_(lr * torch.empty_like(grad).copy_(flat.view(parameter.shape)))


class Cancelling(Lion):
    """Loses its gradient in a large number."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> None:
        parameter.sub_(lr * ((grad + 1e6) - 1e6))


class Printing(Lion):
    """Tells the world."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> None:
        parameter.sub_(lr * grad)
        print(end="")


class Idle(Lion):
    """Only gives a name to something new."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> None:
        parameter = parameter - lr * grad


class Stubborn(Lion):
    """Goes by its own field."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> None:
        parameter.sub_(self.lr * grad)


class Numerical(Lion):
    """Goes through NumPy."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> None:
        parameter.sub_(lr * torch.from_numpy(grad.float().numpy().copy()))


BROKEN = [
    ("rule_runs", Idle, "expected a step to change 'parameter', found that none has changed"),
    ("rule_rate", Stubborn, "it has changed in a step whose lr is 0"),
    ("rule_meta", Numerical, "expected a step on tensors of the device meta to run"),
    ("rule_runs", Forgetful, "found 'exp_avg'. Return it from states"),
    ("rule_runs", Returning, "expected nothing back for tensor 0, found Tensor"),
    ("rule_writes", Greedy, "'grad[0]': a step wrote to it"),
    ("rule_elementwise", Mixing, "a part of the parameter is updated in another way"),
    ("rule_elementwise", MeanState, "expected the state 'mean' to have the parameter's shape"),
    ("rule_repeats", Counting, "'parameter[0]': the same steps gave another result"),
    ("rule_host_reads", Reading, "found aten._local_scalar_dense"),
    ("rule_random", Drawing, "a step"),
    ("rule_strides", Raw, "when gradients have other strides"),
    ("rule_dtypes", Cancelling, "the float32 result differs from the float64 result"),
    ("rule_compiles", Printing, "expected a step to be traced whole"),
]


@pytest.mark.parametrize(("check", "rule", "says"), BROKEN, ids=lambda v: getattr(v, "__name__", v))
def test_a_wrong_optimizer_fails_first_on_the_check_that_names_its_fault(
    check: str, rule: type[gn.Optimizer], says: str
) -> None:
    report = run_checks(rule, registry=REGISTRY)
    assert report.failures[0].check == check
    assert says in report.failures[0].message


class ManyLions(gn.MultiTensorKernel):
    """Lion for many parameters."""

    replaces = Lion
    rule: Lion

    @classmethod
    def match(cls, rule: Definition, specs: Sequence[Spec]) -> gn.MultiTensorKernel | None:
        return cls(rule=rule)

    def run(self, parameters: Tensors, grads: Tensors, lr: Tensor, exp_avgs: Tensors) -> None:
        for parameter, grad, exp_avg in zip(parameters, grads, exp_avgs, strict=True):
            self.rule.update(parameter, grad.to(parameter.dtype), lr, exp_avg)


class Narrow(ManyLions):
    """Promises to cast gradients, and cuts them off."""

    replaces = Lion
    casts = True

    def run(self, parameters: Tensors, grads: Tensors, lr: Tensor, exp_avgs: Tensors) -> None:
        wide = [
            g if g.dtype == torch.float32 else torch.zeros_like(g, dtype=torch.float32)
            for g in grads
        ]
        super().run(parameters, tuple(wide), lr, exp_avgs)


class Few(ManyLions):
    """Forgets all but the first 64."""

    replaces = Lion

    def run(self, parameters: Tensors, grads: Tensors, lr: Tensor, exp_avgs: Tensors) -> None:
        super().run(parameters[:64], grads[:64], lr, exp_avgs[:64])


class Fixed(ManyLions):
    """Knows one beta only."""

    replaces = Lion

    def run(self, parameters: Tensors, grads: Tensors, lr: Tensor, exp_avgs: Tensors) -> None:
        type(self)(rule=Lion(lr=1.0)).rerun(parameters, grads, lr, exp_avgs)

    def rerun(self, *args: Any) -> None:
        super().run(*args)


class Single(ManyLions):
    """Does nothing in float64, but takes it."""

    replaces = Lion

    def run(self, parameters: Tensors, grads: Tensors, lr: Tensor, exp_avgs: Tensors) -> None:
        if parameters[0].dtype != torch.float64:
            super().run(parameters, grads, lr, exp_avgs)


class Pairs(Lion):
    """Two betas; for matrices only."""

    betas: tuple[float, float] = (0.9, 0.99)

    def rule_for(self, parameter: Spec) -> gn.Optimizer:
        return self if len(parameter.shape) == 2 else Lion(lr=self.lr)

    def states(self, parameter: Spec) -> Mapping[str, StateSpec | None]:
        rows, columns = parameter.shape
        return {"exp_avg": StateSpec((rows, columns))}

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, exp_avg: Tensor) -> None:
        parameter.sub_(lr * exp_avg.lerp(grad, 1.0 - self.betas[0]).sign())
        exp_avg.lerp_(grad, 1.0 - self.betas[1])


class FixedPairs(gn.MultiTensorKernel):
    """Pairs, by betas of its own."""

    replaces = Pairs
    rule: Pairs

    @classmethod
    def match(cls, rule: Definition, specs: Sequence[Spec]) -> gn.MultiTensorKernel | None:
        return cls(rule=rule)

    def run(self, parameters: Tensors, grads: Tensors, lr: Tensor, exp_avgs: Tensors) -> None:
        for one in zip(parameters, grads, [lr] * len(grads), exp_avgs, strict=True):
            Pairs(lr=0.1).update(*one)


def compared(kernel: Any) -> str:
    """What the comparison with the rule says of a kernel."""
    return judged_by("kernel_equals_rule", kernel)


def judged_by(name: str, kernel: Any) -> str:
    checks = [check for check in RULE_CHECKS if check.name == name]
    return run_checks(kernel, registry=REGISTRY, checks=checks).rows[0].message


def test_a_rule_for_some_shapes_only_passes_and_its_other_numbers_are_tried() -> None:
    assert run_checks(Pairs, registry=REGISTRY).failures == ()
    assert "betas=(0.25, 0.375)" in compared(FixedPairs)
    assert compared(FixedPairs(rule=Pairs(lr=0.3))) == ""


class Failing(ManyLions):
    """Its match asks for what is not there."""

    replaces = Lion

    @classmethod
    def match(cls, rule: Definition, specs: Sequence[Spec]) -> Any:
        return cls(rule=rule) if specs[0].dev else None


def test_a_match_that_fails_is_one_row_of_the_report() -> None:
    (failure,) = run_checks(Failing, registry=REGISTRY).failures
    assert "Failing: match failed: AttributeError" in failure.message


def test_wrong_kernels_fail_where_they_are_compared_with_the_rule() -> None:
    assert run_checks(ManyLions, registry=REGISTRY).failures == ()
    cases = (
        (Narrow, "for 9 tensors in torch.float32"),
        (Few, "for 81 tensors in torch.float32"),
        (Fixed, "for 9 tensors in torch.float32"),
        (Single, "for 9 tensors in torch.float64"),
    )
    for kernel, says in cases:
        assert f"the result {says} differs from that of the rule" in compared(kernel)


class Demanding(Lion):
    """Has a field without a default."""

    gamma: float


class Sampled(Demanding):
    """Says with which."""

    @classmethod
    def samples(cls) -> list[Sampled]:
        return [cls(lr=0.1, gamma=0.5)]


class Nobodys(Lion):
    """Leaves every parameter to Lion."""

    def rule_for(self, parameter: Spec) -> gn.Optimizer:
        return Lion(lr=self.lr)


def test_report_names_rules_that_cannot_be_tried() -> None:
    (failure,) = run_checks(Demanding, registry=REGISTRY).failures
    assert "no Demanding could be made for the checks. Give `samples`" in failure.message
    assert run_checks(Sampled, registry=REGISTRY).failures == ()
    assert "expected rule_for to leave some" in run_checks(Nobodys).failures[0].message


class Heeding(ManyLions):
    """Goes back where `finite` is False."""

    replaces = Lion
    skips = True
    heeds = True
    share = 1.0

    def run(
        self,
        parameters: Tensors,
        grads: Tensors,
        lr: Tensor,
        exp_avgs: Tensors,
        finite: Tensor | None = None,
    ) -> None:
        slots = (*parameters, *exp_avgs)
        before = [slot.clone() for slot in slots]
        super().run(parameters, grads, lr if finite is None else lr * self.share, exp_avgs)
        if finite is not None and self.heeds:
            for slot, old in zip(slots, before, strict=True):
                slot.copy_(torch.where(finite, slot, old))


class Heedless(Heeding):
    """Takes `finite`, and does not look at it."""

    replaces = Lion
    heeds = False


class Halving(Heeding):
    """Goes half the way where it is True."""

    replaces = Lion
    share = 0.5


def test_a_kernel_that_takes_finite_writes_nothing_where_it_is_false() -> None:
    assert run_checks(Heeding, registry=REGISTRY).failures == ()
    said = judged_by("kernel_skips", Heedless)
    assert "it has changed in a step whose gradients are not finite" in said
    assert "the result where finite is True differs" in judged_by("kernel_skips", Halving)


class Copying(ManyLions):
    """Writes copies of the new parameters."""

    replaces = Lion
    copies = True
    shift = 0

    def run(
        self,
        parameters: Tensors,
        grads: Tensors,
        lr: Tensor,
        exp_avgs: Tensors,
        copies: Tensors | None = None,
    ) -> None:
        super().run(parameters, grads, lr, exp_avgs)
        for i, copy in enumerate(copies or ()):
            copy.fill_(0.0) if self.shift else copy.copy_(parameters[i])


class Misplacing(Copying):
    """Writes something else."""

    replaces = Lion
    shift = 1


class Turning(Copying):
    """Goes the other way if it writes copies."""

    replaces = Lion

    def run(
        self,
        parameters: Tensors,
        grads: Tensors,
        lr: Tensor,
        exp_avgs: Tensors,
        copies: Tensors | None = None,
    ) -> None:
        super().run(parameters, grads, lr if copies is None else -lr, exp_avgs, copies)


def test_a_kernel_that_takes_copies_writes_the_new_parameters_into_them() -> None:
    assert run_checks(Copying, registry=REGISTRY).failures == ()
    assert "a copy is not the new parameter" in judged_by("kernel_copies", Misplacing)
    assert "the result with copies differs" in judged_by("kernel_copies", Turning)


def test_every_check_bites() -> None:
    of_kernels = {"kernel_equals_rule", "kernel_skips", "kernel_copies"}
    bitten = {check for check, _, _ in BROKEN} | of_kernels
    assert {check.name for check in RULE_CHECKS} - bitten == {"rule_cuda"}  # needs a device


def test_report_names_classes_without_checks() -> None:
    report = run_checks(ConstantSchedule, registry=REGISTRY)
    assert "the kit has no checks for it" in report.failures[0].message
