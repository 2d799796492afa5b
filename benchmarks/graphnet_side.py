"""graphnet's contenders: the executors that compile a whole step or run it as it stands.

Inputs and targets of a training step are packed beforehand into the layout that the plan reads them in,
as a data set is. An image for inference has the strides that the first layer prefers, and is packed, where
the plan works in blocks, in the time that is measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch

import graphnet as gn
from benchmarks.networks import Network
from benchmarks.timing import Run
from benchmarks.workloads import Contender, Saving, Side, Task, Unavailable, Workload
from graphnet.graph import Kind
from graphnet.plan import Plan, Tiling
from graphnet.sdk import Registry

_EXECUTORS: Mapping[str, object] = {"eager": "eager", "inductor": "inductor"}
_ON_CUDA: Mapping[str, object] = {
    "cudagraph": {"cudagraph": {"steps": 1}},
    "cudagraph of inductor": {"cudagraph": {"captures": "inductor", "steps": 1}},
}
_TOGETHER = "cudagraph of several steps"
NONE = Saving("none")


def executors(device: torch.device) -> Mapping[str, object]:
    """The executors that are tried on a device, by the words that the table has for them."""
    return {**_EXECUTORS, **_ON_CUDA} if device.type == "cuda" else _EXECUTORS


def together(workload: Workload) -> Mapping[str, object]:
    """The executor that runs several training steps of a workload in one call."""
    return {_TOGETHER: {"cudagraph": {"steps": workload.together}}}


def contenders(workload: Workload, device: torch.device) -> list[Contender]:
    """graphnet's contenders for a workload."""
    build = training if workload.task is Task.TRAIN else inference

    def builder(executor: str, precision: str, saving: Saving = NONE) -> Callable[[], Run]:
        return lambda: build(workload, executor, precision, device, saving=saving)

    found = [
        Contender(
            Side.GRAPHNET,
            executor,
            precision,
            builder(executor, precision),
            compiled="inductor" in executor,
            captured=executor in _ON_CUDA,
        )
        for precision in workload.precisions
        for executor in executors(device)
    ]
    if device.type == "cuda" and workload.together > 1:
        found += [
            Contender(
                Side.GRAPHNET,
                _TOGETHER,
                precision,
                builder(_TOGETHER, precision),
                captured=True,
                steps=workload.together,
            )
            for precision in workload.precisions
        ]
    found += [
        Contender(
            Side.GRAPHNET,
            f"eager {saving}",
            precision,
            builder("eager", precision, saving),
            saving=saving,
        )
        for saving in workload.savings
        for precision in workload.precisions
    ]
    return found


def program(
    workload: Workload,
    executor: str,
    precision: str,
    device: torch.device,
    *,
    saving: Saving = NONE,
    registry: Registry | None = None,
) -> gn.Program:
    """The compiled training step of a workload, with the kernels of a registry."""
    made = gn.Model.load(workload.network.file, registry=registry).compile(
        workload.shape,
        loss="mse",
        optimizer=optimizer(workload.network),
        device=device,
        precision=precision,
        memory=saving.memory,
        saved_dtype=saving.saved_dtype,
        executor={**executors(device), **together(workload)}[executor],
    )
    module = workload.network.module()
    names = made.plan.of(Kind.PARAMETER)
    for name, parameter in zip(names, module.parameters(), strict=True):
        made.weights[name].copy_(parameter.detach())
    return made


def optimizer(network: Network) -> gn.Optimizer:
    """The network's optimizer."""
    return gn.SGD(lr=network.lr) if network.optimizer == "sgd" else gn.Adam(lr=network.lr)


def training(
    workload: Workload,
    executor: str,
    precision: str,
    device: torch.device,
    *,
    saving: Saving = NONE,
) -> Run:
    """One training step on packed tensors."""
    made = program(workload, executor, precision, device, saving=saving)
    if executor == _TOGETHER:
        return captured(packed_steps(made, workload, device), made.accumulation.record)
    step = packed_step(made, workload, device)
    return captured(step, made.accumulation.record) if executor in _ON_CUDA else step


def packed_step(made: gn.Program, workload: Workload, device: torch.device) -> Run:
    """One step of a program on the workload's images, which are packed beforehand."""
    images = made.pack(*(preferred(made.plan, image) for image in workload.images(device)))
    return lambda: made.step_packed(*images)


def packed_steps(made: gn.Program, workload: Workload, device: torch.device) -> Run:
    """Several steps of a program on the same images, in one call."""
    images = made.pack(*(preferred(made.plan, image) for image in workload.images(device)))
    given, lrs = [()] * workload.together, [made.lr] * workload.together

    def make() -> tuple[torch.Tensor, ...]:
        return images

    return lambda: made.steps_made(make, given, lrs=lrs)


def captured(run: Run, record: Callable[[], Mapping[str, Any]]) -> Run:
    """`run` after its first times. Raises Unavailable if, by its record, it is not captured."""
    for _ in range(2):  # a single step is captured first, and then several
        run()
    if stayed := record()["stayed"]:
        raise Unavailable(f"it stays on eager: {stayed}")
    if one_by_one := record()["one_by_one"]:
        raise Unavailable(f"its steps are replayed one by one: {one_by_one}")
    return run


def loss_after(
    workload: Workload,
    executor: str,
    precision: str,
    device: torch.device,
    *,
    steps: int,
    runs: int,
) -> list[float]:
    """The loss after this many training steps, in some runs from the same weights on different noise.

    A single loss jumps by several percent with its noise and with the path that rounding led the weights
    along, so that of a run is the mean of the next quarter as many steps. The noise of a run is the same for
    all executors and precisions.
    """
    found = []
    for run in range(runs):
        made = program(workload, executor, precision, device)
        losses = []
        for step in range(steps + steps // 4):
            loss = made.step(*workload.images(device, draw=run * 10_000 + step))
            if step >= steps:
                losses.append(float(loss))
        found.append(statistics.fmean(losses))
    return found


def preferred(plan: Plan, image: torch.Tensor) -> torch.Tensor:
    """An image with the strides that the plan's first layer runs fastest with."""
    memory_format = plan.values[plan.inputs[0]].memory_format
    return image if memory_format is None else image.to(memory_format=memory_format)


def inference(
    workload: Workload,
    executor: str,
    precision: str,
    device: torch.device,
    *,
    saving: Saving = NONE,
) -> Run:
    """One forward pass, in tiles where its memory is bounded."""
    model = workload.network.model()
    whole = model.plan(workload.shape, device=device, precision=precision)
    x = preferred(whole, workload.images(device)[0])
    chosen = executors(device)[executor]

    def predict() -> object:
        return model.predict(
            x, device=device, precision=precision, executor=chosen, memory=saving.memory
        )

    def record() -> Mapping[str, Any]:
        (predictor,) = model._predictions.made.values()
        return predictor.prepared((workload.shape,)).run.record()

    return captured(predict, record) if executor in _ON_CUDA else predict


def planned(
    workload: Workload, precision: str, device: torch.device, *, saving: Saving = NONE
) -> Plan | Tiling:
    """The plan that a contender runs, or the tiles that it runs one for."""
    model = workload.network.model()
    if workload.task is Task.INFER and saving.memory is not None:
        return model.tiling(
            workload.shape, memory=saving.memory, device=device, precision=precision
        )
    if workload.task is Task.INFER:
        return model.plan(workload.shape, device=device, precision=precision)
    return model.plan(
        workload.shape,
        loss="mse",
        optimizer=optimizer(workload.network),
        device=device,
        precision=precision,
        memory=saving.memory,
        saved_dtype=saving.saved_dtype,
    )
