"""Devices: what a step may do there, checked on any machine by watching every operation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from graphnet.builtin import SGD, Adam
from graphnet.errors import DeviceError, InputError
from graphnet.model import Model
from graphnet.model.slots import packed
from graphnet.sdk import Optimizer, load_registry
from graphnet.system import resolve_device
from tests.support.models import SEED, Acme

# What reads a value back to the host, or waits for the device to know a shape.
SYNCHRONISING = {
    "aten._local_scalar_dense",
    "aten.item",
    "aten.nonzero",
    "aten.masked_select",
    "aten.equal",
    "aten.is_nonzero",
    "aten._to_copy",  # only where the device changes, see below
    "aten.unique2",
}


class Watch(TorchDispatchMode):
    """Records each operation's name and the devices of the tensors that it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []
        self.devices: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).rpartition(".")[0]
        before = {a.device for a in args if isinstance(a, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        made = list(result if isinstance(result, (tuple, list)) else (result,))
        after = {r.device for r in made if isinstance(r, torch.Tensor)}
        if name != "aten._to_copy" or before != after:
            self.operations.append(name)
        self.devices |= {str(device) for device in after}
        return result


@pytest.mark.parametrize(
    "optimizer", [SGD(lr=0.1, momentum=0.9), Adam(lr=0.1)], ids=["sgd", "adam"]
)
@pytest.mark.parametrize("kernels", ["reference", "auto"])
def test_a_step_neither_synchronises_nor_leaves_its_device(
    device: torch.device, kernels: str, optimizer: Optimizer
) -> None:
    registry = load_registry(plugins=[Acme()], entry_points=False)
    layers = [*SEED["layers"], "acme/center", "acme/dropout", "acme/scale"]
    model = Model({**SEED, "layers": layers}, registry=registry)
    program = model.compile(
        (2, 3, 8, 8), loss="mse", optimizer=optimizer, device=device, kernels=kernels
    )
    x = torch.rand(2, 3, 8, 8, device=device)
    program.step(x, x)
    with Watch() as watch:
        program.lr = 0.05  # set between steps, as a schedule does
        program.step(x, x)
    assert len(watch.operations) > 20
    assert set(watch.operations) & SYNCHRONISING == set()
    assert watch.devices == {str(x.device)}


def test_the_watch_sees_a_synchronisation() -> None:
    with Watch() as watch:
        float(torch.ones(()) + 1)
    assert set(watch.operations) & SYNCHRONISING


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_asking_for_a_missing_device_is_an_error() -> None:
    with pytest.raises(DeviceError, match="has no CUDA devices. Give 'cpu' or 'auto' instead"):
        resolve_device("cuda")
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "tpu:3", "mps", "meta"])
def test_unknown_device_is_an_error(name: str) -> None:
    with pytest.raises(DeviceError, match=r"unknown device|not supported"):
        resolve_device(name)


def test_step_and_predictions_move_their_inputs_to_the_device(device: torch.device) -> None:
    model, x = Model(SEED), torch.rand(2, 3, 8, 8)
    program = model.compile((2, 3, 8, 8), loss="mse", optimizer=SGD(lr=1.0), device=device)
    assert program.device == device
    assert program.step(x, x.to(device)).device == device
    assert all(tensor.device == device for tensor in program.pack(x, x))
    assert program.predict(x).device == device
    tiled = model.predict(torch.rand(1, 3, 64, 64), device=device, memory="128KiB")
    assert tiled.device == model.predict(x, device=device).device == device


def test_an_input_is_moved_before_it_is_packed() -> None:
    (name,) = (plan := Model(SEED).plan((2, 3, 8, 8))).inputs
    value = plan.values[name]
    elsewhere = replace(value, spec=value.spec.on(torch.device("meta")))
    for one in (value, elsewhere):
        tensor = packed(torch.rand(2, 3, 8, 8), one)
        assert (tuple(tensor.shape), tensor.device) == (one.spec.shape, one.spec.device)


def test_step_refuses_tensors_that_do_not_fit() -> None:
    program = Model(SEED).compile((2, 3, 8, 8), loss="mse", optimizer=SGD(lr=1.0), device="cpu")
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(InputError, match=r"expected 2 tensors \(input, target\), got 1"):
        program.step(x)
    with pytest.raises(InputError, match=r"input: expected 2x3x8x8 float32, got 1x3x8x8 float32"):
        program.step(x[:1], x)
    with pytest.raises(
        InputError, match=r"target: expected .* got 2x3x8x8 uint8. Convert .* / 255"
    ):
        program.step(x, (x * 255).byte())
