"""Network: predict how long processes exchange values, from a few numbers of a network.

With p processes, messages that take a seconds without content, and b bytes a second, n bytes take
    all-reduce       2 ceil(log2 p) a + 2 (p - 1) / p  n / b,
    reduce-scatter, all-gather  ceil(log2 p) a + (p - 1) / p  n / b
(Thakur, Rabenseifner & Gropp 2005, "Optimization of collective communication operations in MPICH", sections 4
and 5). graphnet.inspection measures the numbers of a network. No decision about a plan uses them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from graphnet.graph.ir import Call, Value
from graphnet.graph.measured import file_name, load_numbers, save_numbers
from graphnet.sdk import AllReduce, Exchange


@dataclass(frozen=True)
class Network:
    """The numbers of a network between processes.

    Args:
        name: which processes the network connects, for people.
        latency_s: the seconds that a message without content takes.
        bandwidth: the bytes that a process sends and receives in a second.
        hidden: the share of an exchange during which the process computes something else as fast as without
            it, from 0 to 1.
        local_count: so many processes exchange values over faster links, as those of one machine do.
        local_bandwidth: the bytes per second of these links.
        measured_on: the date of the measurement, empty for stated numbers.
    """

    name: str
    latency_s: float
    bandwidth: float
    hidden: float = 1.0
    local_count: int = 1
    local_bandwidth: float = 0.0
    measured_on: str = ""

    def seconds(
        self, call: Call, values: Mapping[str, Value], *, count: int | None = None
    ) -> float:
        """The time of an exchange.

        Args:
            call: a call of an exchange.
            values: the values of its plan.
            count: the number of processes; None for the number in the plan.
        """
        assert isinstance(call.layer, Exchange)
        rounds = 2 if isinstance(call.layer, AllReduce) else 1
        return rounds * self.one_way(exchanged_bytes(call, values), count or call.layer.size)

    def one_way(self, size_bytes: float, count: int) -> float:
        """The time of a reduce-scatter or an all-gather of so many bytes among so many processes."""
        if count == 1:
            return 0.0
        local = count <= self.local_count and self.local_bandwidth > 0.0
        bandwidth = self.local_bandwidth if local else self.bandwidth
        share = (count - 1) / count
        return math.ceil(math.log2(count)) * self.latency_s + share * size_bytes / bandwidth

    def __str__(self) -> str:
        local = f" ({self.local_bandwidth / 1e9:.0f} GB/s among {self.local_count})"
        return (
            f"{self.name}: {self.latency_s * 1e6:.0f} us a message, {self.bandwidth / 1e9:.2f} GB/s"
            f"{local if self.local_count > 1 else ''}, {100 * self.hidden:.0f} % hidden by computations"
        )


STATED_NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "cpu": Network("a network of CPUs, by stated numbers", 5e-5, 1e9, hidden=0.5),
        "cuda": Network(
            "a network of GPUs, by stated numbers",
            latency_s=1e-5,
            bandwidth=4e10,
            local_count=8,
            local_bandwidth=3e11,
        ),
    }
)
"""About the numbers of gloo on one machine, and of GPUs in machines of eight with a network card for each."""


def stated_network(device: torch.device) -> Network:
    """The stated numbers for processes on this kind of device."""
    return STATED_NETWORKS.get(device.type, STATED_NETWORKS["cuda"])


def exchanged_bytes(call: Call, values: Mapping[str, Value]) -> int:
    """The bytes of the whole bucket that processes add up, divide or gather."""
    reads = sum(values[name].spec.size_bytes for name in call.reads())
    return max(reads, sum(values[name].spec.size_bytes for name in call.makes()))


def network_path(name: str, folder: Path) -> Path:
    """The file in a cache folder for a network of this name."""
    return folder / file_name("network", name)


def save_network(network: Network, path: Path) -> None:
    """Write a measurement in one step: a reader sees the old file or the new one."""
    save_numbers(network, path)


def load_network(path: Path) -> Network | None:
    """Read a measurement; None if the file does not exist. Raises MachineError if it has other content."""
    return load_numbers(path, Network, _fits, what="network", command="graphnet machine --network")


def _fits(network: Network) -> bool:
    return network.latency_s > 0 and network.bandwidth > 0 and 0 <= network.hidden <= 1
