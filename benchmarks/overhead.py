"""Overhead: what a generated step of 200 tiny layers costs beside the torch calls that it makes.

The opponent is written by hand: the same operators in the same order on the same tensors, nothing else.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

import graphnet as gn
from benchmarks.networks import CHAIN
from benchmarks.timing import Run, interleave
from benchmarks.workloads import WORKLOADS

LAYERS = 200
_CHAIN = next(workload for workload in WORKLOADS if workload.name == "d-train")
_aten = torch.ops.aten


@dataclass(frozen=True)
class Overhead:
    """Milliseconds of the two steps, and the median over paired rounds of what a layer costs more."""

    generated_ms: float
    handwritten_ms: float
    per_layer_us: float
    rounds: int


def measure(device: torch.device, *, budget_s: float) -> Overhead:
    """Time the eager executor's step and the handwritten one, in turn."""
    runs = {"generated": generated(device), "handwritten": handwritten(device)}
    timings = interleave(runs, device=device, budget_s=budget_s, rounds=(5, 200))
    mine, theirs = timings["generated"], timings["handwritten"]
    more = [a - b for a, b in zip(mine.rounds_ms, theirs.rounds_ms, strict=True)]
    return Overhead(
        mine.median_ms,
        theirs.median_ms,
        statistics.median(more) / LAYERS * 1e3,
        len(more),
    )


def generated(device: torch.device) -> Run:
    """The step that graphnet generates, with the kernels that call torch's operators one by one."""
    program = CHAIN.model().compile(
        _CHAIN.shape, loss="mse", optimizer=gn.SGD(lr=CHAIN.lr), kernels="aten", device=device
    )
    images = program.pack(*_CHAIN.images(device))
    return lambda: program.step_packed(*images)


def handwritten(device: torch.device) -> Run:
    """The same step as somebody would write it who wants no framework."""
    parameters = [p.detach().to(device) for p in CHAIN.module().parameters()]
    weights, biases = parameters[::2], parameters[1::2]
    x, target = _CHAIN.images(device)
    lr = torch.tensor(CHAIN.lr, device=device)
    one = torch.ones((), device=device)
    convolution = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)

    @torch.no_grad()
    def step() -> Tensor:
        inputs, y = [], x
        for weight, bias in zip(weights, biases, strict=True):
            inputs.append(y)
            y = _aten.convolution.default(y, weight, bias, *convolution).relu_()
        loss: Tensor = _aten.mse_loss.default(y, target).clone()
        grad = _aten.mse_loss_backward.default(one, y, target, 1)
        for layer in range(len(weights) - 1, -1, -1):
            _aten.threshold_backward.grad_input(grad, y, 0, grad_input=grad)
            y = inputs.pop()
            wanted = [layer > 0, True, True]
            grad, grad_weight, grad_bias = _aten.convolution_backward.default(
                grad, y, weights[layer], [4], *convolution, wanted
            )
            weights[layer].addcmul_(grad_weight, lr, value=-1.0)
            biases[layer].addcmul_(grad_bias, lr, value=-1.0)
        return loss

    return step
