"""The precision "auto", and bfloat16 on devices without instructions for it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphnet.builtin import SGD
from graphnet.cli import run
from graphnet.errors import CheckpointError, SlowPrecisionWarning
from graphnet.model import Model, read_checkpoint, write_checkpoint
from graphnet.plan import CompileOptions, options
from graphnet.sdk import Cast, Registry, load_registry
from graphnet.system import multiplies_bfloat16
from graphnet.training import Trainer
from tests.training.test_trainer import Data, job

CPU = torch.device("cpu")
MODEL = {
    "input": {"channels": 1},
    "layers": [{"conv2d": {"out_channels": 1, "kernel_size": 3, "padding": 1}}],
}
SHAPE = (2, 1, 8, 8)


@pytest.fixture(params=[True, False], ids=["native", "emulated"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the device multiplies bfloat16, as far as graphnet is told."""
    found: bool = request.param
    tell(monkeypatch, found)
    return found


def tell(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(options, "multiplies_bfloat16", lambda device: native)


def in_bfloat16(plan: Any) -> bool:
    return any(isinstance(step.call.layer, Cast) for step in plan.steps)


@pytest.mark.parametrize(
    ("architecture", "has", "capability", "limit", "expected"),
    [
        ("x86_64", {"avx512_bf16": True}, "AVX512", {}, True),
        ("x86_64", {"amx_bf16": True}, "AVX512", {}, True),
        ("x86_64", {"avx512_f": True}, "AVX512", {}, False),
        ("x86_64", {"avx2": True}, "AVX2", {}, False),
        ("x86_64", {"avx512_bf16": True}, "AVX2", {}, False),
        ("x86_64", {"avx512_bf16": True}, "DEFAULT", {}, False),
        ("x86_64", {"avx512_bf16": True}, "AVX512", {"ONEDNN_MAX_CPU_ISA": "AVX2"}, False),
        ("x86_64", {"avx512_bf16": True}, "AVX512", {"ONEDNN_MAX_CPU_ISA": "avx512_core"}, False),
        ("x86_64", {"avx512_bf16": True}, "AVX512", {"DNNL_MAX_CPU_ISA": "AVX2"}, False),
        ("x86_64", {"avx512_bf16": True}, "AVX512", {"ONEDNN_MAX_CPU_ISA": "DEFAULT"}, True),
        ("x86_64", {"amx_bf16": True}, "AVX512", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, True),
        ("aarch64", {"neon": True, "bf16": True}, "DEFAULT", {}, True),
        ("aarch64", {"neon": True, "bf16": False}, "SVE256", {}, False),
        ("ppc64le", {}, "DEFAULT", {}, False),
    ],
)
def test_a_cpu_multiplies_bfloat16_if_it_has_instructions_that_torch_may_use(
    architecture: str,
    has: dict[str, bool],
    capability: str,
    limit: dict[str, str],
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capabilities = {"architecture": architecture, **has}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in limit.items():
        monkeypatch.setenv(name, value)
    assert multiplies_bfloat16(CPU) is expected


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)]
)
def test_a_gpu_multiplies_bfloat16_from_ampere_on(
    capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert multiplies_bfloat16(torch.device("cuda", 0)) is expected
    chosen = CompileOptions(device=torch.device("cuda", 0), precision="auto").target.precision
    assert chosen == ("bfloat16" if expected else "float32")


@pytest.mark.parametrize(
    "limits",
    [
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        {"ATEN_CPU_CAPABILITY": "default"},
        {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    ],
    ids=str,
)
def test_a_processor_kept_from_its_instructions_computes_in_float32(limits: dict[str, str]) -> None:
    program = (
        "import graphnet as gn, json, warnings\n"
        f"model = gn.Model({MODEL!r})\n"
        f"step = {{'loss': 'mse', 'optimizer': gn.SGD(lr=0.1), 'device': 'cpu'}}\n"
        "auto, plain, narrow = (\n"
        f"    model.plan({SHAPE}, loss='mse', precision=p) for p in ('auto', 'float32', 'bfloat16'))\n"
        "with warnings.catch_warnings(record=True) as found:\n"
        "    warnings.simplefilter('always')\n"
        f"    model.compile({SHAPE}, precision='auto', **step)\n"
        f"    model.compile({SHAPE}, precision='bfloat16', **step)\n"
        "said = [str(one.message) for one in found]\n"
        "print(json.dumps([auto == plain, auto == narrow, said]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **limits},
        capture_output=True,
        check=True,
    )
    is_plain, is_narrow, said = json.loads(done.stdout)
    assert (is_plain, is_narrow) == (True, False)
    (message,) = said
    assert message.startswith(
        "precision 'bfloat16' on cpu, which has no instructions that multiply"
    )


def test_auto_is_bfloat16_where_it_is_multiplied_and_float32_elsewhere(native: bool) -> None:
    model = Model(MODEL)
    for loss in (None, "mse"):
        plan = model.plan(SHAPE, loss=loss, precision="auto")
        assert plan == model.plan(SHAPE, loss=loss, precision="bfloat16" if native else "float32")
        assert in_bfloat16(plan) is native
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what graphnet chooses is not warned of
        found = model.predict(torch.rand(SHAPE), precision="auto")
    assert found.dtype is torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_auto_is_the_dtype_of_parameters_that_are_not_in_float32(
    native: bool, dtype: torch.dtype
) -> None:
    assert CompileOptions(device=CPU, dtype=dtype, precision="auto").target.precision == str(
        dtype
    ).removeprefix("torch.")


def test_bfloat16_without_instructions_for_it_is_warned_of_where_it_is_asked_for(
    native: bool,
) -> None:
    model, step = Model(MODEL), {"loss": "mse", "optimizer": SGD(lr=0.1), "device": "cpu"}
    x = torch.rand(SHAPE)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model.compile(SHAPE, precision="float32", **step)
        assert found == []
        program = model.compile(SHAPE, precision="bfloat16", **step)
        program.step(x, x)
        program.predict(x)
        model.with_weights(program.weights).predict(x, precision="bfloat16")
    assert [one.category for one in found] == ([] if native else [SlowPrecisionWarning] * 2)
    assert {one.filename for one in found} <= {__file__}
    for one in found:
        assert "Precision 'auto' takes float32 here." in str(one.message)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Data()], entry_points=False)


def test_a_resumed_run_goes_on_in_the_recorded_precision_on_another_machine(
    registry: Registry, native: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = Trainer(job(registry, precision="auto"))
    assert whole.precision == ("bfloat16" if native else "float32")
    assert in_bfloat16(whole.program.plan) is native
    list(whole.run())
    first = Trainer(job(registry, precision="auto"))
    list(first.run(lambda: first.program.steps_done >= 3))
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, first.checkpoint())
    assert read_checkpoint(path).training["precision"] == whole.precision

    tell(monkeypatch, not native)
    assert Trainer(job(registry, precision="auto")).precision != whole.precision
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        second = Trainer(job(registry, precision="auto"), resume=read_checkpoint(path))
    assert [one.category for one in found] == ([SlowPrecisionWarning] if native else [])
    assert second.precision == whole.precision
    assert second.program.plan == whole.program.plan
    list(second.run())
    for name, weight in whole.program.weights.items():
        assert torch.equal(weight, second.program.weights[name]), name


@pytest.mark.parametrize("recorded", ["", "auto", "float16"])
def test_a_checkpoint_that_does_not_say_which_precision_auto_was_is_refused(
    registry: Registry, recorded: str
) -> None:
    saved = Trainer(job(registry, precision="auto")).checkpoint()
    saved = replace(saved, training={**saved.training, "precision": recorded})
    with pytest.raises(CheckpointError, match=f"it says {recorded!r}. Start a new run"):
        Trainer(job(registry, precision="auto"), resume=saved)


def test_a_run_in_another_precision_than_the_checkpoints_auto_is_refused(
    registry: Registry,
) -> None:
    saved = Trainer(job(registry, precision="auto")).checkpoint()
    with pytest.raises(CheckpointError, match="another configuration: precision differ"):
        Trainer(job(registry, precision="float32"), resume=saved)


@pytest.mark.parametrize("given", ["auto", "bfloat16"])
def test_the_commands_say_what_auto_was_and_warn_in_one_line(
    given: str, native: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = np.random.default_rng(0).integers(0, 256, (2, 8, 1, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "pairs.npz", noisy=pairs[0], clean=pairs[1])
    setting = {
        "model": MODEL,
        "data": {"train": "pairs.npz"},
        "loss": "mse",
        "optimizer": {"sgd": {"lr": 0.1}},
        "epochs": 1,
        "batch_size": 4,
        "device": "cpu",
    }
    (tmp_path / "train.yaml").write_text(json.dumps(setting))
    folder = tmp_path / "run"
    with contextlib.chdir(tmp_path):
        status = run(["train", "train.yaml", "--run", str(folder), "--precision", given])
    said = capsys.readouterr().err
    assert status == 0, said
    taken = "bfloat16" if native or given == "bfloat16" else "float32"
    (start, *_) = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    assert start["precision"] == taken
    assert start["config"]["precision"] == given
    assert f"on cpu in {taken}" in " ".join(said.split())
    warned = [line for line in said.splitlines() if line.startswith("warning: ")]
    assert len(warned) == (given == "bfloat16" and not native)
    assert read_checkpoint(folder / "model.safetensors").training["precision"] == taken
