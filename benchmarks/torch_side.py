"""Torch at its best: eager and compiled, N C H W and channels_last, float32 and bfloat16 autocast.

What holds for all: inputs and weights lie in the setting's memory format beforehand, gradients are set
to None, autocast keeps its weight cache, SGD and Adam are the fused ones (which torch.compile does not
improve on), the loss is returned as a tensor. Compiled means forward and loss as one graph with its
backward, fullgraph and static shapes; for inference with frozen, prepacked weights too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.networks import Network
from benchmarks.timing import Run
from benchmarks.workloads import Contender, Side, Task, Workload

PLAIN = "eager"
_TUNED = "compile max-autotune"
_REPLAYED = "compile reduce-overhead"
_MODES = ("eager", "compile", _TUNED)
_OPTIONS = {_TUNED: "max-autotune", _REPLAYED: "reduce-overhead"}


@dataclass(frozen=True)
class Setting:
    """How torch runs a network."""

    mode: str
    channels_last: bool
    precision: str
    frozen: bool = False
    captured: bool = False
    steps: int = 1

    def __str__(self) -> str:
        words = [self.mode, *(["frozen"] if self.frozen else [])]
        words += ["in a CUDA graph"] if self.captured else []
        words += [f"of {self.steps} steps"] if self.steps > 1 else []
        return " ".join([*words, *(["channels_last"] if self.channels_last else [])])

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


def settings(workload: Workload, device: torch.device) -> Iterator[Setting]:
    """Every setting that is tried for a workload, those that take longest to compile last."""
    return _on_cuda(workload) if device.type == "cuda" else _on_cpu(workload)


def _on_cuda(workload: Workload) -> Iterator[Setting]:
    """Few: bfloat16 in channels_last, as tensor cores want it, float32 in N C H W, of which Inductor moves
    what it likes. A training step, and several steps, also run as one CUDA graph with their optimizer."""
    counts = dict.fromkeys((1, workload.together)) if workload.task is Task.TRAIN else ()
    for precision in workload.precisions:
        last = precision == "bfloat16"
        for mode in ("eager", "compile"):
            yield Setting(mode, last, precision)
            for steps in counts:
                yield Setting(mode, last, precision, captured=True, steps=steps)
        yield Setting(_REPLAYED, last, precision)
        yield Setting(_TUNED, last, precision)


def _on_cpu(workload: Workload) -> Iterator[Setting]:
    """All; frozen and tuned inference in channels_last only."""
    for precision in workload.precisions:
        for mode in _MODES:
            if workload.task is Task.TRAIN or mode != _TUNED:
                yield Setting(mode, False, precision)
            yield Setting(mode, True, precision)
        if workload.task is Task.INFER:
            yield Setting("compile", True, precision, frozen=True)


def contenders(workload: Workload, device: torch.device) -> list[Contender]:
    """Torch's contenders for a workload."""
    build = training if workload.task is Task.TRAIN else inference

    def builder(setting: Setting) -> Callable[[], Run]:
        return lambda: build(workload, setting, device)

    return [
        Contender(
            Side.TORCH,
            str(setting),
            setting.precision,
            builder(setting),
            compiled=setting.mode != "eager",
            captured=setting.captured or setting.mode in _OPTIONS,
            steps=setting.steps,
        )
        for setting in settings(workload, device)
    ]


def training(workload: Workload, setting: Setting, device: torch.device) -> Run:
    """One training step of torch.nn, autograd and a fused optimizer."""
    network = _module(workload.network, setting, device).train()
    x, target = (image.to(memory_format=setting.memory_format) for image in workload.images(device))
    optimizer = optimizer_of(workload.network, network, capturable=setting.captured)

    def loss_of(x: Tensor, target: Tensor) -> Tensor:
        with _autocast(setting, device):
            return nn.functional.mse_loss(network(x), target)

    run = _compiled(loss_of, setting)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss: Tensor = run(x, target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return _captured(step, setting.steps) if setting.captured else step


def _captured(step: Callable[[], Tensor], steps: int) -> Callable[[], Tensor]:
    """Whole steps, optimizer included, as one CUDA graph, made as torch's notes on CUDA graphs say."""
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(steps):
            loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def inference(workload: Workload, setting: Setting, device: torch.device) -> Run:
    """One forward pass; the output is float32, as graphnet's is."""
    network = _module(workload.network, setting, device).eval().requires_grad_(False)
    x = workload.images(device)[0].to(memory_format=setting.memory_format)

    def forward(x: Tensor) -> Tensor:
        with _autocast(setting, device):
            y: Tensor = network(x).float()
        return y

    run = _compiled(forward, setting)

    def predict() -> Tensor:
        with torch.no_grad():
            return run(x)

    return predict


def optimizer_of(
    network: Network, module: nn.Module, *, capturable: bool = False
) -> torch.optim.Optimizer:
    """The network's optimizer, in torch's fused form; SGD can be captured as it is."""
    if network.optimizer == "sgd":
        return torch.optim.SGD(module.parameters(), lr=network.lr, fused=True)
    return torch.optim.Adam(module.parameters(), lr=network.lr, fused=True, capturable=capturable)


def _module(network: Network, setting: Setting, device: torch.device) -> nn.Module:
    return network.module().to(device=device, memory_format=setting.memory_format)  # type: ignore[call-overload, no-any-return]


def _autocast(setting: Setting, device: torch.device) -> torch.autocast:
    return torch.autocast(
        device.type, torch.bfloat16, enabled=setting.precision == "bfloat16", cache_enabled=True
    )


def _compiled(function: Callable[..., Tensor], setting: Setting) -> Callable[..., Tensor]:
    if setting.mode == "eager":
        return function
    options: dict[str, Any] = {}
    if setting.mode in _OPTIONS:
        options = dict(torch._inductor.list_mode_options(_OPTIONS[setting.mode]))
    if setting.frozen:
        options["freezing"] = True
    compiled: Callable[..., Tensor] = torch.compile(
        _own_code(function), fullgraph=True, dynamic=False, options=options
    )
    return compiled


def _own_code(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function with a code object of its own.

    Torch keeps what it compiled by code object: settings that share one would go through each other's
    guards at every call, and all but the first eight would be refused.
    """
    assert isinstance(function, FunctionType)
    return FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
