"""Traced torch modules beside torch: `python -m benchmarks.from_torch [--rows NAME,NAME] [--quick]`.

For each network it prints the largest differences between the traced model and torch in float64, in parts of
the largest value: of the loss, of the output in eval mode, of all gradients, and of all running statistics
after a step. Then it times a training step in float32 (MSE, SGD): the fastest of torch's settings (eager and
compiled, each memory format) beside the fastest of graphnet's executors, interleaved in one process, medians.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import graphnet as gn
from benchmarks.measure import reason
from benchmarks.timing import Run, interleave
from benchmarks.traced_networks import (
    MobileNetV2,
    MobileNetV3,
    ResNet18,
    Transformer,
    UNet,
    exact_hardsigmoid,
)
from graphnet.bridges import TracedModel
from graphnet.errors import nearest

_LR = 1e-3
_WARM_UP = 3
_LEAST = 1e-3  # differences of smaller tensors are in parts of this number


@dataclass(frozen=True)
class Row:
    """A network, the network of the comparison in float64, and a batch of its inputs."""

    network: Callable[[], nn.Module]
    exact: Callable[[], nn.Module]
    batch: Callable[[], Tensor]


def _row(network: Callable[[], nn.Module], batch: Callable[[], Tensor]) -> Row:
    return Row(network, network, batch)


ROWS: Mapping[str, Row] = {
    "resnet18": _row(lambda: ResNet18(width=32), lambda: torch.randn(8, 3, 64, 64)),
    "unet": _row(lambda: UNet(16), lambda: torch.randn(4, 3, 64, 64)),
    "mobilenet_v2": _row(MobileNetV2, lambda: torch.randn(16, 3, 64, 64)),
    "mobilenet_v3": Row(
        MobileNetV3,
        lambda: MobileNetV3(hard=exact_hardsigmoid),
        lambda: torch.randn(16, 3, 64, 64),
    ),
    "transformer": _row(
        lambda: Transformer(64, 64, 128, 4, 4, tied=False), lambda: torch.randint(0, 64, (8, 64))
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.from_torch", description=__doc__)
    parser.add_argument("--rows", help="some networks, separated by commas; all without it")
    parser.add_argument("--quick", action="store_true", help="compile nothing")
    parser.add_argument("--seconds", type=float, default=6.0, help="of rounds for each network")
    options = parser.parse_args(arguments)
    names = options.rows.split(",") if options.rows else [*ROWS]
    for name in names:
        if name not in ROWS:
            print(f"error: unknown row {name!r}. {nearest(name, ROWS)}", file=sys.stderr)
            return 2
    columns = ["network", "nodes", "opaque", "loss", "output", "gradients", "states"]
    table = Table(*columns, "graphnet ms", "graphnet", "torch ms", "torch", "ratio")
    progress = Console(stderr=True, markup=False)
    for name in names:
        progress.print(f"{name}: comparing and timing")
        cells = _cells(ROWS[name], options.seconds, compiled=not options.quick)
        progress.print(f"{name}: {cells[6]} ms, torch {cells[8]} ms", highlight=False)
        table.add_row(name, *cells)
    console = Console(markup=False)
    if not console.is_terminal:
        console = Console(width=200, markup=False)
    console.print(table)
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    return 0


def _cells(row: Row, seconds: float, *, compiled: bool) -> list[str]:
    torch.manual_seed(0)
    model, differences = compare(row.exact(), row.batch()[:2])
    mine, other, ratio = time_steps(row.network(), row.batch(), seconds, compiled=compiled)
    return [
        str(len(model.description.layers)),
        str(len(model.opaque)),
        *(f"{difference:.1e}" for difference in differences),
        *mine,
        *other,
        f"{ratio:.2f}",
    ]


def compare(network: nn.Module, x: Tensor) -> tuple[TracedModel, tuple[float, ...]]:
    """Compare a traced model with its module in float64.

    Returns:
        The model, and the largest differences of the loss, of the output in eval mode, of the gradients, and
        of the running statistics, each in parts of the largest value of the tensor.
    """
    network = network.double()
    x = x.double() if x.is_floating_point() else x
    model = gn.from_torch(network, x)
    theirs = copy.deepcopy(network).train()
    with torch.no_grad():
        target = torch.zeros_like(copy.deepcopy(theirs)(x))
        evaluated = copy.deepcopy(network).eval()(x)
    rule = gn.SGD(lr=0.0, momentum=0.9)  # after the first step, the momentum is the gradient
    program = model.compile(x.shape, loss="mse", optimizer=rule, dtype=torch.float64, device="cpu")
    loss = F.mse_loss(theirs(x), target)
    loss.backward()  # type: ignore[no-untyped-call]
    step = _difference(program.step(x, target), loss.detach())
    gradients = max(
        _difference(program.optimizer_state[f"{name}:momentum_buffer"], parameter.grad)
        for path, parameter in theirs.named_parameters()
        if parameter.grad is not None
        for name in [model.torch_names[path]]
    )
    states = max(
        (
            _difference(program.weights[model.torch_names[path]], buffer)
            for path, buffer in theirs.named_buffers()
            if path in model.torch_names
        ),
        default=0.0,
    )
    predicted = model.predict(x, dtype=torch.float64)
    return model, (step, _difference(predicted, evaluated), gradients, states)


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(_LEAST))


def time_steps(
    network: nn.Module, x: Tensor, seconds: float, *, compiled: bool
) -> tuple[tuple[str, str], tuple[str, str], float]:
    """Time training steps.

    Returns:
        The time in ms and the name of graphnet's fastest executor, the same of torch's fastest setting, and
        the time of torch divided by that of graphnet.
    """
    with torch.no_grad():
        target = torch.zeros_like(copy.deepcopy(network).train()(x))
    torch.compiler.reset()  # torch keeps at most eight compiled forms of one function
    runs: dict[str, Run] = {}
    makers: dict[str, Callable[[], Run]] = {}
    for mode in ("eager", "compile") if compiled else ("eager",):
        formats = (False, True) if x.ndim == 4 else (False,)
        for last in formats:
            name = f"torch {mode}{' channels_last' if last else ''}"
            makers[name] = lambda mode=mode, last=last: _torch_step(  # type: ignore[misc]
                network, x, target, mode=mode, last=last
            )
    for executor in ("eager", "inductor") if compiled else ("eager",):
        makers[f"graphnet {executor}"] = lambda executor=executor: _graphnet_step(  # type: ignore[misc]
            network, x, target, executor
        )
    for name, make in makers.items():
        try:
            run = make()
            for _ in range(_WARM_UP):
                run()
        except Exception as error:  # whatever a compiler raises is its reason
            print(f"left out: {name}: {reason(error)}", file=sys.stderr)
            continue
        runs[name] = run
    timings = interleave(runs, device=torch.device("cpu"), budget_s=seconds)
    best = {
        side: min(
            (t for name, t in timings.items() if name.startswith(side)), key=lambda t: t.median_ms
        )
        for side in ("graphnet", "torch")
    }
    mine, other = (
        (f"{timing.median_ms:.3g}", timing.name.partition(" ")[2])
        for timing in (best["graphnet"], best["torch"])
    )
    return mine, other, best["torch"].ratio_to(best["graphnet"])


def _torch_step(network: nn.Module, x: Tensor, target: Tensor, *, mode: str, last: bool) -> Run:
    """A training step of torch: autograd and a fused optimizer."""
    memory_format = torch.channels_last if last else torch.contiguous_format
    module = copy.deepcopy(network).train().to(memory_format=memory_format)  # type: ignore[call-overload]
    x = x.to(memory_format=memory_format) if x.ndim == 4 else x
    optimizer = torch.optim.SGD(module.parameters(), lr=_LR, fused=True)

    def loss_of(x: Tensor) -> Tensor:
        return F.mse_loss(module(x), target)

    run = torch.compile(loss_of, fullgraph=True, dynamic=False) if mode == "compile" else loss_of

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        run(x).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _graphnet_step(network: nn.Module, x: Tensor, target: Tensor, executor: str) -> Run:
    model = gn.from_torch(network, x)
    program = model.compile(
        x.shape, loss="mse", optimizer=gn.SGD(lr=_LR), executor=executor, device="cpu"
    )
    value = program.plan.values[program.plan.inputs[0]]
    if value.memory_format is not None:
        x = x.to(memory_format=value.memory_format)
    packed = program.pack(x, target)
    return lambda: program.step_packed(*packed)


if __name__ == "__main__":
    raise SystemExit(main())
