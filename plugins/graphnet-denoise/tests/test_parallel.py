"""Images divided among several processes: the same results and the same report as from one."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from graphnet_denoise.commands.denoise import denoise
from graphnet_denoise.jobs import Bound, JsonReport, Method, run_in_processes
from graphnet_denoise.jobs.processes import ProcessFailed, divide
from graphnet_denoise.jobs.targets import Job
from PIL import Image

import graphnet
from graphnet.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(5):
        pixels = draw.integers(0, 256, (24 + 8 * number, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    layers = [{"conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}}]
    model = graphnet.Model({"input": {"channels": 3}, "layers": layers}, seed=1)
    rule = {"sgd": {"lr": 0.1}}  # compile draws the weights
    program = model.compile((1, 3, 8, 8), loss="mse", optimizer=rule, device="cpu")
    program.save(tmp_path / "model.safetensors")
    return tmp_path


def events(folder: Path, result: str, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    files = [str(folder / "model.safetensors"), str(folder / "in"), "-o", str(folder / result)]
    done = CliRunner().invoke(denoise, [*files, "--json", "--device", "cpu", *arguments])
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]


def test_results_and_report_are_those_of_one_process(folder: Path) -> None:
    status, told = events(folder, "one")
    again, both = events(folder, "two", "--processes", "2")
    assert status == again == 1  # one image is damaged
    for number in range(5):
        name = f"{number}.png"
        assert (folder / "two" / name).read_bytes() == (folder / "one" / name).read_bytes()
    for one in (told, both):
        images = [event for event in one if event["event"] == "image"]
        assert sorted(event["status"] for event in images) == ["done"] * 5 + ["failed"]
        (end,) = (event for event in one if event["event"] == "end")
        assert (end["done"], end["failed"]) == (5, 1)
    assert not [*folder.rglob("*.tmp*"), *folder.rglob("*.part")]


def jobs_of(folder: Path, *sizes: int) -> list[Job]:
    jobs = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}.png"
        path.write_bytes(bytes(size))
        jobs.append(Job.of(path, folder / f"{number}-done.png"))
    return jobs


def test_the_largest_files_are_handed_out_first(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, 10, 50, 30, 20, 0)
    first, second = divide(jobs, 2)
    assert [job.source.stem for job in first] == ["1", "0"]
    assert [job.source.stem for job in second] == ["2", "3", "4"]


def killed() -> tuple[Method, Bound]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def without_method() -> tuple[Method, Bound]:
    raise DataError("the model is gone")


def test_a_process_that_is_killed_leaves_its_images_failed(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    report = JsonReport(lambda line: told.append(json.loads(line)))
    summary = run_in_processes(2, killed, report, jobs_of(tmp_path, 1, 1, 1))
    assert (summary.done, summary.failed) == (0, 3)
    errors = [event["error"] for event in told if event.get("status") == "failed"]
    assert len(errors) == 3
    assert all("has ended (signal 9); perhaps memory ran out" in error for error in errors)


def test_an_error_of_a_process_ends_all(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match="the model is gone"):
        run_in_processes(2, without_method, JsonReport(lambda line: None), jobs_of(tmp_path, 1, 1))
