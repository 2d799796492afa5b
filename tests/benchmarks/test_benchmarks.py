"""Benchmarks: both sides compute the same, memory is what was allocated, and the pages show the JSON."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import graphnet as gn
from benchmarks import first_step, jax_side, memory, overhead, records, report, rows, run, table
from benchmarks.__main__ import main
from benchmarks.contenders import of
from benchmarks.measure import FULL, QUICK, Measured, measure
from benchmarks.networks import CHAIN, DNCNN17, NETWORKS, PAPER, UNET, Network, with_weights_of
from benchmarks.timing import Timing, interleave
from benchmarks.torch_side import Setting, optimizer_of, settings
from benchmarks.torch_side import training as torch_training
from benchmarks.workloads import WORKLOADS, Contender, Saving, Side, Task, Workload
from graphnet.errors import InputError
from graphnet.graph import Kind, stated_machine

CPU = torch.device("cpu")
by_network = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.title)


def images(network: Network) -> tuple[Tensor, Tensor]:
    channels = 4 if network is CHAIN else 3
    generator = torch.Generator().manual_seed(1)
    first, second = (
        torch.rand(2, channels, 16, 8, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return first, second


@by_network
def test_graphnet_and_torch_compute_the_same_network(network: Network) -> None:
    module = network.module().double()
    x, _ = images(network)
    model = with_weights_of(module, gn.load(network.file))
    torch.testing.assert_close(model.predict(x), module(x).detach(), rtol=1e-12, atol=1e-12)


@by_network
def test_graphnet_and_torch_have_the_same_gradients(network: Network) -> None:
    module = network.module().double()
    x, target = images(network)
    torch.nn.functional.mse_loss(module(x), target).backward()
    rate = 0.5  # the change of each weight in a step of SGD is its gradient times this
    program = with_weights_of(module, gn.load(network.file)).compile(
        x.shape, loss="mse", optimizer=gn.SGD(lr=rate), dtype=torch.float64, device="cpu"
    )
    before = [weight.clone() for weight in program.weights.values()]
    program.step(x, target)
    after = program.weights.values()
    for old, new, parameter in zip(before, after, module.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close((old - new) / rate, parameter.grad, rtol=1e-9, atol=1e-12)


@by_network
def test_training_steps_of_both_sides_agree(network: Network) -> None:
    """Same weights, images and optimizer: after some steps the losses are the same."""
    (workload,) = (w for w in WORKLOADS if w.network is network and w.name in FIRST)
    small = dataclasses.replace(workload, shape=(2, workload.shape[1], 8, 8))
    mine = next(c for c in of(small, CPU) if c.name == "graphnet: eager, float32").build()
    theirs = torch_training(small, Setting("eager", False, "float32"), CPU)
    for _ in range(5):
        torch.testing.assert_close(mine(), theirs(), rtol=1e-4, atol=1e-6)


def test_both_sides_of_a_network_with_running_statistics_begin_alike() -> None:
    (workload,) = (w for w in WORKLOADS if w.network is DNCNN17)
    small = dataclasses.replace(workload, shape=(2, 3, 8, 8))
    mine = next(c for c in of(small, CPU) if c.name == "graphnet: eager, float32").build()
    theirs = torch_training(small, Setting("eager", False, "float32"), CPU)
    torch.testing.assert_close(mine(), theirs(), rtol=1e-5, atol=1e-6)


FIRST = ("a32-train", "b-train", "c-train", "d-train")


@by_network
def test_jax_computes_the_same_network(network: Network) -> None:
    jax = pytest.importorskip("jax", reason="jax is an optional opponent")
    module = network.module()
    x = images(network)[0].float()
    weights = jax_side.weights_of(module, jax.numpy)
    y = jax_side.apply(jax, module, weights, jax.numpy.asarray(x.permute(0, 2, 3, 1).numpy()))
    found = torch.tensor(y.tolist()).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, module(x).detach(), rtol=1e-4, atol=1e-5)


def test_networks_are_what_their_files_say() -> None:
    counts = {n.title: sum(p.numel() for p in n.module().parameters()) for n in NETWORKS}
    assert counts[PAPER.title] == 132_995
    assert counts[UNET.title] == 1_063_776
    plan = CHAIN.model().plan((1, 4, 4, 4), kernels="reference")
    assert len(plan.steps) == overhead.LAYERS
    assert len(plan.of(Kind.PARAMETER)) == 200


# -- what is measured --------------------------------------------------------------------------------


class Operators(TorchDispatchMode):
    """Counts the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.counts[str(function)] += 1
        return function(*args, **(kwargs or {}))


def test_handwritten_step_makes_the_same_calls_with_the_same_losses() -> None:
    generated, handwritten = overhead.generated(CPU), overhead.handwritten(CPU)
    with Operators() as mine:
        losses = [generated() for _ in range(3)]
    with Operators() as theirs:
        expected = [handwritten() for _ in range(3)]
    mine.counts -= Counter({"aten.add_.Tensor": 3})  # graphnet counts its steps
    assert mine.counts == theirs.counts
    assert theirs.counts["aten.convolution_backward.default"] == 300
    torch.testing.assert_close(losses, expected)


def test_peak_is_live_tensors_and_the_largest_sum_of_allocations() -> None:
    weights = torch.ones(1000)
    weights.requires_grad_()

    def step() -> None:
        weights.grad = None
        first = torch.empty(5000)
        second = torch.empty(7000)
        del first
        third = torch.empty(6000)
        del second, third
        (weights * weights.detach()).sum().backward()
        assert weights.grad is not None

    others = memory.alive_bytes() - weights.nbytes
    assert memory.peak_bytes(step, CPU) - others == 4 * (1000 + 7000 + 6000)


def test_peak_counts_the_gradients_that_a_step_leaves_behind() -> None:
    weights = torch.ones(1000, requires_grad=True)
    big = [torch.ones(1000)]

    def step() -> None:
        big[0] = torch.empty(3000)  # while the gradient of the step before is alive
        weights.grad = None
        weights.grad = torch.ones(1000)
        big[0] = torch.empty(1)

    others = memory.alive_bytes() - weights.nbytes - big[0].nbytes
    small = 4  # what `big` held before
    assert memory.peak_bytes(step, CPU) - others == 4 * (1000 + 1000 + 3000) + small


def test_views_share_their_bytes() -> None:
    before = memory.alive_bytes()
    x = torch.empty(100, 10)
    views = [x, x.t(), x[:50], x.view(-1)]
    assert memory.alive_bytes() - before == 4000
    assert len(views) == 4


def test_rounds_are_paired_and_in_shifting_order() -> None:
    ran: list[str] = []
    contenders = {name: lambda name=name: ran.append(name) for name in "abc"}
    timings = interleave(contenders, device=CPU, budget_s=0.0, rounds=(4, 4))
    assert {len(timing.rounds_ms) for timing in timings.values()} == {4}
    order = [name for before, name in zip([None, *ran], ran, strict=False) if name != before]
    assert "".join(order[-12:]) == "abcbcacababc"


def test_timing_states_median_spread_and_paired_ratio() -> None:
    mine = Timing("mine", (1.0, 2.0, 3.0, 4.0, 100.0))
    theirs = Timing("theirs", (2.0, 4.0, 6.0, 8.0, 100.0))
    assert mine.median_ms == 3.0
    assert mine.spread_ms == 1.0
    assert mine.ratio_to(theirs) == 0.5


def test_torch_is_tried_in_every_setting() -> None:
    workload = next(w for w in WORKLOADS if w.name == "a32-train")
    found = {(s.mode, s.channels_last, s.precision) for s in settings(workload, CPU)}
    assert found == {
        (mode, channels_last, precision)
        for mode in ("eager", "compile", "compile max-autotune")
        for channels_last in (False, True)
        for precision in ("float32", "bfloat16")
    }
    assert optimizer_of(PAPER, PAPER.module()).defaults["fused"] is True


def test_contender_that_cannot_run_is_named_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> Callable[[], object]:
        raise RuntimeError("no such instruction\nand more")

    def contenders(workload: Workload, device: torch.device) -> list[Contender]:
        return [
            Contender(Side.TORCH, "eager", "float32", lambda: lambda: None),
            Contender(Side.TORCH, "broken", "float32", broken),
            Contender(Side.TORCH, "compile", "float32", broken, compiled=True),
        ]

    monkeypatch.setattr("benchmarks.contenders.of", contenders)
    workload = Workload("w", PAPER, (1, 3, 8, 8), Task.TRAIN)
    found = measure(workload, ("float32",), device=CPU, effort=QUICK, say=lambda text: None)
    assert list(found.timings) == ["torch: eager, float32"]
    assert found.unavailable == {
        "torch: broken, float32": "RuntimeError: no such instruction",
        "torch: compile, float32": "left out by --quick, which compiles nothing",
    }


def test_fastest_is_of_its_side_and_precision_and_never_one_that_saves_memory() -> None:
    workload, half = WORKLOADS[0], Saving("memory50", memory="50%")
    made = [
        Contender(Side.GRAPHNET, "eager", "float32", lambda: lambda: None),
        Contender(Side.GRAPHNET, "bounded", "float32", lambda: lambda: None, saving=half),
        Contender(Side.GRAPHNET, "eager", "bfloat16", lambda: lambda: None),
        Contender(Side.TORCH, "eager", "bfloat16", lambda: lambda: None),
    ]
    by_name = {contender.name: contender for contender in made}
    times = zip(by_name, (5.0, 4.0, 3.0, 1.0), strict=True)
    timings = {name: Timing(name, (ms,)) for name, ms in times}
    measured = Measured(workload, by_name, timings, {})

    def fastest(side: Side, precision: str, saving: Saving | None = None) -> float | None:
        timing = measured.fastest(side, (precision,), saving)
        return timing and timing.median_ms

    assert fastest(Side.GRAPHNET, "float32") == 5.0
    assert fastest(Side.GRAPHNET, "float32", half) == 4.0
    assert fastest(Side.GRAPHNET, "bfloat16") == 3.0
    assert fastest(Side.TORCH, "bfloat16") == 1.0
    assert fastest(Side.JAX, "float32") is None


def test_bfloat16_row_has_opponents_of_both_precisions() -> None:
    by_name = {row.name: row for row in rows.ROWS}
    assert by_name["a32-train-bf16"].opponents == ("float32", "bfloat16")
    assert by_name["a32-train-fp32"].opponents == ("float32",)
    assert rows.needed([by_name["a32-train-fp32"]]) == {WORKLOADS[0]: ("float32",)}
    assert len(set(rows.NAMES)) == len(rows.NAMES)


def test_steady_state_begins_where_steps_are_as_quick_as_the_last() -> None:
    ends = [3.0, 4.0, 5.0]  # two slow steps, then quick ones
    ends += [5.0 + 0.1 * i for i in range(1, 80)]
    start = first_step.summary("one", ends)
    assert start.first_s == 3.0
    assert start.steady_s == 5.0
    assert start.steady_step_ms == pytest.approx(100.0)


def test_default_table_fits_into_its_time() -> None:
    assert run.estimate_s(rows.on(CPU), device=CPU, effort=FULL) < 35 * 60


def test_rows_for_a_gpu_are_measured_on_one() -> None:
    assert set(rows.NAMES) - set(rows.on(CPU)) == {
        f"{name}-{precision}"
        for name in ("e-train", "f-train", "f24mp-infer")
        for precision in ("fp32", "bf16")
    }
    assert rows.on(torch.device("cuda")) == rows.NAMES


# -- the command and the pages -----------------------------------------------------------------------


@pytest.mark.slow
def test_quick_table_is_measured_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("TORCHINDUCTOR_CACHE_DIR", "GRAPHNET_CACHE"):
        monkeypatch.setenv(name, "unused")  # set back afterwards
    monkeypatch.setattr(
        run, "measure_machine", lambda device, say: stated_machine(device)
    )  # measured in tests/graph/test_roofline.py
    file = tmp_path / "table.json"
    assert main(["--quick", "--json", str(file), "--device", "cpu"]) == 0
    result = json.loads(file.read_text())
    assert result["machine"]["torch"] == torch.__version__
    step, overhead_row = result["rows"]
    assert step["row"] == "a32-train-fp32"
    assert overhead_row["row"] == "d-overhead"
    assert step["ratio"] == pytest.approx(step["best_torch_ms"] / step["graphnet_ms"])
    images_mb = 2 * 32 * 3 * 32 * 32 * 4 / 1e6
    for key in ("peak_mb", "best_torch_peak_mb", "plain_torch_peak_mb", "predicted_peak_mb"):
        assert images_mb < step[key] < 100
    assert step["roofline_ms"] > 0
    assert "torch: compile, float32" in step["unavailable"]
    shown = capsys.readouterr().out
    for name in ("a32-train-fp32", "d-overhead", "left out: torch: compile, float32"):
        assert name in shown
    assert report.page(result).startswith("# Performance")


def test_unknown_row_is_an_error_that_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", "a32-trian-fp32"]) == 2
    message = capsys.readouterr().err
    assert "unknown row 'a32-trian-fp32'" in message
    assert "a32-train-fp32" in message


def test_rows_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(rows.NAMES)
    assert {"a32-train-bf16", "a32-train-fp32", "c2048-infer-fp32", "d-overhead"} < set(rows.NAMES)


def test_file_that_holds_no_results_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    for text in ("", "[]", '{"rows": [], "machine": {}}', '{"rows": 3}'):
        file.write_text(text)
        with pytest.raises(InputError, match=r"other\.json"):
            report.read(file)
    assert main(["report", str(file)]) == 2


def test_pages_show_the_committed_results() -> None:
    result = report.read(report.RESULTS)
    assert report.PAGE.read_text() == report.page(result)
    readme = report.README.read_text()
    assert report.inserted(readme, report.summary(result)) == readme


def test_committed_ratios_are_those_of_the_committed_times() -> None:
    for record in report.read(report.RESULTS)["rows"]:
        if record["ratio"] is not None:
            expected = record["best_torch_ms"] / record["graphnet_ms"]
            assert record["ratio"] == pytest.approx(expected), record["row"]


RECORD: dict[str, Any] = {
    "row": "a32-train-bf16",
    "what": "a network",
    "graphnet_ms": 3.25,
    "graphnet": "inductor, bfloat16",
    "best_torch_ms": 6.5,
    "best_torch": "compile channels_last, bfloat16",
    "ratio": 2.0,
    "peak_mb": 5.0,
    "best_torch_peak_mb": 10.0,
    "peak_ratio": 0.5,
    "loss_steps": 200,
    "loss_float32": 0.1,
    "loss_bfloat16": 0.102,
    "loss_difference": 0.02,
    "loss_error": 0.005,
    "counts": False,
    "contenders": [{"name": "x", "ms": 1.0, "spread_ms": 0.1, "rounds": 9}],
    "unavailable": {"jax: jit": "jax is not installed"},
}


def test_row_that_does_not_count_says_so() -> None:
    line = dict(zip(table.COLUMNS, table.cells(RECORD), strict=True))
    assert line["ratio"] == "2.00, does not count"
    assert line["graphnet ms"] == "3.25"
    assert "0.50 of torch's memory" in line["remarks"]
    assert "loss after 200 steps +2.00 % +- 0.50 %: does not count" in line["remarks"]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([0.02, 0.02, 0.02], (0.02, 0.0)),
        ([0.0, 0.04], (0.02, 0.02)),  # the standard deviation is 0.04 / sqrt(2)
        ([0.005], (0.005, 0.0)),
    ],
)
def test_difference_of_losses_has_a_standard_error(
    runs: list[float], expected: tuple[float, float]
) -> None:
    assert records._relative_difference(runs) == pytest.approx(expected)


def test_table_names_each_missing_contender_once_with_its_rows() -> None:
    other = {**RECORD, "row": "a32-train-fp32"}
    assert table.left_out([RECORD, other]) == [
        "jax: jit (a32-train-bf16, a32-train-fp32): jax is not installed"
    ]
