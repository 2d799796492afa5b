"""Roofline: predict the least time of a call from a few numbers of a device.

    seconds = max(bytes moved / bandwidth, operations / ceiling) + launch

(the roofline model, Williams, Waterman & Patterson 2009). graphnet.inspection measures the numbers of a
device; `save_machine` and `load_machine` keep them in a cache folder by device and version. Measured numbers
are only shown beside measured times. Decisions about a plan use the numbers in STATED, so equal descriptions
give equal plans on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from graphnet.graph.cost import Cost, call_cost
from graphnet.graph.ir import Call, Value
from graphnet.graph.measured import file_name, load_numbers, save_numbers
from graphnet.sdk import dtype_name
from graphnet.system import device_name


@dataclass(frozen=True)
class Machine:
    """The best rates of a device, in bytes and floating-point operations per second.

    `flops` has the rate for each dtype by name, with torch's setting of TF32 at that time. `launch_s` is the
    time to call one operator. `measured_on` is the date of the measurement, empty for stated numbers.
    """

    device: str
    torch_version: str
    bandwidth: float
    flops: Mapping[str, float]
    launch_s: float
    measured_on: str = ""

    def seconds(self, cost: Cost, dtype: torch.dtype) -> float:
        """The least time of a call of this cost that computes in `dtype`."""
        moving = cost.bytes_moved / self.bandwidth
        return max(moving, cost.flops / self.ceiling(dtype)) + self.launch_s

    def ceiling(self, dtype: torch.dtype) -> float:
        """The operations per second in a dtype; for a dtype without a number, those in float32."""
        return self.flops.get(dtype_name(dtype), self.flops["float32"])

    def __str__(self) -> str:
        ceilings = ", ".join(
            f"{value / 1e9:.0f} GFLOP/s {name}" for name, value in self.flops.items()
        )
        return (
            f"{self.device}: {self.bandwidth / 1e9:.1f} GB/s, {ceilings}, "
            f"{self.launch_s * 1e6:.1f} us a call"
        )


# About the rates of two server cores, and of one data-centre GPU. Only their ratios matter.
STATED: Mapping[str, Machine] = MappingProxyType(
    {
        "cpu": Machine(
            device="a CPU, by stated numbers",
            torch_version="",
            bandwidth=5e10,
            flops={"float32": 2e11, "bfloat16": 4e11, "float16": 4e11, "float64": 1e11},
            launch_s=1e-6,
        ),
        "cuda": Machine(
            device="a GPU, by stated numbers",
            torch_version="",
            bandwidth=2e12,
            flops={"float32": 5e13, "bfloat16": 5e14, "float16": 5e14, "float64": 5e13},
            launch_s=5e-6,
        ),
    }
)


def stated_machine(device: torch.device) -> Machine:
    """The stated numbers for this kind of device; those of CUDA for an unknown accelerator."""
    return STATED.get(device.type, STATED["cuda"])


def predicted_seconds(call: Call, values: Mapping[str, Value]) -> float:
    """The time of a call by the stated numbers of its device; passes compare calls by it."""
    reads = [values[name].spec for name in (*call.reads(), *call.makes())]
    device = reads[0].device if reads else torch.device("cpu")
    return stated_machine(device).seconds(call_cost(call, values), compute_dtype(call, values))


def compute_dtype(call: Call, values: Mapping[str, Value]) -> torch.dtype:
    """The dtype in which a call computes: the dtype of most elements of its floating arguments."""
    elements: dict[torch.dtype, int] = {}
    for name in call.reads():
        spec = values[name].spec
        if spec.dtype.is_floating_point:
            elements[spec.dtype] = elements.get(spec.dtype, 0) + spec.numel
    return max(elements, key=lambda dtype: elements[dtype], default=torch.float32)


def machine_path(device: torch.device, folder: Path) -> Path:
    """The file in a cache folder for this device and these versions."""
    return folder / file_name("machine", f"{device_name(device)} torch {torch.__version__}")


def save_machine(machine: Machine, path: Path) -> None:
    """Write a measurement in one step: a reader sees the old file or the new one."""
    save_numbers(machine, path)


def load_machine(path: Path) -> Machine | None:
    """Read a measurement; None if the file does not exist. Raises MachineError if it has other content."""
    return load_numbers(path, Machine, _fits, what="machine", command="graphnet machine")


def _fits(machine: Machine) -> bool:
    numbers = [machine.bandwidth, machine.launch_s, *machine.flops.values()]
    return "float32" in machine.flops and all(number > 0 for number in numbers)


def machine_data(machine: Machine) -> dict[str, Any]:
    """A machine as plain data, for JSON."""
    return asdict(machine)
