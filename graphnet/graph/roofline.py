"""Machine: the few numbers of a device that say how long a call must take at least.

    seconds = max(bytes moved / bandwidth, operations / ceiling) + launch

(the roofline model, Williams, Waterman & Patterson 2009). `measure.measure` finds the numbers of a
device, `save` and `load` keep them in a cache folder by device and versions. What is measured is only
shown, beside measured times: whatever *decides* about a plan takes the numbers in STATED, so that equal
descriptions give equal plans on every machine, measured or not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from graphnet.errors import MachineError
from graphnet.graph.cost import Cost, call_cost
from graphnet.graph.ir import Call, Value
from graphnet.sdk import dtype_name
from graphnet.system import device_name, write_text


@dataclass(frozen=True)
class Machine:
    """What a device does at best, in bytes and floating-point operations per second.

    `flops` has a ceiling for each dtype by name, with torch's setting of TF32 as it was; `launch_s` is
    what calling one operator costs. `measured_on` is when the numbers were measured, empty if never.
    """

    device: str
    torch_version: str
    bandwidth: float
    flops: Mapping[str, float]
    launch_s: float
    measured_on: str = ""

    def seconds(self, cost: Cost, dtype: torch.dtype) -> float:
        """The time that a call of this cost takes at least, computing in `dtype`."""
        moving = cost.bytes_moved / self.bandwidth
        return max(moving, cost.flops / self.ceiling(dtype)) + self.launch_s

    def ceiling(self, dtype: torch.dtype) -> float:
        """The operations per second in a dtype; for one that has no number, that of float32."""
        return self.flops.get(dtype_name(dtype), self.flops["float32"])

    def __str__(self) -> str:
        ceilings = ", ".join(
            f"{value / 1e9:.0f} GFLOP/s {name}" for name, value in self.flops.items()
        )
        return (
            f"{self.device}: {self.bandwidth / 1e9:.1f} GB/s, {ceilings}, "
            f"{self.launch_s * 1e6:.1f} us a call"
        )


# Of the order of two cores of a server, and of one data-centre GPU. Only their proportions decide.
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
    """The stated numbers for this kind of device; an accelerator without its own has CUDA's."""
    return STATED.get(device.type, STATED["cuda"])


def predicted_seconds(call: Call, values: Mapping[str, Value]) -> float:
    """The time of a call by the stated numbers of its device: what passes weigh calls with."""
    reads = [values[name].spec for name in (*call.reads(), *call.makes())]
    device = reads[0].device if reads else torch.device("cpu")
    return stated_machine(device).seconds(call_cost(call, values), compute_dtype(call, values))


def compute_dtype(call: Call, values: Mapping[str, Value]) -> torch.dtype:
    """The dtype that a call computes in: that of most elements among its floating arguments."""
    elements: dict[torch.dtype, int] = {}
    for name in call.reads():
        spec = values[name].spec
        if spec.dtype.is_floating_point:
            elements[spec.dtype] = elements.get(spec.dtype, 0) + spec.numel
    return max(elements, key=lambda dtype: elements[dtype], default=torch.float32)


def machine_path(device: torch.device, folder: Path) -> Path:
    """The file in a cache folder for this device and these versions."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{device_name(device)} torch {torch.__version__}".lower())
    return folder / f"machine-{slug.strip('-')}.json"


def save_machine(machine: Machine, path: Path) -> None:
    """Write a measurement; a reader sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_text(path, json.dumps(machine_data(machine), indent=2) + "\n")


def load_machine(path: Path) -> Machine | None:
    """A measurement, or None where there is none. Raises MachineError for a file that is none."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        data = json.loads(text)
        numbers = [data["bandwidth"], data["launch_s"], *data["flops"].values()]
        fine = "float32" in data["flops"] and all(number > 0 for number in numbers)
        machine = Machine(**data)
    except (ValueError, TypeError, KeyError, AttributeError):
        fine = False
    if not fine:
        raise MachineError(
            f"{path}: expected the numbers of a measured machine, found something else. "
            f"`graphnet machine` measures again and replaces it."
        )
    return machine


def machine_data(machine: Machine) -> dict[str, Any]:
    """A machine as plain data, for JSON."""
    return asdict(machine)
