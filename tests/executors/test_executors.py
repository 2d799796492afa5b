"""Executors: compiled plans compute what eager computes, write the same slots, and say what they decide."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from graphnet.errors import CompileError, LayerError, PluginError, UnknownNameError
from graphnet.executors import Eager
from graphnet.executors import background_compile as background
from graphnet.executors import inductor_compile as compilation
from graphnet.executors.compare import disagreement
from graphnet.model import Model, Program, read_checkpoint, write_checkpoint
from graphnet.plan import Plan
from graphnet.sdk import Executor, Layer, Register, Registry, Run, hookimpl, load_registry
from graphnet.system import open_cache
from graphnet.training import Decided, Epoch, Trainer
from tests.support.models import Acme
from tests.training.test_trainer import Data, job

SMALL: dict[str, Any] = {
    "name": "small",
    "input": {"channels": 3},
    "layers": [
        {"conv2d": {"out_channels": 3, "kernel_size": 1}},
        "acme/swish",
        "acme/dropout",
    ],
}

TINY = [{"conv2d": {"out_channels": 3, "kernel_size": 1}}]  # compiled in a third of the time


class Reader(Layer):
    """x times 2 where its first element is positive: reads a value back to the host."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.device.type == "meta" or x.flatten()[0].item() > 0 else x * 1

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y * 2


class Table(Layer):
    """x plus a tensor of its own: a constant in the graph."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tensor([[[1.0]], [[2.0]], [[3.0]]], dtype=x.dtype, device=x.device)

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y


class TwoFaced(Layer):
    """2 x, but 2.02 x when it is written down for the compiler."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (2.0 if type(x) is Tensor else 2.02)

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y * 2


class Changing(Layer):
    """x times a number that stands in its code, not in its configuration."""

    number: ClassVar[float] = 2.0

    def forward(self, x: Tensor) -> Tensor:
        return x * self.number

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y * self.number


class Counting(Executor):
    """Eager, and counts its steps."""

    start: int = 0

    def prepare(self, plan: Plan) -> Run:
        eager = Eager().prepare(plan)
        counter = itertools.count(self.start + 1)

        class Counted(Run):
            def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
                self.count = next(counter)
                return eager(*arguments)

            def record(self) -> dict[str, Any]:
                return {"count": self.count}

        return Counted()


def documented_executor() -> Any:
    """The plugin written out in docs/hooks/executors.md."""
    text = (Path(__file__).parents[2] / "docs" / "hooks" / "executors.md").read_text()
    (code,) = re.findall(r'^```python title="acme_timed.py"\n(.*?)^```', text, flags=re.M | re.S)
    plugin = ModuleType("acme_timed")
    exec(code, plugin.__dict__)
    return plugin


class Plugin(Acme):
    @hookimpl
    def graphnet_executors(self, register: Register) -> None:
        register("test/counting", Counting)


class Odd:
    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("odd/reader", Reader)
        register("odd/table", Table)
        register("odd/twofaced", TwoFaced)
        register("odd/changing", Changing)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Plugin(), Odd()], entry_points=False)


@pytest.fixture(scope="module")
def training() -> Registry:
    return load_registry(plugins=[Data()], entry_points=False)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for all tests here: what one compiles, the next finds."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("executors") / "cache"
    patch.setenv("GRAPHNET_CACHE", str(folder))
    yield folder
    patch.undo()


def compiled(registry: Registry, executor: object, **changes: Any) -> Program:
    model = Model({**SMALL, **changes}, registry=registry)
    return model.compile(
        (2, 3, 5, 7),
        loss="mse",
        optimizer={"adam": {"lr": 0.1}},
        device="cpu",
        dtype=torch.float64,
        executor=executor,
        seed=3,
    )


def pairs(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    for _ in range(count):
        x, y = torch.rand(2, 2, 3, 5, 7, generator=generator, dtype=torch.float64)
        yield x, y


def slots(program: Program) -> dict[str, Tensor]:
    return {**program.weights, **program.optimizer_state}


def test_inductor_does_the_steps_of_eager_in_the_same_storage(registry: Registry) -> None:
    expected, found = compiled(registry, "eager"), compiled(registry, "inductor")
    places = {name: tensor.data_ptr() for name, tensor in slots(found).items()}
    for x, y in pairs(4):  # the dropout masks must be the same in each step, lr and step count move
        expected.lr = found.lr = found.lr * 0.5
        before = x.clone()
        torch.testing.assert_close(found.step(x, y), expected.step(x, y), rtol=1e-12, atol=0)
        assert torch.equal(x, before)
    for name, tensor in slots(expected).items():
        torch.testing.assert_close(slots(found)[name], tensor, rtol=1e-9, atol=1e-12)
    assert places == {name: tensor.data_ptr() for name, tensor in slots(found).items()}
    (event,) = found.accumulation.updating.run.events()
    assert event.kind == "compiled"
    assert found.accumulation.updating.run.events() == []


def test_inductor_gives_the_same_bits_twice_and_from_other_strides(registry: Registry) -> None:
    first, second = compiled(registry, "inductor"), compiled(registry, "inductor")
    for x, y in pairs(3):
        strided = x.to(memory_format=torch.channels_last)
        repeated = torch.stack((y, y), dim=-1)[..., 0]
        assert torch.equal(first.step(x, y), second.step(strided, repeated))
    for name, tensor in slots(first).items():
        assert torch.equal(slots(second)[name], tensor), name
    assert "taken from the cache" in second.accumulation.updating.run.record()["compiled"]


def test_inductor_takes_one_tensor_as_input_and_target(registry: Registry) -> None:
    expected, found = compiled(registry, "eager"), compiled(registry, "inductor")
    for x, _ in pairs(2):
        torch.testing.assert_close(found.step(x, x), expected.step(x, x), rtol=1e-12, atol=0)


def test_outputs_that_are_views_of_the_input_are_right_under_inductor(registry: Registry) -> None:
    description = {
        "input": {"channels": 4},
        "layers": [{"id": "h", "acme/halves": {}}, {"id": "r", "relu": {}, "inputs": ["h.second"]}],
        "outputs": ["h.first", "r", "h.second"],
    }
    model = Model(description, registry=registry)
    x = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4)
    first, second, third = model.predict(x, executor="inductor")
    assert torch.equal(first, x[:, :2])
    assert torch.equal(second, x[:, 2:].relu())
    assert torch.equal(third, x[:, 2:])


def test_inductor_names_the_layer_that_cannot_be_compiled(registry: Registry) -> None:
    program = compiled(registry, "inductor", layers=["odd/reader"])
    with pytest.raises(LayerError) as caught:
        program.step(*next(pairs(1)))
    message = str(caught.value)
    assert "node 'reader_1' (odd/reader, from tests.executors.test_executors): forward" in message
    assert "read no value back to the host" in message
    assert "Or use the executor eager." in message


def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++ -O9")


def test_inductor_without_a_compiler_names_what_it_looked_for(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_compiler(monkeypatch)
    with pytest.raises(
        CompileError, match=r"looked for CXX=/nowhere/g\+\+ -O9, found none.*set CXX"
    ):
        compiled(registry, "inductor")
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CompileError, match=r"looked for g\+\+ and clang\+\+ \(CXX is not set\)"):
        compiled(registry, "inductor")


def test_unknown_executors_and_settings_are_refused(registry: Registry) -> None:
    with pytest.raises(
        UnknownNameError, match="unknown executor 'inducter'. Did you mean 'inductor'"
    ):
        compiled(registry, "inducter")
    with pytest.raises(
        ValueError, match="switch_after: expected greater than or equal to 1, found 0"
    ):
        compiled(registry, {"auto": {"switch_after": 0}})


def test_the_executor_in_the_docs_runs() -> None:
    registry = load_registry(plugins=[documented_executor(), Acme()], entry_points=False)
    program = compiled(registry, "acme/timed")
    program.step(*next(pairs(1)))
    assert program.accumulation.updating.run.record()["elapsed_s"] > 0


def test_plugin_registers_an_executor(registry: Registry) -> None:
    program = compiled(registry, {"test/counting": {"start": 40}})
    for x, y in pairs(2):
        program.step(x, y)
    assert program.accumulation.updating.run.record() == {"count": 42}

    class Wrong:
        @hookimpl
        def graphnet_executors(self, register: Register) -> None:
            register("test/wrong", lambda plan: plan)

    with pytest.raises(PluginError, match="'test/wrong' must be a subclass of graphnet.Executor"):
        load_registry(plugins=[Wrong()], entry_points=False)


# -- the cache ---------------------------------------------------------------------------------------


def test_damaged_plan_in_the_cache_is_compiled_anew_and_reported(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAPHNET_CACHE", str(tmp_path))  # the plans of other tests stay undamaged
    first = compiled(registry, "inductor", layers=TINY)
    x, y = next(pairs(1))
    expected = first.step(x, y)
    for path in (open_cache().folder / "plans").rglob("*.so"):
        content = path.read_bytes()
        path.unlink()  # a new file: the old one is loaded
        path.write_bytes(content[:-8] + b"damaged!")
    second = compiled(registry, "inductor", layers=TINY)
    assert torch.equal(second.step(x, y), expected)
    assert "compiled in" in second.accumulation.updating.run.record()["compiled"]
    assert "the cached plan is damaged" in second.accumulation.updating.run.record()["compiled"]


def test_cache_miss_names_the_cached_and_the_wanted_shape(registry: Registry) -> None:
    compiled(registry, "inductor", layers=TINY).step(*next(pairs(1)))
    model = Model({**SMALL, "layers": TINY}, registry=registry)
    program = model.compile(
        (1, 3, 5, 7), loss="mse", optimizer={"adam": {"lr": 0.1}}, device="cpu", dtype=torch.float64,
        executor="inductor",
    )  # fmt: skip
    x, y = next(pairs(1))
    program.step(x[:1], y[:1])
    reason = program.accumulation.updating.run.record()["compiled"]
    assert re.search(r"input: cached 2x3x5x7 float64 strides.*, wanted 1x3x5x7 float64", reason)


def test_changed_code_of_a_layer_is_another_key(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = compiled(registry, "eager", layers=[*TINY, "odd/changing", *TINY])
    arguments = tuple(program.arguments(*next(pairs(1))).values())
    before = compilation.make_job(program.plan, arguments).key
    assert compilation.make_job(program.plan, arguments).key == before
    monkeypatch.setattr(Changing, "number", 3.0)
    assert compilation.make_job(program.plan, arguments).key != before


def test_torch_compile_is_used_where_standalone_compile_fails(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("not today\nnor tomorrow")

    monkeypatch.setattr(torch._inductor, "standalone_compile", refuse)
    monkeypatch.setattr(compilation, "_model_digest", lambda plan: "another")
    expected, found = compiled(registry, "eager"), compiled(registry, "inductor")
    for x, y in pairs(2):
        torch.testing.assert_close(found.step(x, y), expected.step(x, y), rtol=1e-12, atol=0)
    for name, tensor in slots(expected).items():
        torch.testing.assert_close(slots(found)[name], tensor, rtol=1e-9, atol=1e-12)
    how = found.accumulation.updating.run.record()["compiled"]
    assert how.startswith(
        "standalone_compile failed (RuntimeError: not today): torch.compile compiled"
    )


# -- auto --------------------------------------------------------------------------------------------


def run_until_decided(program: Program, *, limit_s: float = 240.0) -> list[Any]:
    """Train on the same pair until the executor has switched or stayed; returns its events."""
    x, y = next(pairs(1))
    events: list[Any] = []
    started = time.monotonic()
    while not any(event.kind in ("switched", "stayed") for event in events):
        assert time.monotonic() - started < limit_s, events
        program.step(x, y)
        events += program.accumulation.updating.run.events()
        time.sleep(0.02)  # the compiler takes what steps leave of the processor
    return events


def test_auto_starts_on_eager_and_switches_once_the_compiled_plan_agrees(
    registry: Registry,
) -> None:
    layers = [
        *TINY,
        "acme/dropout",
        "odd/table",
    ]  # not in the cache yet, and gradients never vanish
    program = compiled(registry, "auto", layers=layers)
    events = run_until_decided(program)
    assert [event.kind for event in events] == ["compiling", "switched"]
    record = program.accumulation.updating.run.record()
    assert record["switched_after"] == program.steps_done > 1
    assert record["stayed"] is None
    # Up to the switch, its own step included, the bits are those of eager; then those of inductor.
    eager = compiled(registry, "eager", layers=layers)
    x, y = next(pairs(1))
    for _ in range(program.steps_done):
        eager.step(x, y)
    for name, tensor in slots(eager).items():
        assert torch.equal(slots(program)[name], tensor), name
    found, expected = program.step(x, y), eager.step(x, y)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_auto_with_a_recorded_switch_gives_the_same_bits(registry: Registry) -> None:
    def run(executor: object) -> Program:
        program = compiled(registry, executor)
        for x, y in pairs(5):
            program.step(x, y)
        return program

    recorded = {"auto": {"switch_after": 3}}
    first, second, eager = run(recorded), run(recorded), run("eager")
    assert (
        first.accumulation.updating.run.record()["switched_after"]
        == second.accumulation.updating.run.record()["switched_after"]
        == 3
    )
    for name, tensor in slots(first).items():
        assert torch.equal(slots(second)[name], tensor), name
        torch.testing.assert_close(slots(eager)[name], tensor, rtol=1e-9, atol=1e-12)


def test_auto_stays_on_eager_where_the_compiled_plan_disagrees(registry: Registry) -> None:
    layers = [*TINY, "odd/twofaced"]
    program = compiled(registry, {"auto": {"switch_after": 1}}, layers=layers)
    events = run_until_decided(program)
    assert events[-1].kind == "stayed"
    assert "does not agree with eager: after the same step" in events[-1].message
    assert "where 1e-09 is allowed" in events[-1].message
    eager = compiled(registry, "eager", layers=layers)
    x, y = next(pairs(1))
    for _ in range(program.steps_done):
        eager.step(x, y)
    assert torch.equal(program.step(x, y), eager.step(x, y))
    assert all(torch.equal(slots(program)[name], t) for name, t in slots(eager).items())


def test_auto_stays_on_eager_without_a_compiler_and_says_so(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_compiler(monkeypatch)
    program = compiled(registry, "auto", layers=["sigmoid", "acme/scale"])
    (event,) = run_until_decided(program)
    assert event.message.startswith("stays on eager: Inductor needs a C++ compiler")
    assert "C++ compiler" in program.accumulation.updating.run.record()["stayed"]


def test_auto_stays_on_eager_where_a_layer_cannot_be_compiled(registry: Registry) -> None:
    (event,) = run_until_decided(compiled(registry, "auto", layers=["odd/reader", "acme/scale"]))
    assert "stays on eager: node 'reader_1'" in event.message


def test_a_compiling_process_that_fails_is_reported(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(background, "_WORKER", "raise ValueError('no luck')")
    program = compiled(registry, "auto", layers=["relu", "acme/scale"])
    events = run_until_decided(program)
    assert events[-1].message == (
        "stays on eager: the process that compiled the plan ended with status 1: ValueError: no luck"
    )
    assert not list((folder / "plans").glob("partial-*"))


def test_a_prediction_under_auto_runs_on_eager(registry: Registry) -> None:
    x = next(pairs(1))[0]
    model = Model(SMALL, registry=registry)
    assert torch.equal(model.predict(x, executor="auto"), model.predict(x))


SCRIPT = """
import signal, sys, torch
from graphnet.model import Model
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
model = Model({"input": {"channels": 3}, "layers": [{"conv2d": {"out_channels": 5, "kernel_size": 3}}]})
program = model.compile((2, 3, 8, 8), loss="mse", optimizer="adam", device="cpu", executor="auto")
x, y = torch.rand(2, 3, 8, 8), torch.rand(2, 5, 6, 6)
program.step(x, y)
print(*(event.kind for event in program.accumulation.updating.run.events()), flush=True)
while sys.argv[1] == "go on":
    program.step(x, y)
"""


def processes_of(folder: Path) -> list[int]:
    """The processes whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc here")
@pytest.mark.parametrize("end", ["by itself", "interrupt", "kill"])
def test_the_compiling_process_ends_with_the_program(end: str, tmp_path: Path) -> None:
    env = {**os.environ, "GRAPHNET_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    mode = "end" if end == "by itself" else "go on"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, mode],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "compiling\n"
        if end != "by itself":
            started = time.monotonic()
            while not processes_of(tmp_path):  # it may not have begun its program yet
                assert time.monotonic() - started < 20
                time.sleep(0.01)
            signals = {"interrupt": signal.SIGINT, "kill": signal.SIGKILL}
            process.send_signal(signals[end])
        _, errors = process.communicate(timeout=60)
        if end == "by itself":
            assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
    started = time.monotonic()
    while processes_of(tmp_path):
        assert time.monotonic() - started < 20
        time.sleep(0.05)


# -- agreement ---------------------------------------------------------------------------------------


def test_agreement_is_judged_by_the_change_of_a_slot_not_by_its_value(registry: Registry) -> None:
    plan = compiled(
        registry, "eager", layers=[{"conv2d": {"out_channels": 1, "kernel_size": 1}}]
    ).plan
    (loss,) = plan.outputs
    name = plan.slots[0]
    start = {name: torch.full((10,), 100.0, dtype=torch.float64)}
    right = {name: start[name] - 1e-4}
    nearly = {name: start[name] - 1e-4 * (1 + 1e-10)}
    wrong = {name: start[name] - 1.0001e-4}  # a thousandth of a millionth of the value
    one = (torch.tensor(0.5, dtype=torch.float64),)

    def compare(outputs: tuple[Tensor, ...], after: dict[str, Tensor]) -> str | None:
        return disagreement(plan, start, expected=(one, right), found=(outputs, after))

    assert compare(one, right) is None
    assert compare(one, nearly) is None
    assert f"{name!r} differs by 0.0001 of its change" in str(compare(one, wrong))
    assert f"{loss!r} differs by" in str(compare((one[0] * 1.001,), right))
    assert f"{loss!r} differs by inf" in str(compare((one[0] * torch.nan,), right))


# -- training ----------------------------------------------------------------------------------------


def test_inductor_run_twice_and_resumed_gives_the_same_bits(
    training: Registry, tmp_path: Path
) -> None:
    whole, again = (Trainer(job(training, executor="inductor")) for _ in range(2))
    records = list(whole.run())
    assert [record.event for record in records if isinstance(record, Decided)] == ["compiled"]
    for record in again.run(lambda: again.program.steps_done >= 7):
        if isinstance(record, Epoch):
            write_checkpoint(tmp_path / "c.safetensors", again.checkpoint())
    saved = read_checkpoint(tmp_path / "c.safetensors")
    assert saved.training["step"] == 5
    assert "taken from the cache" in saved.training["executor"]["compiled"]
    resumed = Trainer(job(training, executor="inductor"), resume=saved)
    list(resumed.run())
    for name, tensor in slots(whole.program).items():
        assert torch.equal(slots(resumed.program)[name], tensor), name


def test_a_resumed_auto_run_goes_on_with_the_executor_that_it_had(
    training: Registry, tmp_path: Path
) -> None:
    auto = {"executor": {"auto": {"switch_after": 4}}}
    whole, first = Trainer(job(training, **auto)), Trainer(job(training, **auto))
    switched = [record for record in whole.run() if isinstance(record, Decided)][-1]
    assert (switched.event, switched.step) == ("switched", 4)
    for stop in (2, 6):  # before the switch, and after it
        first = Trainer(job(training, **auto))
        list(first.run(lambda first=first, stop=stop: first.program.steps_done >= stop))  # type: ignore[misc]
        write_checkpoint(tmp_path / "c.safetensors", first.checkpoint())
        saved = read_checkpoint(tmp_path / "c.safetensors")
        assert saved.training["executor"]["switched_after"] == (4 if stop == 6 else None)
        second = Trainer(job(training, **auto), resume=saved)
        events = [record for record in second.run() if isinstance(record, Decided)]
        assert events[-1].event == ("compiled" if stop == 6 else "switched")
        for name, tensor in slots(whole.program).items():
            assert torch.equal(slots(second.program)[name], tensor), (stop, name)
        assert second.program.accumulation.updating.run.record()["switched_after"] == 4


def test_train_says_what_auto_decides_and_logs_it(tmp_path: Path, monkeypatch: Any) -> None:
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (16, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "pairs.npz", noisy=images, clean=images)
    config = {
        "model": {"layers": [{"conv2d": {"out_channels": 3, "kernel_size": 1}}]},
        "data": {"train": str(tmp_path / "pairs.npz")},
        "loss": "mse",
        "optimizer": {"sgd": {"lr": 0.1}},
        "epochs": 2,
        "batch_size": 8,
    }
    (tmp_path / "train.yaml").write_text(json.dumps(config))
    command = ["train", str(tmp_path / "train.yaml"), "--run", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "graphnet", *command, "--executor", "auto", "--device", "cpu"],
        capture_output=True, text=True, env={**os.environ, "CXX": "/nowhere/cc"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stderr.split())
    assert "step 1: stays on eager: Inductor needs a C++ compiler" in told
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    (decided,) = [line for line in lines if line["kind"] == "executor"]
    assert (decided["step"], decided["event"]) == (1, "stayed")
