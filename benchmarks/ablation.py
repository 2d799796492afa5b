"""Time a training step with and without one part of graphnet: `python -m benchmarks.ablation`.

For each workload and precision, the eager step with everything is timed in turn with one step for each
part that is left out. A part pays where the ratio is above 1. A part that changes no call is not timed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import graphnet_cpu.plugin
import torch

import graphnet as gn
from benchmarks.graphnet_side import packed_step, program
from benchmarks.timing import interleave
from benchmarks.workloads import WORKLOADS, Task, Workload
from graphnet.sdk import Kernel, Register, Site, load_registry

CPU = torch.device("cpu")
PRECISIONS = ("float32", "bfloat16")
Taken = Callable[[str, type[Kernel]], type[Kernel] | None]


class _Chosen:
    """The plugin graphnet-cpu with only those kernels that `take` returns."""

    GRAPHNET_CONTRACT = graphnet_cpu.plugin.GRAPHNET_CONTRACT

    def __init__(self, take: Taken) -> None:
        self.take = take

    @gn.hookimpl
    def graphnet_kernels(self, register: Register) -> None:
        def register_taken(name: str, value: type[Kernel], *, version: int = 1) -> None:
            if (taken := self.take(name, value)) is not None:
                register(name, taken, version=version)

        graphnet_cpu.plugin.graphnet_kernels(register_taken)


def _without(namespace: str) -> Taken:
    return lambda name, kernel: None if name.startswith(f"{namespace}/") else kernel


def _winograd_in_float32_only(name: str, kernel: type[Kernel]) -> type[Kernel] | None:
    if not name.startswith("winograd/"):
        return kernel

    class InFloat32(kernel):  # type: ignore[misc, valid-type]
        @classmethod
        def match(cls, site: Site) -> Kernel | None:
            x = site.specs["x"]
            return None if x is None or x.dtype == torch.bfloat16 else kernel.match(site)

    return InFloat32


PARTS: Mapping[str, Taken] = {
    "winograd": _without("winograd"),
    "winograd in bfloat16": _winograd_in_float32_only,
    "gemm": _without("gemm"),
    "strided": _without("strided"),
}
"""By part: the kernels that are left when it is left out."""


def build(workload: Workload, precision: str, take: Taken) -> gn.Program:
    """The training step of a workload with the kernels that `take` leaves."""
    registry = load_registry(plugins=[_Chosen(take)], entry_points=False)
    return program(workload, "eager", precision, CPU, registry=registry)


def titles(made: gn.Program) -> list[str]:
    """What each step of the plan calls."""
    return [one.call.title for one in made.plan.steps]


def measure(workload: Workload, precision: str, budget_s: float) -> list[dict[str, Any]]:
    """The ratio of each part on a workload."""
    whole = build(workload, precision, lambda _name, kernel: kernel)
    others = {part: build(workload, precision, take) for part, take in PARTS.items()}
    others = {part: made for part, made in others.items() if titles(made) != titles(whole)}
    runs = {part: packed_step(made, workload, CPU) for part, made in {"": whole, **others}.items()}
    for run in runs.values():
        run(), run()
    timings = interleave(runs, device=CPU, budget_s=budget_s)
    return [
        {
            "workload": workload.name,
            "precision": precision,
            "part": part,
            "with_ms": timings[""].median_ms,
            "without_ms": timings[part].median_ms,
            "ratio": timings[part].ratio_to(timings[""]),
        }
        for part in others
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", help="some, separated by commas; all trainings without it")
    parser.add_argument("--seconds", type=float, default=20.0, help="of rounds for each")
    parser.add_argument("--json", type=Path, help="write the medians here")
    given = parser.parse_args()
    chosen = given.workloads.split(",") if given.workloads else None
    rows: list[dict[str, Any]] = []
    print("| workload | precision | part | with | without | without / with |")
    print("|---|---|---|---:|---:|---:|")
    for workload in WORKLOADS:
        if workload.task is not Task.TRAIN or "cpu" not in workload.devices:
            continue
        if chosen and workload.name not in chosen:
            continue
        for precision in PRECISIONS:
            if precision not in workload.precisions:
                continue
            for row in measure(workload, precision, given.seconds):
                rows.append(row)
                print(
                    f"| {row['workload']} | {precision} | {row['part']} | {row['with_ms']:.2f} ms "
                    f"| {row['without_ms']:.2f} ms | {row['ratio']:.3f} |",
                    flush=True,
                )
    if given.json:
        given.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
