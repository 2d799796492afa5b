"""graphnet's contenders: the executors that compile a whole step or run it as it stands.

Inputs and targets of a training step are packed beforehand into the layout that the plan reads them in,
as a data set is. An image for inference has the strides that the first layer prefers, and is packed, where
the plan works in blocks, in the time that is measured.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

import graphnet as gn
from benchmarks.networks import Network
from benchmarks.timing import Run
from benchmarks.workloads import Contender, Saving, Side, Task, Workload
from graphnet.plan import Plan

EXECUTORS = ("eager", "inductor")
NONE = Saving("none")


def contenders(workload: Workload, device: torch.device) -> list[Contender]:
    """graphnet's contenders for a workload."""
    build = training if workload.task is Task.TRAIN else inference

    def builder(executor: str, precision: str) -> Callable[[], Run]:
        return lambda: build(workload, executor, precision, device)

    found = [
        Contender(
            Side.GRAPHNET,
            executor,
            precision,
            builder(executor, precision),
            compiled=executor != "eager",
        )
        for precision in workload.precisions
        for executor in EXECUTORS
    ]
    for saving in workload.savings:
        for precision in workload.precisions:
            setting = f"eager {saving}"

            def smaller(precision: str = precision, saving: Saving = saving) -> Run:
                return training(workload, "eager", precision, device, saving=saving)

            found.append(Contender(Side.GRAPHNET, setting, precision, smaller, saving=saving))
    return found


def program(
    workload: Workload,
    executor: str,
    precision: str,
    device: torch.device,
    *,
    saving: Saving = NONE,
) -> gn.Program:
    """The compiled training step of a workload."""
    made = gn.load(workload.network.file).compile(
        workload.shape,
        loss="mse",
        optimizer=optimizer(workload.network),
        device=device,
        precision=precision,
        memory=saving.memory,
        keep=saving.keep,
        executor=executor,
    )
    module = workload.network.module()
    for weight, parameter in zip(made.weights.values(), module.parameters(), strict=True):
        weight.copy_(parameter.detach())
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
    images = made.pack(*(preferred(made.plan, image) for image in workload.images(device)))
    return lambda: made.step_packed(*images)


def final_loss(
    workload: Workload, executor: str, precision: str, device: torch.device, *, steps: int
) -> float:
    """The loss after this many training steps, each on fresh noise, from the same weights."""
    made = program(workload, executor, precision, device)
    for step in range(steps):
        made.step(*workload.images(device, draw=step))
    return float(made.step(*workload.images(device, draw=steps)))


def preferred(plan: Plan, image: torch.Tensor) -> torch.Tensor:
    """An image with the strides that the plan's first layer runs fastest with."""
    memory_format = plan.values[plan.inputs[0]].memory_format
    return image if memory_format is None else image.to(memory_format=memory_format)


def inference(workload: Workload, executor: str, precision: str, device: torch.device) -> Run:
    """One forward pass."""
    model = workload.network.model()
    x = preferred(plan(workload, precision, device), workload.images(device)[0])
    return lambda: model.predict(x, device=device, precision=precision, executor=executor)


def plan(
    workload: Workload, precision: str, device: torch.device, *, saving: Saving = NONE
) -> Plan:
    """The plan that a contender runs."""
    model = workload.network.model()
    if workload.task is Task.INFER:
        return model.plan(workload.shape, device=device, precision=precision)
    return model.plan(
        workload.shape,
        loss="mse",
        optimizer=optimizer(workload.network),
        device=device,
        precision=precision,
        memory=saving.memory,
        keep=saving.keep,
    )
