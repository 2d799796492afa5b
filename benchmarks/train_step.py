"""Time one training step of the paper's network: `python -m benchmarks.train_step [--json FILE]`.

32 x 3 x 32 x 32 pairs in float32, mean squared error, SGD. Opponents: torch.nn + autograd + SGD as
most people write it, the same in channels_last, and torch.compile with channels_last and bf16
autocast; and graphnet's own reference kernels. Ratios are medians of paired rounds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import graphnet as gn
from benchmarks.timing import interleave, machine

MODEL = Path(__file__).parent.parent / "examples" / "denoisers" / "seed.yaml"
SHAPE = (32, 3, 32, 32)
LR = 10.0


def torch_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 2, 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 256, 2, 2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(256, 64, 2, 2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(64, 3, 2, 2),
        nn.Sigmoid(),
    )


def torch_step(
    x: torch.Tensor, target: torch.Tensor, *, channels_last: bool, autocast: bool, compiled: bool
) -> Callable[[], object]:
    """One step of torch.nn, autograd and SGD with these settings."""
    network = torch_network().to(x.device)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
        target = target.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR)
    criterion = nn.MSELoss()

    def loss_of(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
            return criterion(network(x), target)

    run = torch.compile(loss_of, fullgraph=True) if compiled else loss_of

    def step() -> object:
        optimizer.zero_grad(set_to_none=True)
        loss = run(x, target)
        loss.backward()
        optimizer.step()
        return loss

    return step


def graphnet_step(x: torch.Tensor, target: torch.Tensor, *, kernels: str) -> Callable[[], object]:
    program = gn.load(MODEL).compile(
        SHAPE, loss="mse", optimizer=gn.SGD(lr=LR), kernels=kernels, device=x.device
    )
    value = program.plan.values[program.plan.inputs[0]]
    if value.memory_format is not None:
        x = x.to(memory_format=value.memory_format)
        target = target.to(memory_format=value.memory_format)
    return lambda: program.step(x, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the medians here")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args()
    device = torch.device(options.device)
    generator = torch.Generator().manual_seed(0)
    x, target = (torch.rand(SHAPE, generator=generator).to(device) for _ in range(2))
    plain = {"channels_last": False, "autocast": False, "compiled": False}
    contenders = {
        "graphnet, eager, aten kernels": graphnet_step(x, target, kernels="aten"),
        "graphnet, eager, reference kernels": graphnet_step(x, target, kernels="reference"),
        "torch.nn + autograd": torch_step(x, target, **plain),
        "torch.nn + autograd, channels_last": torch_step(
            x, target, **{**plain, "channels_last": True}
        ),
    }
    if not options.no_compile:
        contenders["torch.compile, channels_last, bf16 autocast"] = torch_step(
            x, target, channels_last=True, autocast=True, compiled=True
        )
    timings = interleave(contenders, rounds=options.rounds, repeats=5, device=device)
    base = timings["torch.nn + autograd, channels_last"]
    facts = machine(device)
    print("  ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"training step, {'x'.join(map(str, SHAPE))}, {options.rounds} rounds of 5\n")
    print("| | ms | ratio to torch.nn, channels_last |\n|---|---|---|")
    for timing in timings.values():
        print(f"| {timing.name} | {timing.median_ms:.2f} | {timing.ratio_to(base):.3f} |")
    if options.json:
        rows = {
            t.name: {"median_ms": t.median_ms, "ratio": t.ratio_to(base)} for t in timings.values()
        }
        options.json.write_text(json.dumps({"machine": facts, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
