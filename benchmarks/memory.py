"""Peak memory of a contender, in this process alone: `python -m benchmarks.memory WORKLOAD CONTENDER`.

The largest number of bytes in allocated tensors during a warm step, on the CPU as follows, for every
contender alike. A step runs under torch's profiler, whose memory events are every allocation and release
by torch's allocator. After it, the storages of all tensors that are alive are added up, each once -
weights, optimizer states, inputs, targets, gradients - and from there the events lead back to what was
allocated at every moment of the step. Work buffers that a library allocates for itself are not tensors
and not seen. On CUDA: torch.cuda.max_memory_allocated over a warm step, workspaces of cuBLAS and cuDNN
included; of what is captured, which replays without the allocator, from before it is built until it
replays: that counts what is compared or warmed up on the way too.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks import contenders
from benchmarks.timing import Run, settle
from benchmarks.workloads import WORKLOADS

_WARM_UP = 3
_MEASURED = "the measured step"


def peak_bytes(run: Run, device: torch.device) -> int:
    """The peak of allocated tensor bytes during a warm call of `run`; see the module's text."""
    for _ in range(_WARM_UP):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        peak: int = torch.cuda.max_memory_allocated(device)
        return peak
    # Without acc_events torch 2.11 warns.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
        for _ in range(_WARM_UP):
            run()
        with record_function(_MEASURED):
            run()
        after = alive_bytes()
    events = found.profiler.kineto_results.events()
    (began,) = [event.start_ns() for event in events if event.name() == _MEASURED]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    during = [change for time_ns, change in changes if time_ns >= began]
    most: int = max(itertools.accumulate(during, initial=after - sum(during)))
    return most


def captured_peak_bytes(build: Callable[[], Run], device: torch.device) -> int:
    """The peak on CUDA from before a contender is built until it replays."""
    torch.cuda.reset_peak_memory_stats(device)
    run = build()
    for _ in range(_WARM_UP):
        run()
    torch.cuda.synchronize(device)
    peak: int = torch.cuda.max_memory_allocated(device)
    return peak


def alive_bytes() -> int:
    """The bytes in the storages of all CPU tensors that Python can reach, each storage once."""
    gc.collect()
    found = list(_alive())
    found += [tensor.grad for tensor in found if tensor.is_leaf and tensor.grad is not None]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}
    return sum(storages.values())


def _alive() -> Iterator[Tensor]:
    for thing in gc.get_objects():
        if (
            issubclass(type(thing), Tensor)
            and not isinstance(thing, FakeTensor)
            and thing.layout == torch.strided
            and thing.device.type == "cpu"
        ):
            yield thing


def main() -> None:
    name, wanted, where = sys.argv[1:]
    device = torch.device(where)
    workload = next(workload for workload in WORKLOADS if workload.name == name)
    found = next(c for c in contenders.of(workload, device) if c.name == wanted)
    settle(device)
    torch.backends.cudnn.benchmark = False  # trying kernels takes more memory than running one
    captured = found.captured and device.type == "cuda"
    peak = (
        captured_peak_bytes(found.build, device) if captured else peak_bytes(found.build(), device)
    )
    print(json.dumps({"peak_bytes": peak}))


if __name__ == "__main__":
    main()
