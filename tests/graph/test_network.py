"""The times of exchanges follow from the numbers of a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graphnet.errors import MachineError
from graphnet.graph import (
    Call,
    Kind,
    Network,
    Value,
    exchanged_bytes,
    load_network,
    network_path,
    save_network,
    stated_network,
)
from graphnet.sdk import AllGather, AllReduce, Exchange, ReduceScatter, Spec

NETWORK = Network("ours", latency_s=1e-5, bandwidth=1e9, local_count=4, local_bandwidth=1e10)


def exchange(layer: Exchange, read: int, made: int) -> tuple[Call, dict[str, Value]]:
    values = {
        name: Value(name, Spec((size,)), Kind.SCALE) for name, size in (("x", read), ("y", made))
    }
    return Call("c", Kind.COLLECTIVE, layer, "forward", (("x",),), ("y",), "c", "c"), values


def all_reduce(count: int, size: int) -> tuple[Call, dict[str, Value]]:
    return exchange(AllReduce(group="g", size=count, channels_last=(False,)), size, size)


def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather() -> None:
    size = 1_000_000  # 4 MB
    # 8 processes: log2 8 = 3 messages, 7/8 of the bytes.
    one_way = 3 * 1e-5 + 7 / 8 * 4e6 / 1e9
    scatter = exchange(ReduceScatter(group="g", size=8), size, size // 8)
    gather = exchange(AllGather(group="g", size=8), size // 8, size)
    assert exchanged_bytes(*scatter) == exchanged_bytes(*gather) == 4_000_000
    assert NETWORK.seconds(*scatter) == pytest.approx(one_way)
    assert NETWORK.seconds(*gather) == pytest.approx(one_way)
    assert NETWORK.seconds(*all_reduce(8, size)) == pytest.approx(2 * one_way)
    assert NETWORK.seconds(*all_reduce(2, size), count=8) == pytest.approx(2 * one_way)


def test_few_processes_use_the_faster_links() -> None:
    near = 2 * (2 * 1e-5 + 3 / 4 * 4e6 / 1e10)
    assert NETWORK.seconds(*all_reduce(4, 1_000_000)) == pytest.approx(near)
    assert NETWORK.one_way(1e6, 1) == 0.0


def test_stated_numbers_are_those_of_the_device() -> None:
    assert stated_network(torch.device("cpu")).hidden < 1.0
    assert stated_network(torch.device("cuda")).local_count == 8
    assert "8" in str(stated_network(torch.device("cuda")))


def test_a_measured_network_is_kept(tmp_path: Path) -> None:
    path = network_path("2 processes, gloo on cpu", tmp_path)
    assert load_network(path) is None
    save_network(NETWORK, path)
    assert load_network(path) == NETWORK


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "a"}', '{"name": "a", "latency_s": 0}'])
def test_other_content_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "network.json"
    path.write_text(text)
    with pytest.raises(MachineError, match="graphnet machine --network"):
        load_network(path)
