"""Keep casts: the update writes the casts of parameters, and the next step reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Self

import pytest
import torch
from torch import Tensor

from graphnet.builtin import SGD
from graphnet.errors import ContractError, PlanError
from graphnet.graph import CAST, Call, Graph, Kind
from graphnet.inspection import first_nonfinite
from graphnet.inspection.walk import complete
from graphnet.model import Model, Program
from graphnet.sdk import (
    Definition,
    MultiTensorKernel,
    Pass,
    Register,
    Registry,
    Tensors,
    hookimpl,
    load_registry,
)
from tests.support.oracle import random_tensor

SHAPE = (4, 3, 8, 8)
NETWORK: dict[str, Any] = {
    "input": {"channels": 3},
    "layers": [
        {"id": "a", "conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}},
        "relu",
        {"id": "b", "conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}},
    ],
}


class CopyingSGD(MultiTensorKernel):
    """sgd of all parameters, which also writes them in the narrow dtype."""

    replaces: ClassVar[type[Definition]] = SGD
    skips: ClassVar[bool] = True
    copies: ClassVar[bool] = True
    rule: SGD

    @classmethod
    def match(cls, rule: Definition, specs: Any) -> Self | None:
        return cls(rule=rule)

    def run(
        self,
        parameters: Tensors,
        grads: Tensors,
        lr: Tensor,
        step: Tensor,
        momentum_buffers: Tensors | None,
        finite: Tensor | None = None,
        copies: Tensors | None = None,
    ) -> None:
        buffers = momentum_buffers or (None,) * len(parameters)
        for i, (parameter, grad, buffer) in enumerate(zip(parameters, grads, buffers, strict=True)):
            changed = [one for one in (parameter, buffer) if one is not None]
            before = [one.clone() for one in changed]
            self.rule.update(parameter, grad.to(parameter.dtype), lr, step, buffer)
            if finite is not None:
                for one, was in zip(changed, before, strict=True):
                    one.copy_(torch.where(finite, one, was))
            if copies is not None:
                copies[i].copy_(parameter)


class Copying:
    @hookimpl
    def graphnet_kernels(self, register: Register) -> None:
        register("acme/sgd", CopyingSGD)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Copying()])


def program(registry: Registry, **settings: Any) -> Program:
    given = {"precision": "bfloat16", "optimizer": SGD(lr=0.1, momentum=0.9), **settings}
    return Model(NETWORK, registry=registry).compile(SHAPE, loss="mse", device="cpu", **given)


def both(registry: Registry, **settings: Any) -> tuple[Program, Program]:
    """A program with and one without the pass."""
    return program(registry, **settings), program(registry, **settings, without=["keep_casts"])


def casts(one: Program) -> list[str]:
    """The parameters that a step casts."""
    values = one.plan.values
    read = [name for s in one.plan.steps if s.call.title == "cast" for name in s.call.reads()]
    return [name for name in read if values[name].kind in (Kind.PARAMETER, Kind.FROZEN)]


def kept(one: Program) -> dict[str, str]:
    """Slot -> the parameter whose cast it holds."""
    return {n: v.of for n, v in one.plan.values.items() if v.role == CAST}


def step(one: Program, seed: int, images: int = 4) -> Tensor:
    shape = (images, *SHAPE[1:])
    return one.step(*(random_tensor(shape, seed=2 * seed + i).float() for i in (0, 1)))


def check_same(mine: Program, theirs: Program, seeds: range) -> None:
    for seed in seeds:
        assert torch.equal(step(mine, seed), step(theirs, seed))
    for name, tensor in {**theirs.weights, **theirs.optimizer_state}.items():
        assert torch.equal({**mine.weights, **mine.optimizer_state}[name], tensor), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ema": 0.9, "clip_grad_norm": 0.1},
        {"accumulate": 2},
        {"precision": "float16"},
        {"memory": "95%"},
    ],
    ids=str,
)
def test_steps_have_the_bits_of_steps_that_cast(
    registry: Registry, settings: dict[str, Any]
) -> None:
    mine, theirs = both(registry, **settings)
    names = ["a.weight", "a.bias", "b.weight", "b.bias"]
    assert (casts(mine), sorted(kept(mine).values())) == ([], sorted(names))
    assert (sorted(casts(theirs)), kept(theirs)) == (sorted(names), {})
    check_same(mine, theirs, range(6))


def test_frozen_parameters_are_cast_in_each_step(registry: Registry) -> None:
    settings: dict[str, Any] = {"parameters": [{"match": "a.*", "freeze": True}]}
    mine, theirs = both(registry, **settings)
    assert sorted(casts(mine)) == ["a.bias", "a.weight"]
    assert sorted(kept(mine).values()) == ["b.bias", "b.weight"]
    check_same(mine, theirs, range(3))


def in_place(one: Program) -> None:
    one.weights["a.weight"].mul_(0.5)


def in_numpy(one: Program) -> None:
    one.weights["a.weight"].numpy()[...] *= 0.5


def restored(one: Program) -> None:
    state = {name: tensor.clone() for name, tensor in one.training_state.items()}
    weights = {name: 0.5 * tensor for name, tensor in one.model_weights.items()}
    one.restore(state, steps_done=one.steps_done, weights=weights)


@pytest.mark.parametrize("write", [in_place, in_numpy, restored])
def test_weights_that_are_written_between_steps_are_cast_again(
    registry: Registry, write: Callable[[Program], None]
) -> None:
    mine, theirs = both(registry)
    check_same(mine, theirs, range(2))
    for one in (mine, theirs):
        write(one)
    check_same(mine, theirs, range(2, 5))


def test_a_weight_that_a_caller_holds_may_change_before_any_step(registry: Registry) -> None:
    mine, theirs = both(registry)
    held = [one.weights["b.weight"] for one in (mine, theirs)]
    for seed in range(3):
        for tensor in held:
            tensor.add_(0.1)
        check_same(mine, theirs, range(seed, seed + 1))


def test_programs_for_other_shapes_share_the_casts(registry: Registry) -> None:
    mine, theirs = both(registry)
    others = [one.with_shapes((2, *SHAPE[1:])) for one in (mine, theirs)]
    for seed in range(3):
        check_same(mine, theirs, range(seed, seed + 1))
        assert torch.equal(*(step(other, 10 + seed, images=2) for other in others))
    check_same(mine, theirs, range(20, 22))


def test_missing_casts_are_computed_from_the_weights(registry: Registry) -> None:
    """Not from initial values: with zeros, no value of this step would be infinite."""
    one = program(registry)
    given = {name: torch.full_like(weight, 1e30) for name, weight in one.weights.items()}
    for name in one.plan.inputs:
        given[name] = torch.ones(one.plan.values[name].spec.shape)
    whole = complete(one.plan, given)
    for slot, parameter in kept(one).items():
        assert torch.equal(whole[slot], given[parameter].bfloat16())
    assert first_nonfinite(one.plan, given) is not None


def test_no_checkpoint_holds_casts(registry: Registry) -> None:
    mine, theirs = both(registry)
    step(mine, 0), step(theirs, 0)
    assert mine.training_state.keys() == theirs.training_state.keys()
    assert mine.model_weights.keys() == theirs.model_weights.keys()
    again = program(registry)
    again.restore(mine.training_state, steps_done=1, weights=mine.model_weights)
    check_same(again, theirs, range(1, 4))


def test_the_update_waits_for_all_that_read_the_casts(registry: Registry) -> None:
    one = program(registry)
    (update,) = (s.call for s in one.plan.steps if isinstance(s.call.layer, CopyingSGD))
    for slot in kept(one):
        readers = {s.call.name for s in one.plan.steps if slot in s.call.reads()} - {update.name}
        assert readers
        assert readers <= set(update.after)


def test_a_plan_without_narrow_casts_has_no_such_slots(registry: Registry) -> None:
    assert kept(program(registry, precision="float32")) == {}


def test_a_kernel_with_copies_must_take_them() -> None:
    with pytest.raises(ContractError, match=r"run must take \(parameters.*finite, copies\)"):

        class Without(CopyingSGD):
            replaces: ClassVar[type[Definition]] = SGD

            def run(  # type: ignore[override]
                self,
                parameters: Tensors,
                grads: Tensors,
                lr: Tensor,
                step: Tensor,
                momentum_buffers: Tensors | None,
                finite: Tensor | None = None,
            ) -> None: ...


class Plain(CopyingSGD):
    """The same kernel, of which nobody knows that it writes copies."""

    copies: ClassVar[bool] = False


def update_of(graph: Graph) -> Call:
    (found,) = (call for call in graph.calls.values() if isinstance(call.layer, CopyingSGD))
    return found


def swapped(graph: Graph) -> Graph:
    call = update_of(graph)
    (first, second, *others) = call.args[-1]
    return with_call(graph, replace(call, args=(*call.args[:-1], (second, first, *others))))


def not_written(graph: Graph) -> Graph:
    call = update_of(graph)
    gone, *_ = kept_slots(graph)
    return with_call(
        graph, replace(call, writes={n: s for n, s in call.writes.items() if s != gone})
    )


def by_a_kernel_without_copies(graph: Graph) -> Graph:
    call = update_of(graph)
    return with_call(graph, replace(call, layer=Plain(rule=call.layer.rule)))  # type: ignore[attr-defined]


def of_another_parameter(graph: Graph) -> Graph:
    first, second, *_ = kept_slots(graph)
    values = dict(graph.values)
    values[first] = replace(values[first], of=values[second].of)
    return replace(graph, values=values)


def kept_slots(graph: Graph) -> list[str]:
    return [name for name, value in graph.values.items() if value.role == CAST]


def with_call(graph: Graph, call: Call) -> Graph:
    return replace(graph, calls={**graph.calls, call.name: call})


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (swapped, "writes another parameter than"),
        (not_written, "are not written by the same call"),
        (by_a_kernel_without_copies, "cannot write"),
        (of_another_parameter, "'a.weight' needs no gradient"),
    ],
)
def test_a_wrong_slot_of_a_cast_is_refused(fault: Callable[[Graph], Graph], said: str) -> None:
    class Faulty(Copying):
        @hookimpl
        def graphnet_passes(self, register: Register) -> None:
            changed = Pass(fault, "A fault.", name="acme/fault", after="keep_casts", exact=False)
            register("acme/fault", changed)

    with pytest.raises(PlanError, match=said):
        program(load_registry(plugins=[Faulty()]))
