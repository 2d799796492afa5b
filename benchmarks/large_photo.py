"""A photo of 24 megapixels, denoised by the included network: `python -m benchmarks.large_photo`.

graphnet cuts the photo into tiles that fit into a given memory, together with the photo and its result. One
such tile is denoised by graphnet and by the same network in torch.nn, interleaved in one process, medians:
torch eager and compiled, in each memory format, in float32 and under bfloat16 autocast. The table shows the
seconds for a megapixel of the tile. The tile is small by default, since torch tries each of its kernels many
times when it compiles with max-autotune. With --whole, graphnet then denoises the whole photo once, in the
command's memory.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from graphnet_denoise.commands.options import MEMORY
from torch import Tensor, nn

import graphnet as gn
from benchmarks.measure import reason
from benchmarks.timing import Run, interleave
from benchmarks.torch_networks import Residual, UNet

HEIGHT, WIDTH = 4000, 6000
CPU = torch.device("cpu")
PRECISIONS = ("float32", "bfloat16")


def torch_network() -> nn.Module:
    """The network of recipes/unet-photos.yaml in torch.nn."""
    body = UNet((64, 128, 184), inputs=12, outputs=12)
    return Residual(nn.Sequential(nn.PixelUnshuffle(2), body, nn.PixelShuffle(2)))


def graphnet_runs(model: gn.Model, tile: Tensor) -> dict[str, Run]:
    """A prediction of the tile in each precision."""

    def run(precision: str) -> Run:
        options = gn.CompileOptions(device=CPU, precision=precision)
        return lambda: model.predict(tile, options=options)

    return {f"graphnet, {precision}": run(precision) for precision in PRECISIONS}


def torch_runs(tile: Tensor) -> dict[str, Run]:
    """Inference of the tile by torch in each of its settings."""
    runs: dict[str, Run] = {}
    for compiled, layout, precision in itertools.product(
        (False, True), (torch.contiguous_format, torch.channels_last), PRECISIONS
    ):
        module = torch_network().eval()
        module.to(memory_format=layout)  # type: ignore[call-overload]
        network: Callable[[Tensor], Tensor] = (
            torch.compile(module, mode="max-autotune") if compiled else module
        )
        name = ", ".join(
            (
                "torch compiled" if compiled else "torch eager",
                "channels_last" if layout == torch.channels_last else "contiguous",
                precision,
            )
        )
        runs[name] = _inference(network, tile.contiguous(memory_format=layout), precision)
    return runs


def _inference(network: Callable[[Tensor], Tensor], tile: Tensor, precision: str) -> Run:
    def run() -> Tensor:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            return network(tile)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a model file of the network")
    parser.add_argument("--memory", default="704MiB", help="for the photo, its result and a tile")
    parser.add_argument("--seconds", type=float, default=120.0, help="of rounds")
    parser.add_argument("--whole", action="store_true", help="also denoise the whole photo")
    given = parser.parse_args()
    model = gn.load(given.model)
    tiling = model.tiling((1, 3, HEIGHT, WIDTH), device=CPU, memory=given.memory)
    shape = tiling.plan.values[tiling.plan.inputs[0]].spec.shape
    tile = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    runs = graphnet_runs(model, tile)
    for name, run in torch_runs(tile).items():
        print(f"preparing {name}", file=sys.stderr)
        try:
            run()
        except Exception as error:  # a setting that cannot run is left out, and said
            print(f"{name}: left out, {reason(error)}")
        else:
            runs[name] = run
    timings = interleave(runs, device=CPU, budget_s=given.seconds, rounds=(3, 20))
    megapixels = tile.shape[2] * tile.shape[3] / 1e6
    ours = min(
        (timing for name, timing in timings.items() if name.startswith("graphnet")),
        key=lambda timing: timing.median_ms,
    )
    print(f"tiles of {tuple(tile.shape)} in {given.memory}, {torch.get_num_threads()} threads")
    print("| contender | s / megapixel | relative to graphnet's best |")
    print("|---|---:|---:|")
    for name, timing in sorted(timings.items(), key=lambda item: item[1].median_ms):
        per_megapixel = timing.median_ms / 1e3 / megapixels
        print(f"| {name} | {per_megapixel:.3f} | {timing.ratio_to(ours):.2f} |")
    if given.whole:
        photo = torch.rand(1, 3, HEIGHT, WIDTH)
        wall, processor = time.perf_counter(), time.process_time()
        model.predict(photo, device=CPU, memory=MEMORY, precision="auto")
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"the whole photo: {wall:.1f} s, {processor:.1f} s of processor time, {peak:.2f} GiB at most"
        )


if __name__ == "__main__":
    main()
