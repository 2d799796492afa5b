"""What the benchmarks do for a GPU, as far as a CPU can tell: nothing of it may fail where there is one."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from benchmarks import graphnet_side, missing
from benchmarks.gpu import kernels
from benchmarks.measure import QUICK, Measured, measure
from benchmarks.networks import PAPER
from benchmarks.timing import Run, Timing
from benchmarks.torch_side import settings
from benchmarks.workloads import WORKLOADS, Contender, Side, Task, Unavailable, Workload
from graphnet.graph import stated_machine
from tests.support.recordings import OnTheCPU

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL = Workload("w", PAPER, (1, 3, 8, 8), Task.TRAIN)


def test_a_chain_and_each_of_its_layers_are_timed_with_their_least_time() -> None:
    (*_, found) = kernels(CPU, stated_machine(CPU), batches=(2,))
    names = {(row["loss"], row["kernel"].partition(" ")[0]) for row in found["rows"]}
    # One step for all of them with graphnet-cpu and a C++ compiler, else a step for each.
    assert ("mse", "mse_chain") in names or ("mse", "transpose_conv2d_relu") in names
    assert {("l1", f"{name}_relu") for name in ("conv2d", "transpose_conv2d")} <= names
    layers = {row["call"]: row for row in found["rows"] if row["loss"] == "l1"}
    for name in ("relu_1", "relu_1:backward", "upsampling_2", "upsampling_2:backward"):
        assert layers[name]["us"] > 0
        assert layers[name]["least_us"] > 0


def test_torch_is_tried_in_few_settings_on_a_gpu() -> None:
    workload = next(w for w in WORKLOADS if w.name == "a32-train")
    found = [
        str(setting) for setting in settings(workload, CUDA) if setting.precision == "bfloat16"
    ]
    assert found == [
        "eager channels_last",
        "eager in a CUDA graph channels_last",
        "eager in a CUDA graph of 32 steps channels_last",
        "compile channels_last",
        "compile in a CUDA graph channels_last",
        "compile in a CUDA graph of 32 steps channels_last",
        "compile reduce-overhead channels_last",
        "compile max-autotune channels_last",
    ]
    assert {s.channels_last for s in settings(workload, CUDA) if s.precision == "float32"} == {
        False
    }


@pytest.mark.parametrize("task", Task)
def test_a_contender_that_stays_on_eager_is_not_timed_as_captured(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphnet_side, "_ON_CUDA", {"cudagraph": None})
    workload = Workload("w", PAPER, (1, 3, 8, 8), task)
    build = graphnet_side.training if task is Task.TRAIN else graphnet_side.inference

    def run(recording: str) -> Run:
        chosen = {"cudagraph": OnTheCPU(recording=recording)}
        monkeypatch.setattr(graphnet_side, "executors", lambda device: chosen)
        return build(workload, "cudagraph", "float32", CPU)

    assert isinstance(run("Again")(), torch.Tensor)
    with pytest.raises(Unavailable, match="stays on eager: the plan cannot be captured: operation"):
        run("Failing")


def test_several_steps_in_one_call_are_timed_by_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload("w", PAPER, (1, 3, 8, 8), Task.TRAIN, together=4)

    def run(recording: str) -> Run:
        chosen = {graphnet_side._TOGETHER: OnTheCPU(recording=recording, steps=4)}
        monkeypatch.setattr(graphnet_side, "together", lambda workload: chosen)
        return graphnet_side.training(workload, graphnet_side._TOGETHER, "float32", CPU)

    assert len(run("Again")()) == 4
    with pytest.raises(Unavailable, match="replayed one by one: the captured plan does not agree"):
        run("WrongTogether")
    calls = Timing("graphnet", (8.0, 12.0, 16.0))
    assert calls.divided(4).rounds_ms == (2.0, 3.0, 4.0)
    (several,) = (
        one
        for one in graphnet_side.contenders(workload, CUDA)
        if one.precision == "float32" and one.steps == 4
    )
    assert several.setting == "cudagraph of several steps"


def measured(
    builds: Mapping[str, Callable[[], Run]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    building_s: float = 60.0,
) -> Measured:
    """Contenders of torch's side by these names; what is called `compile` compiles."""
    made = [
        Contender(Side.TORCH, name, "float32", build, compiled=name.startswith("compile"))
        for name, build in builds.items()
    ]
    monkeypatch.setattr("benchmarks.contenders.of", lambda workload, device: made)
    effort = type(QUICK)(
        budget_s=0.0, rounds=(2, 2), compiled=True, loss_steps=0, building_s=building_s
    )
    return measure(SMALL, ("float32",), device=CPU, effort=effort, say=lambda text: None)


def test_compiled_contenders_are_built_last_and_left_out_after_the_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow() -> Run:
        with suppress(TimeoutError):  # as a compiler does when it tries something
            time.sleep(60.0)
        time.sleep(60.0)
        return lambda: None

    quick = {name: lambda: lambda: None for name in ("compile more", "eager")}
    found = measured({"compile": slow, **quick}, monkeypatch, building_s=0.3)
    assert list(found.timings) == ["torch: eager, float32"]
    late = "TimeoutError: the time for building contenders was over"
    assert found.unavailable == {f"torch: {n}, float32": late for n in ("compile", "compile more")}


class Holding:
    """A run that takes some time, and holds memory while it is there."""

    alive = 0

    def __init__(self, sleep_s: float) -> None:
        self.sleep_s = sleep_s
        Holding.alive += 1

    def __call__(self) -> None:
        time.sleep(self.sleep_s)

    def __del__(self) -> None:
        Holding.alive -= 1


def test_contenders_that_are_much_slower_hold_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    def counting() -> Run:
        held.append(Holding.alive)
        return Holding(0.001)

    builds = {"slow": lambda: Holding(0.02), "eager": counting, "last": counting}
    found = measured(builds, monkeypatch)
    assert held == [1, 1]
    assert Holding.alive == 0
    (taken,) = found.timings["torch: slow, float32"].rounds_ms
    assert taken >= 20.0


def test_contender_out_of_memory_is_built_again_beside_the_fastest_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def needs_room() -> Run:
        if Holding.alive > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Holding(0.001)

    builds = {"a": lambda: Holding(0.002), "b": lambda: Holding(0.001), "compile": needs_room}
    found = measured(builds, monkeypatch)
    assert found.unavailable == {}
    assert len(found.timings["torch: a, float32"].rounds_ms) == 1
    assert len(found.timings["torch: compile, float32"].rounds_ms) == 2


def test_missing_requirements_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "one-1.0.dist-info").mkdir()
    (tmp_path / "one-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: one\nVersion: 1.0\nRequires-Dist: no-such-package>=2\n"
        "Requires-Dist: torch>=99\nRequires-Dist: another; extra == 'more'\n"
    )
    assert missing.main(str(tmp_path), "pytest") == 2
    said = capsys.readouterr().out
    assert "torch>=99 is asked for" in said
    assert "These packages are missing, add their wheels: no-such-package." in said


GPU_SH = Path(missing.__file__).with_name("gpu.sh")
STAND_IN = """#!/usr/bin/env bash
# In the place of Python: says what it was called with, and fails or hangs where the test wants it.
echo "called with $*"
case "$*" in
    *table_a32.json*) echo "CUDA error: an illegal memory access"; exit 3 ;;
    *table_e.json*) echo "building 2 of 9"; sleep 60 ;;
    *--json*) echo "{}" >"${@: -1}" ;;
esac
"""


def gpu_sh(folder: Path, *sections: str, seconds: int = 60) -> tuple[int, str]:
    """The status and output of the script with a stand-in for Python."""
    stand_in = folder / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    env = {**os.environ, "PYTHON": str(stand_in), "ALL_SECONDS": str(seconds)}
    command = ["bash", str(GPU_SH), str(folder / "wheels"), str(folder / "out"), *sections]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_section_of_the_gpu_script_that_fails_is_named_and_the_others_run(tmp_path: Path) -> None:
    status, said = gpu_sh(tmp_path, seconds=14)
    assert status == 1
    ended = said.partition("== how the sections ended\n")[2]
    assert "tests-triton: ended after" in ended
    assert "a32: failed with status 3: CUDA error: an illegal memory access" in ended
    assert "training: ended after" in ended
    assert "e: stopped after" in ended
    assert "it got to: building 2 of 9" in ended
    assert "f: did not run, no time was left" in ended
    assert "sanitizer: did not run" in ended
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"log.txt", "tests.txt", "training.json"}
    assert "pytest -n 8" in (tmp_path / "out" / "tests.txt").read_text()
    assert ended in (tmp_path / "out" / "log.txt").read_text()


def test_the_gpu_script_refuses_a_section_that_it_does_not_have(tmp_path: Path) -> None:
    status, said = gpu_sh(tmp_path, "f", "kernel")
    assert status == 2
    assert "there is no section 'kernel'" in said
    assert not (tmp_path / "out").joinpath("table_f.json").exists()


def test_the_gpu_script_runs_only_the_sections_that_are_named(tmp_path: Path) -> None:
    status, said = gpu_sh(tmp_path, "f", "kernels")
    assert status == 0
    ended = said.partition("== how the sections ended\n")[2].splitlines()
    assert [line.partition(":")[0] for line in ended] == ["f", "kernels"]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"log.txt", "table_f.json", "kernels.json"}
