"""The peak that a plan predicts, against the allocator's own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

import graphnet as gn
from benchmarks import memory
from graphnet.graph.dispatch import peak_bytes_of

FOLDER = Path(__file__).parents[2] / "examples" / "denoisers"
# cuBLAS and cuDNN take room for their own work from torch's allocator, as much as they like.
WORKSPACE_BYTES = 128 * 2**20
LARGER = 4  # times the batch, on a GPU, so that this is not most of it


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "precision"),
    [
        ("seed", (64, 3, 64, 64), "float32"),
        ("seed", (64, 3, 64, 64), "bfloat16"),
        ("unet", (8, 3, 64, 64), "float32"),
        ("unet", (8, 3, 64, 64), "bfloat16"),
        ("unet", (2, 3, 64, 64), "float16"),
        ("unet", (2, 3, 64, 64), "float64"),
        ("nafnet", (4, 3, 64, 64), "float32"),
        ("nafnet", (4, 3, 64, 64), "bfloat16"),
    ],
)
def test_a_training_step_takes_as_much_memory_as_predicted(
    name: str, shape: tuple[int, ...], precision: str, device: torch.device
) -> None:
    dtype = torch.float64 if precision == "float64" else torch.float32
    on_cuda = device.type == "cuda"
    if on_cuda and precision in ("float16", "float64"):
        pytest.skip("these are for torch's own convolutions, on a CPU")
    shape = (LARGER * shape[0] if on_cuda else shape[0], *shape[1:])
    before = torch.cuda.memory_allocated(device) if on_cuda else memory.alive_bytes()
    program = gn.load(FOLDER / f"{name}.yaml").compile(
        shape,
        loss="mse",
        optimizer=gn.SGD(lr=0.01),
        device=device,
        dtype=dtype,
        precision=precision,
    )
    x = torch.rand(shape, device=device, dtype=dtype)
    images = program.pack(x, x)
    del x
    peak = memory.peak_bytes(lambda: program.step_packed(*images), device) - before
    predicted = program.plan.peak_bytes
    assert 0.95 * peak - (WORKSPACE_BYTES if on_cuda else 0) <= predicted <= 1.05 * peak


_aten = torch.ops.aten
_WAYS = torch._C._ConvBackend


@pytest.mark.parametrize("groups", [1, 2, 16])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "transposed", "way"),
    [
        (3, 1, 1, 1, False, _WAYS.Slow2d),
        (3, 2, 1, 1, False, _WAYS.Slow2d),
        (1, 1, 0, 1, False, _WAYS.Slow2d),
        (1, 2, 0, 1, False, _WAYS.Slow2d),
        (3, 1, 1, 2, False, _WAYS.SlowDilated2d),
        (1, 1, 0, 2, False, _WAYS.SlowDilated2d),
        (3, 2, 1, 1, True, _WAYS.SlowTranspose2d),
        (1, 1, 0, 1, True, _WAYS.SlowTranspose2d),
        (3, 2, 1, 2, True, _WAYS.SlowTranspose2d),
    ],
)
def test_predicted_peak_includes_the_scratch_of_torchs_convolutions(
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
    way: Any,
    groups: int,
) -> None:
    setting = ([stride] * 2, [padding] * 2, [dilation] * 2, transposed, [0, 0], groups)
    x = torch.rand(3, 16, 16, 16, dtype=torch.float64)
    sides = (16, 32 // groups) if transposed else (32, 16 // groups)
    weight = torch.rand(*sides, kernel, kernel, dtype=torch.float64)
    x, weight = (one.contiguous(memory_format=torch.channels_last) for one in (x, weight))
    bias = torch.rand(32, dtype=torch.float64)
    assert torch._C._select_conv_backend(x, weight, None, *setting, None) == way
    grad = torch.rand_like(_aten.convolution(x, weight, bias, *setting))

    def calls(*given: torch.Tensor) -> list[Callable[[], Any]]:
        x, weight, bias, grad = given
        rest = (x, weight, [32], *setting)
        return [
            lambda: _aten.convolution(x, weight, bias, *setting),
            lambda: _aten.convolution_backward(grad, *rest, [True, True, True]),
            lambda: _aten.convolution_backward(grad, *rest, [True, False, False]),
            lambda: _aten.convolution_backward(grad, *rest, [False, True, False]),
        ]

    given = (x, weight, bias, grad)
    planned = calls(*(tensor.to("meta") for tensor in given))
    predicted = [peak_bytes_of(call, device_type="cpu") for call in planned]
    taken = allocated_bytes(calls(*given))
    # Those for dilation make the gradient of a bias twice, which is not worth a rule.
    beyond = bias.nbytes if way == _WAYS.SlowDilated2d else 0
    assert taken[1] - beyond <= predicted.pop(1) <= taken.pop(1)
    assert predicted == taken


def allocated_bytes(calls: list[Callable[[], Any]]) -> list[int]:
    """The most bytes that each of some calls takes from torch's allocator, its results included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
        for number, call in enumerate(calls):
            with record_function(f"call {number}"):
                call()
    events = found.profiler.kineto_results.events()
    began = sorted(event.start_ns() for event in events if event.name().startswith("call "))
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    peaks = []
    for start, end in itertools.pairwise([*began, math.inf]):
        during = (size for time_ns, size in changes if start <= time_ns < end)
        peaks.append(max(itertools.accumulate(during, initial=0)))
    return peaks


def test_scratch_of_cpu_convolutions_is_not_predicted_for_a_gpu() -> None:
    x, weight = torch.empty(2, 3, 8, 8).double(), torch.empty(5, 3, 3, 3).double()
    setting = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)

    def convolution() -> Any:
        return _aten.convolution(x.to("meta"), weight.to("meta"), None, *setting)

    columns_bytes = 8 * 2 * 3 * 3 * 3 * 8 * 8
    alone = peak_bytes_of(convolution, device_type="cuda")
    assert peak_bytes_of(convolution, device_type="cpu") == alone + columns_bytes
