"""Updates and casts of many tensors at once: the kit's checks, and what it does not ask."""

from __future__ import annotations

import mmap
import platform
import sys
from typing import Any

import pytest
import torch
from graphnet_triton import plugin, updates
from graphnet_triton.programs import updates as programs

import graphnet as gn
from graphnet.graph import Operation, operations_of
from graphnet.sdk import Follow, load_registry
from graphnet.testing import assert_checks_pass

_MAP_32BIT = 0x40  # of Linux on x86-64
BETAS = (0.25, 0.375)
RULES: dict[str, list[gn.Optimizer]] = {  # fewer than the kit makes: the interpreter takes its time
    "triton/sgd": [
        gn.SGD(lr=0.1),
        gn.SGD(lr=0.1, momentum=0.25, weight_decay=0.5, nesterov=True),
        gn.SGD(lr=0.1, momentum=0.25, dampening=0.5),
    ],
    "triton/adam": [gn.Adam(lr=0.1, betas=BETAS, eps=0.25, weight_decay=0.5)],
    "triton/adamw": [gn.AdamW(lr=0.1, betas=BETAS, eps=0.25, weight_decay=0.5)],
}


@pytest.mark.parametrize("name", updates.KERNELS)
def test_kernel_passes_the_kit(name: str) -> None:
    assert_checks_pass(updates.KERNELS[name], RULES.get(name))


def test_without_a_first_moment_there_is_no_correction(device: torch.device) -> None:
    """beta 0, whose logarithm is minus infinity."""
    rule = gn.Adam(lr=0.1, betas=(0.0, 0.5))
    one, other = (torch.linspace(-1, 1, 5, device=device) for _ in range(2))
    grad, lr, step = one.square(), torch.tensor(0.1, device=device), torch.tensor(0, device=device)
    states = [torch.zeros(5, device=device) for _ in range(4)]
    updates.TritonAdam(rule=rule).run((one,), (grad,), lr, step, (states[0],), (states[1],))
    rule.update(other, grad, lr, step, *states[2:])
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(states[0], grad)


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="low memory cannot be asked for here",
)
def test_tensors_may_lie_where_addresses_fit_into_32_bits() -> None:
    """Triton takes a number by its size."""
    average = torch.frombuffer(_low_memory(4 * 5), dtype=torch.float32)
    assert average.data_ptr() < 2**31
    rate = torch.tensor(0.5, dtype=torch.float64)
    updates.TritonFollow(rule=Follow()).run((average,), (torch.arange(5.0),), rate)
    torch.testing.assert_close(average, torch.arange(5.0) / 2)


def _low_memory(size: int) -> mmap.mmap:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_32BIT
    return mmap.mmap(-1, size, flags=flags)


@pytest.mark.parametrize(("sizes", "launches"), [([3] * 64, 1), ([3] * 65, 2), ([0, 3, 3000], 1)])
def test_launches_of_many_tensors(
    sizes: list[int], launches: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each 64 tensors, in which a program takes 1024 elements of one tensor."""
    grids: list[int] = []

    class Counted:
        def __getitem__(self, grid: tuple[int]) -> Any:
            grids.append(*grid)
            return cast[grid]

    cast = programs.cast
    monkeypatch.setattr(programs, "cast", Counted())
    xs = [torch.rand(size, device=device) for size in sizes]
    made = updates.cast(xs, torch.float64)
    assert all(torch.equal(one.float(), x) for one, x in zip(made, xs, strict=True))
    assert len(grids) == launches
    assert sum(grids) == sum(-(-size // 1024) for size in sizes)


@pytest.mark.parametrize("rule", [gn.SGD(lr=0.1, momentum=0.9), gn.Adam(lr=0.01)], ids=str)
def test_a_step_in_bfloat16_updates_and_casts_all_weights_at_once(
    rule: gn.Optimizer, device: torch.device
) -> None:
    """Layers by torch, whose gradients are bfloat16; two launches are left."""
    registry = load_registry(plugins=[plugin], entry_points=False)
    description = {
        "input": {"channels": 3},
        "layers": [{"conv2d": {"out_channels": 3, "kernel_size": 5, "padding": 2}}] * 3,
    }
    programs = [
        gn.Model(description, registry=registry).compile(
            (2, 3, 8, 8),
            loss="l1",
            optimizer=rule,
            device=str(device),
            precision="bfloat16",
            ema=0.9,
            without=without,
        )
        for without in ([], ["batch_updates"])
    ]
    titles = [step.call.title for step in programs[0].plan.steps]
    name = type(rule).__name__.lower()
    assert [t for t in titles if t.endswith("[triton]")] == [f"{name} [triton]", "ema [triton]"]
    assert (
        "cast" in titles
    )  # that of the image: those of the weights are slots, which the update writes
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        pair = [torch.rand((2, 3, 8, 8), generator=generator).to(device) for _ in range(2)]
        losses = [program.step(*pair) for program in programs]
        torch.testing.assert_close(
            *losses, rtol=0.05, atol=0.0
        )  # the interpreter cuts off, not rounds
    for mine, theirs in (
        (programs[0].weights, programs[1].weights),
        (programs[0].averages, programs[1].averages),
    ):
        for slot, tensor in mine.items():
            torch.testing.assert_close(tensor, theirs[slot], rtol=0.05, atol=0.01)


def test_a_step_of_a_chain_in_bfloat16_is_two_operators_and_the_count(device: torch.device) -> None:
    """The chain, which launches twice and reads the image before its cast, and the update, which casts."""
    registry = load_registry(plugins=[plugin], entry_points=False)
    description = {
        "input": {"channels": 3},
        "layers": [
            {"conv2d": {"out_channels": 8, "kernel_size": 2, "stride": 2}},
            "relu",
            {"upsampling": {"out_channels": 3, "kernel_size": 2, "stride": 2}},
            "sigmoid",
        ],
    }
    program = gn.Model(description, registry=registry).compile(
        (2, 3, 8, 8), loss="mse", optimizer=gn.SGD(lr=0.1), device=str(device), precision="bfloat16"
    )
    images = program.pack(*(torch.rand(2, 3, 8, 8, device=device) for _ in range(2)))
    program.step_packed(*images)  # the first step casts the initial weights
    operations = operations_of(lambda: program.step_packed(*images))
    assert [str(o) for o in operations if not views(o)] == [
        "graphnet_triton.patch_chain",
        "graphnet_triton.sgd",
        "aten.add_.Tensor",
    ]


def views(operation: Operation) -> bool:
    """Whether an operator only looks at its argument in another way."""
    name = str(operation).partition(".")[2]
    return name.partition(".")[0] in ("view", "slice", "permute", "detach", "transpose", "t")
