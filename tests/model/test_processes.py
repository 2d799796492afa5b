"""Programs of several processes: `join_processes`, and `processes` of `Model.compile`."""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import subprocess
import sys
import textwrap
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

import graphnet as gn
from graphnet.errors import GraphError, GraphnetError, InputError
from graphnet.model import Joined, Program
from graphnet.passes import GRAD
from tests.support.processes import in_processes

CONV = {"out_channels": 8, "kernel_size": 3, "padding": 1}
NET: dict[str, Any] = {
    "input": {"channels": 3},
    "layers": [
        {"conv2d": CONV},
        {"group_norm": {"num_groups": 2}},
        "relu",
        {"dropout": {"p": 0.2}},
        {"conv2d": {**CONV, "out_channels": 3}},
    ],
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"optimizer": gn.SGD(lr=0.1)},
    "adam, clip, ema": {"optimizer": gn.Adam(lr=0.01), "clip_grad_norm": 0.1, "ema": 0.9},
    "accumulate": {"optimizer": gn.SGD(lr=0.1, momentum=0.9), "accumulate": 2},
}


def batches() -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    pairs = torch.rand(4, 2, 8, 3, 8, 8, generator=draw)
    return [(x, y) for x, y in pairs]


def program_of(joined: Joined, **settings: Any) -> Program:
    shape = (8 // joined.count, 3, 8, 8)
    model = gn.Model(NET, seed=3)
    return model.compile(
        shape, loss="mse", device="cpu", processes=joined, **{"deterministic": True, **settings}
    )


def trained(settings: dict[str, Any]) -> dict[str, Tensor]:
    """The losses of four steps, and everything that the training has changed."""
    joined = gn.join_processes()
    program = program_of(joined, **settings)
    part = slice(8 // joined.count * joined.rank, 8 // joined.count * (joined.rank + 1))
    losses = [program.step(x[part], y[part]).clone() for x, y in batches()]
    slots = {**program.model_weights, **program.training_state}
    sums = {name for name, value in program.plan.values.items() if value.role == GRAD}
    return {
        "losses": torch.stack(losses),
        **{name: tensor for name, tensor in slots.items() if name not in sums},
        "prediction": program.predict(torch.ones(1, 3, 8, 8)),
    }


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("name", SETTINGS)
def test_processes_train_as_one_to_the_bit(count: int, name: str) -> None:
    (expected,) = in_processes(1, trained, SETTINGS[name])
    for found in in_processes(count, trained, SETTINGS[name]):
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert torch.equal(found[key], tensor), key


def divided(count: int, settings: dict[str, Any]) -> dict[str, Any]:
    """What `trained` returns, and the bytes of the optimizer's states of this process."""
    found = trained({**settings, "shard": "optimizer"})
    program = program_of(gn.join_processes(), **settings, shard="optimizer")
    states = {n: t for n, t in program.optimizer_state.items() if "exp_avg" in n}
    predicted = sum(program.plan.values[name].spec.size_bytes for name in states)
    measured = sum(t.untyped_storage().nbytes() for t in states.values())
    return {"trained": found, "bytes": torch.tensor([predicted, measured])}


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("name", ["adam, clip, ema", "compiled"])
def test_processes_divide_the_states_of_adam(count: int, name: str) -> None:
    """Each has 1 / count of them, and all bits are those of one process."""
    compiled = {"optimizer": gn.Adam(lr=0.01), "executor": "inductor"}
    settings = compiled if name == "compiled" else SETTINGS[name]
    (expected,) = in_processes(1, divided, 1, settings)
    every = in_processes(count, divided, count, settings)
    for found in every:
        predicted, measured = found["bytes"].tolist()
        assert predicted == measured
        whole = int(expected["bytes"][0])
        assert whole / count <= predicted < whole / count + 5 * 2 * 4 * 4  # 5 padded parameters
        for key in found["trained"]:
            mine, theirs = found["trained"][key], expected["trained"][key]
            if name == "compiled":
                torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
            else:
                assert torch.equal(mine, theirs), key
    assert every[0]["trained"].keys() == expected["trained"].keys()


def test_compiled_processes_train_as_one_to_the_bit() -> None:
    settings = {**SETTINGS["plain"], "executor": "inductor"}
    (expected,) = in_processes(1, trained, settings)
    for found in in_processes(2, trained, settings):
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-5, atol=1e-6)


def refused(changes: list[dict[str, Any]]) -> list[str]:
    """The error of a process that has other settings than the others."""
    joined = gn.join_processes()
    try:
        program_of(joined, **{**SETTINGS["plain"], **changes[joined.rank]})
    except InputError as error:
        return [str(error)]
    return []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_grad_norm": 1.0}, "process 1 has another plan than process 0"),
        ({"optimizer": gn.SGD(lr=0.1, momentum=0.5)}, "process 1 has another plan than process 0"),
        ({"executor": "inductor"}, "process 1 has another plan than process 0"),
        ({"seed": 4}, "process 1 has other weights than process 0"),
    ],
    ids=str,
)
def test_processes_with_other_settings_are_refused(change: dict[str, Any], message: str) -> None:
    for (found,) in in_processes(2, refused, [{}, change]):
        assert message in found


def test_executor_that_switches_by_itself_is_refused() -> None:
    with pytest.raises(InputError, match=r"the executor auto goes over to compiled code.*inductor"):
        program_of(Joined(0, 2), **SETTINGS["plain"], executor="auto")


def test_three_processes_cannot_share_four_parts() -> None:
    with pytest.raises(InputError, match=r"cuts a batch into 4 parts.* there are 3 processes"):
        program_of(Joined(0, 3), **SETTINGS["plain"])


def test_batch_that_four_parts_cannot_share_is_refused() -> None:
    with pytest.raises(InputError, match=r"the 6 samples of an input in 4 equal parts"):
        gn.Model(NET).compile(
            (6, 3, 8, 8), loss="mse", optimizer=gn.SGD(lr=1.0), deterministic=True
        )


PAGE = Path(__file__).parents[2] / "docs" / "distributed.md"


def test_script_of_the_documentation_prints_the_same_bits(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    (_, *found) = text.split("    # two.py\n")
    lines = found[0].splitlines()
    end = next(i for i, line in enumerate(lines) if line and not line.startswith("    "))
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent("\n".join(lines[:end])), encoding="utf-8")
    printed = []
    for count in (1, 2, 4):
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        done = subprocess.run(
            [sys.executable, *command, str(script)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{count} processes: loss 0.0")
        printed.append(done.stdout.partition(": ")[2])
    assert len({*printed}) == 1


def one_of_many(pipe: Connection, count: int) -> None:
    """Train as one of many processes whose exchanges torch only pretends."""
    torch.distributed.init_process_group("fake", rank=2, world_size=count, store=FakeStore())
    joined = gn.join_processes()
    settings = {"optimizer": gn.Adam(lr=0.01), "clip_grad_norm": 0.1, "shard": "optimizer"}
    layers = [*NET["layers"][:1], {"batch_norm2d": {"sync": True}}, *NET["layers"][2:]]
    model = gn.Model({**NET, "layers": layers}, seed=3)
    program = model.compile((2, 3, 8, 8), loss="mse", device="cpu", processes=joined, **settings)
    for x, y in batches():
        program.step(x[:2], y[:2])
    states = {name: tuple(t.shape) for name, t in program.optimizer_state.items()}
    pipe.send((joined.count, states, {n: tuple(t.shape) for n, t in program.weights.items()}))


@pytest.mark.parametrize("count", [3, 64])
def test_a_plan_of_many_processes_runs(count: int) -> None:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=one_of_many, args=(theirs, count))
    process.start()
    theirs.close()
    found, states, weights = mine.recv()
    process.join()
    assert process.exitcode == 0
    assert found == count
    for name, shape in states.items():
        parameter, _, state = name.rpartition(":")
        assert state in ("exp_avg", "exp_avg_sq")
        assert shape == (math.ceil(math.prod(weights[parameter]) / count),)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shard": "states"}, "shard: expected 'optimizer', found 'states'"),
        ({"bucket": "50%"}, "bucket: expected a number of bytes, such as '4MiB', found '50%'"),
        ({"bucket": 0}, "bucket: expected an amount of memory"),
        ({"reduce_dtype": "float16"}, "reduce_dtype: expected 'bfloat16', found 'float16'"),
        ({"reduce_dtype": "bfloat16", "deterministic": True}, "which `deterministic` excludes"),
    ],
    ids=str,
)
def test_wrong_settings_of_processes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphnetError, match=re.escape(message)):
        gn.Model(NET).plan((4, 3, 8, 8), loss="mse", optimizer=gn.Adam(), **settings)


def test_norms_with_sync_are_refused_with_deterministic() -> None:
    layers = [*NET["layers"][:1], {"batch_norm2d": {"sync": True}}]
    settings = {"loss": "mse", "optimizer": gn.Adam(), "deterministic": True}
    with pytest.raises(GraphError, match="this layer computes statistics of the whole batch"):
        gn.Model({**NET, "layers": layers}).plan((4, 3, 8, 8), **settings)
