"""Jobs of many images and of large ones: blocks, failures, memory, and what is reported."""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import graphnet_denoise
import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner
from graphnet_denoise.commands.denoise import denoise
from graphnet_denoise.images import create_like, open_image
from graphnet_denoise.jobs import (
    Bound,
    ByModel,
    Job,
    JsonReport,
    Loop,
    Summary,
    TextReport,
    opening,
    streamed,
    written,
)
from graphnet_denoise.jobs import loop as loop_module
from graphnet_denoise.jobs.cutting import Reach, cut, find_reach
from graphnet_denoise.jobs.opening import open_job
from graphnet_denoise.jobs.overlap import Ahead, Behind
from graphnet_denoise.jobs.reports import Measured
from graphnet_denoise.models import Kind
from graphnet_denoise.noise.measure import FoundNoise
from graphnet_denoise.normalization import with_normalization
from graphnet_denoise.restoring import Look, Restorer, Settings
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import graphnet
from graphnet.errors import DataError, MemoryBudgetError, WriteError

CPU = graphnet.CompileOptions(device="cpu")
RNG = np.random.default_rng(0)
AMPLE = Bound(None)


def network(*, channels: int = 3) -> graphnet.Model:
    """Halves and doubles the size, between convolutions: it reads 5 pixels around a part, or more."""
    layers: list[Any] = [
        {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}},
        "relu",
        {"conv2d": {"out_channels": 6, "kernel_size": 2, "stride": 2}},
        {"conv2d": {"out_channels": 6, "kernel_size": 3, "padding": 1}},
        {"upsampling": {"out_channels": channels, "kernel_size": 2, "stride": 2}},
    ]
    model = graphnet.Model({"input": {"channels": channels}, "layers": layers}, seed=1)
    rule = {"sgd": {"lr": 0.1}}  # compile draws the weights
    program = model.compile((1, channels, 8, 8), loss="mse", optimizer=rule, options=CPU)
    return model.with_weights(program.model_weights)


def halving(*, channels: int = 3) -> graphnet.Model:
    layers = [{"id": "c", "conv2d": {"out_channels": channels, "kernel_size": 1, "bias": False}}]
    model = graphnet.Model({"input": {"channels": channels}, "layers": layers})
    weight = torch.eye(channels).reshape(channels, channels, 1, 1) / 2
    return model.with_weights({"c.weight": weight})


def method(model: graphnet.Model, **more: Any) -> ByModel:
    return ByModel(model, Restorer.of(model, Settings(CPU, **more)))


def events(
    model: ByModel, jobs: list[Job], bound: Bound = AMPLE
) -> tuple[Summary, list[dict[str, Any]]]:
    lines: list[str] = []
    summary = Loop(model, JsonReport(lines.append), bound).run(jobs)
    return summary, [json.loads(line) for line in lines]


def jobs_of(folder: Path, *names: str) -> list[Job]:
    return [Job.of(folder / name, folder / "out" / name) for name in names]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path


def save(path: Path, pixels: NDArray[Any]) -> Path:
    if path.suffix == ".tif":
        colours = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(path, pixels, photometric=colours)
    else:
        Image.fromarray(pixels).save(path)
    return path


def noise(*shape: int, dtype: str = "u1") -> NDArray[Any]:
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def save_some(folder: Path, count: int) -> list[str]:
    """Save small images of noise, and return their names."""
    names = [f"{i}.png" for i in range(count)]
    for name in names:
        save(folder / name, noise(5, 5, 3))
    return names


# -- blocks


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 400), (333, 97), (256, 256)])
@pytest.mark.parametrize("most", [3000, 5000, 10**6])
def test_blocks_keep_each_pixel_once_and_read_what_is_around_it(
    height: int, width: int, most: int
) -> None:
    reach = Reach(halo=8, step=4, pixel_bytes=1.0)
    kept = np.zeros((height, width), int)
    sizes = set()
    for block in cut(height, width, reach, most_pixels=most):
        kept[block.kept_rows, block.kept_columns] += 1
        shape = []
        for read, inner, length in (
            (block.rows, block.kept_rows, height),
            (block.columns, block.kept_columns, width),
        ):
            assert 0 <= read.start <= max(0, inner.start - 8)
            assert min(length, inner.stop + 8) <= read.stop <= length
            assert read.start % 4 == 0
            assert (length - read.stop) % 4 == 0  # so that a flipped block fits the network too
            shape.append(read.stop - read.start)
        sizes.add(tuple(shape))
    assert (kept == 1).all()
    assert len(sizes) == 1  # one plan for all
    assert np.prod(sizes.pop()) <= most


def test_too_little_memory_for_any_block_is_said() -> None:
    with pytest.raises(MemoryBudgetError, match="memory for 900 pixels. Allow more with --memory"):
        cut(1000, 1000, Reach(halo=16, step=8, pixel_bytes=1.0), most_pixels=900)


def test_the_reach_of_a_network_is_what_its_layers_read() -> None:
    model = network()
    reach = find_reach(model, 3, 2, CPU)
    assert reach is not None
    assert (reach.halo, reach.step) == (4, 2)  # 1 + 2 * 1 pixels, in multiples of 2
    assert reach.pixel_bytes >= 4 * 3 * 2  # the image and its result
    whole = graphnet.Model({"input": {"channels": 3}, "layers": ["instance_norm"]})
    assert find_reach(whole, 3, 1, CPU) is None


@pytest.mark.parametrize("self_ensemble", [False, True])
@pytest.mark.parametrize("grey", [False, True])
def test_an_image_in_blocks_becomes_the_same_as_in_one_piece(
    folder: Path, *, self_ensemble: bool, grey: bool
) -> None:
    """Also where colour noise is added to a grey image, and where sides are no multiple of the step."""
    model = method(network(), self_ensemble=self_ensemble)
    pixels = noise(*((61, 83) if grey else (61, 83, 3)), dtype="u2")
    save(folder / "a.tif", pixels.astype("f4") / 65535)
    jobs = jobs_of(folder, "a.tif")
    assert events(model, jobs)[0].done == 1
    whole = tifffile.imread(jobs[0].target)
    reach = model.reach()
    assert reach is not None
    limit = int(1700 * (reach.pixel_bytes + 300))
    _, told = events(model, jobs, Bound(limit))
    parts = tifffile.imread(jobs[0].target)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5)
    assert float(np.abs(whole - pixels / 65535).max()) > 0.1
    fractions = [event["done"] for event in told if event["event"] == "progress"]
    assert 0 < fractions[0] < 1


def test_images_of_eight_bits_get_the_precision_of_the_machine_unless_one_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bfloat16 is exact enough for them; 16 bits and floating point are computed in float32."""
    predict = graphnet.Model.predict
    seen: list[str | None] = []

    def recorded(self: graphnet.Model, *inputs: Tensor, options: graphnet.CompileOptions) -> object:
        seen.append(options.precision)
        return predict(self, *inputs, options=options)

    monkeypatch.setattr(graphnet.Model, "predict", recorded)
    eight, sixteen = noise(6, 6, 3), noise(6, 6, 3, dtype="u2")
    save(folder / "a.png", eight)
    save(folder / "b.tif", sixteen)
    save(folder / "c.tif", sixteen.astype("f4"))
    jobs = jobs_of(folder, "a.png", "b.tif", "c.tif")
    assert events(method(halving()), jobs)[0].done == 3
    assert seen == ["auto", None, None]
    seen.clear()
    for array in (eight, sixteen):
        graphnet_denoise.denoise(array, model=halving())
    assert seen == ["auto", None]
    seen.clear()
    stated = Settings(replace(CPU, precision="float32"))
    assert events(ByModel(halving(), Restorer.of(halving(), stated)), jobs[:1])[0].done == 1
    assert seen == ["float32"]


def test_each_plane_of_a_stack_and_each_channel_of_a_microscope_is_denoised(folder: Path) -> None:
    stack = noise(3, 2, 8, 10, dtype="u2") // 16
    stack[:, 1] //= 4  # 10 bits
    tifffile.imwrite(folder / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    summary, told = events(method(halving()), jobs_of(folder, "a.tif"))
    assert summary.done == 1
    notes = [event["text"] for event in told if event["event"] == "note"]
    assert notes == [
        "uses 12 of 16 bits: white is 4,095",
        "uses 10 of 16 bits: white is 1,023",
    ]
    with tifffile.TiffFile(folder / "out/a.tif") as result:
        assert result.series[0].axes == "ZCYX"
        np.testing.assert_allclose(result.asarray(), stack / 2, atol=0.51)


def test_a_learned_model_takes_the_channels_of_a_microscope_together(folder: Path) -> None:
    """It gives their mean to both of them."""
    conv = {"out_channels": 2, "kernel_size": 1, "bias": False}
    mean = {"name": "mean", "layers": [{"id": "c", "conv2d": conv}]}
    description = with_normalization(mean, channels=2, mean=1000.0, deviation=100.0)
    model = graphnet.Model(
        description, weights={"denoised.c.weight": torch.full((2, 2, 1, 1), 0.5)}
    )
    stack = noise(3, 2, 8, 10, dtype="u2") // 16
    tifffile.imwrite(folder / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    assert events(method(model), jobs_of(folder, "a.tif"))[0].done == 1
    expected = np.broadcast_to(stack.mean(1, keepdims=True), stack.shape)
    np.testing.assert_allclose(tifffile.imread(folder / "out/a.tif"), expected, atol=0.51)


# -- failures


def test_damaged_files_are_reported_and_the_others_are_done(folder: Path) -> None:
    good = [f"{i}.png" for i in range(4)]
    for name in good:
        save(folder / name, noise(6, 7, 3))
    data = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(data[:60])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no image")
    os.mkfifo(folder / "pipe.png")
    bad = ["cut.png", "empty.png", "text.png", "pipe.png", "absent.png"]
    mixed = [bad[0], good[0], bad[1], bad[2], good[1], good[2], bad[3], good[3], bad[4]]
    summary, told = events(method(halving()), jobs_of(folder, *mixed))
    assert (summary.done, summary.failed) == (4, 5)
    images = [event for event in told if event["event"] == "image"]
    failed = {Path(e["input"]).name: e["error"] for e in images if e["status"] == "failed"}
    assert sorted(failed) == sorted(bad)
    pipe = folder / "pipe.png"
    assert failed["pipe.png"].startswith(
        f"{pipe}: expected the file of an image, found a named pipe"
    )
    assert all(name in error for name, error in failed.items())
    assert sorted(path.name for path in (folder / "out").iterdir()) == good


def test_a_model_that_does_not_fit_an_image_fails_for_that_image_alone(folder: Path) -> None:
    save(folder / "a.png", noise(6, 7, 3))
    save(folder / "b.png", noise(6, 7))
    model = halving(channels=2)
    summary, told = events(method(model), jobs_of(folder, "a.png", "b.png"))
    assert (summary.done, summary.failed) == (1, 1)
    (error,) = (event["error"] for event in told if event.get("status") == "failed")
    assert error.startswith(f"{folder / 'a.png'}: the model takes images of 2 channels, found 3")
    assert [path.name for path in (folder / "out").iterdir()] == ["b.png"]


def test_a_full_disk_ends_the_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = save_some(folder, 40)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left on device"):
        events(method(halving()), jobs_of(folder, *names))
    assert list((folder / "out").iterdir()) == []


def test_an_unexpected_error_of_a_model_fails_for_that_image_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = save_some(folder, 4)
    calls = 0

    def faulty(self: ByModel, part: Tensor, *more: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ValueError("odd")
        return part

    monkeypatch.setattr(ByModel, "restore", faulty)
    summary, told = events(method(halving()), jobs_of(folder, *names))
    assert (summary.done, summary.failed) == (3, 1)
    (error,) = (event["error"] for event in told if event.get("status") == "failed")
    assert error.startswith(f"{folder / '1.png'}: unexpected ValueError: odd. This is a fault")
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["0.png", "2.png", "3.png"]


def test_an_interruption_keeps_the_results_that_were_complete(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that wait for the disk."""
    names = save_some(folder, 4)
    interrupted = threading.Event()
    calls = 0

    def restore(self: ByModel, part: Tensor, *more: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            interrupted.set()
            raise KeyboardInterrupt
        return part

    monkeypatch.setattr(ByModel, "restore", restore)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: interrupted.wait(20))
    with pytest.raises(KeyboardInterrupt):
        events(method(halving()), jobs_of(folder, *names))
    assert sorted(path.name for path in (folder / "out").iterdir()) == names[:3]


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_nothing_is_computed_if_no_result_can_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    names = save_some(folder, 3)
    computed = 0

    def restore(self: ByModel, part: Tensor, *more: Any) -> Tensor:
        nonlocal computed
        computed += 1
        return part

    opened = Path.open

    def refused(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        if mode == "xb":
            raise OSError(reason, os.strerror(reason), str(path))
        return opened(path, mode, *more, **options)

    monkeypatch.setattr(ByModel, "restore", restore)
    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(WriteError, match=rf"out/0.png: cannot be written \({os.strerror(reason)}"):
        events(method(halving()), jobs_of(folder, *names))
    assert computed == 0


def test_nothing_is_computed_for_a_format_that_cannot_hold_the_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folder / "a.png", noise(5, 5, 4))  # with alpha
    computed = 0

    def restore(self: ByModel, part: Tensor, *more: Any) -> Tensor:
        nonlocal computed
        computed += 1
        return part

    monkeypatch.setattr(ByModel, "restore", restore)
    job = Job.of(folder / "a.png", folder / "out/a.jpg")
    summary, told = events(method(halving()), [job])
    assert (summary.failed, computed) == (1, 0)
    (error,) = (event["error"] for event in told if event.get("status") == "failed")
    assert "a JPEG cannot hold the alpha" in error


def test_an_image_whose_first_part_cannot_be_read_is_closed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folder / "a.png", noise(5, 5, 3))

    def look(self: ByModel, images: Tensor) -> Look:
        raise ValueError("odd")

    monkeypatch.setattr(ByModel, "look", look)
    opened = []

    def watched(path: Path) -> Any:
        opened.append(open_image(path))
        monkeypatch.setattr(opened[-1], "close", lambda: closed.append(path))
        return opened[-1]

    closed: list[Path] = []
    monkeypatch.setattr(opening, "open_image", watched)
    summary, _ = events(method(halving()), jobs_of(folder, "a.png"))
    assert summary.failed == 1
    assert closed == [folder / "a.png"]


def test_an_interruption_leaves_no_half_written_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(folder / "a.tif", noise(9, 8, 8), photometric="minisblack")
    calls = 0

    def interrupted(self: ByModel, part: Tensor, look: Look, *more: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return part

    monkeypatch.setattr(ByModel, "restore", interrupted)
    with pytest.raises(KeyboardInterrupt):
        events(method(halving()), jobs_of(folder, "a.tif"))
    assert list((folder / "out").iterdir()) == []


def test_a_device_out_of_memory_gets_smaller_parts_and_the_same_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folder / "a.tif", noise(64, 64, 3, dtype="u2").astype("f4") / 65535)
    model = method(network())
    jobs = jobs_of(folder, "a.tif")
    events(model, jobs)
    whole = tifffile.imread(jobs[0].target)
    restore = ByModel.restore

    def small_device(self: ByModel, part: Tensor, *more: Any) -> Tensor:
        if part.shape[2] * part.shape[3] > 1200:
            raise torch.OutOfMemoryError("no memory")
        return restore(self, part, *more)

    monkeypatch.setattr(ByModel, "restore", small_device)
    summary, told = events(model, jobs)
    assert summary.done == 1
    notes = [event["text"] for event in told if event["event"] == "note"]
    assert notes == ["the device is out of memory: going on with smaller tiles"]
    np.testing.assert_allclose(tifffile.imread(jobs[0].target), whole, rtol=0, atol=1e-5)


def test_an_image_that_memory_cannot_hold_is_refused_in_words(folder: Path) -> None:
    save(folder / "a.png", noise(64, 64, 3))
    summary, told = events(method(network()), jobs_of(folder, "a.png"), Bound(10_000))
    assert summary.failed == 1
    (error,) = (event["error"] for event in told if event.get("status") == "failed")
    assert "Allow more with --memory, or take TIFF for image and result" in error


def test_a_bound_that_the_process_itself_exceeds_is_refused_before_the_first_image() -> None:
    with pytest.raises(
        MemoryBudgetError, match="--memory is 300.0 MiB, but the process takes 464.0 MiB"
    ):
        Bound.of_process(300 << 20)
    assert Bound.of_process(None).limit is None


# -- overlap


def test_items_are_prepared_ahead_and_errors_come_where_they_are_taken() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("third")

    taken: list[int] = []
    with Ahead(items(), lambda _item: 1) as ahead, pytest.raises(ValueError, match="third"):
        taken.extend(ahead)
    assert taken == [1, 2]


def test_only_one_large_item_waits() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(6):
            made.append(number)
            yield number

    with Ahead(items(), lambda _item: 1 << 30) as ahead:
        for number in ahead:
            assert len(made) <= number + 3
    assert len(made) == 6


def test_the_number_of_waiting_items_is_limited() -> None:
    """Each image has open files, and a system allows about a thousand."""
    made = 0

    def items() -> Iterator[int]:
        nonlocal made
        for number in range(1000):
            made += 1
            yield number

    with Ahead(items(), lambda _item: 1) as ahead:
        for number in ahead:
            assert made <= number + 70
    assert made == 1000
    opened = closed = most = 0

    def close() -> None:
        nonlocal closed
        time.sleep(1e-4)
        closed += 1

    with Behind() as behind:
        for _ in range(300):
            behind.do(close)
            opened += 1
            most = max(most, opened - closed)
    assert most <= 70


def test_tasks_that_wait_run_also_after_an_error() -> None:
    done: list[int] = []
    begin = threading.Event()

    def interrupted() -> None:
        with Behind() as behind:
            behind.do(lambda: done.append(int(begin.wait(20))))
            behind.do(lambda: done.append(2))
            begin.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [1, 2]


def test_an_image_is_read_while_another_one_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = save_some(folder, 4)
    writing, read = threading.Event(), threading.Event()
    looks = 0
    overlapped = []

    def look(self: ByModel, images: Tensor) -> Look:
        nonlocal looks
        looks += 1
        if looks == 3:
            writing.wait(20)  # the first image is being written, and the fourth not yet read
        elif looks == 4:
            read.set()
        return self.restorer.look(images, None)

    def slow(descriptor: int) -> None:
        writing.set()
        overlapped.append(read.wait(5))

    monkeypatch.setattr(ByModel, "look", look)
    monkeypatch.setattr(os, "fsync", slow)
    assert events(method(halving()), jobs_of(folder, *names))[0].done == 4
    assert overlapped == [True] * 8  # a file and its folder are flushed for each image


def test_progress_counts_what_is_computed_and_never_goes_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results that wait for the disk count too."""

    class Watched(JsonReport):
        def progress(self, images: float, job: Job | None = None) -> None:
            seen.append(images)
            if images == 3:
                all_computed.set()

    seen: list[float] = []
    all_computed = threading.Event()
    names = [f"{i}.tif" for i in range(3)]
    for name in names:
        tifffile.imwrite(folder / name, noise(2, 8, 8), photometric="minisblack")
    monkeypatch.setattr(os, "fsync", lambda _descriptor: all_computed.wait(20))
    Loop(method(halving()), Watched(lambda _line: None), AMPLE).run(jobs_of(folder, *names))
    assert seen == [0.5, 1, 1.5, 2, 2.5, 3]


def test_each_thread_reports_only_while_it_holds_the_lock(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def try_lock() -> None:
        if report.lock.acquire(blocking=False):
            free.append(True)
            report.lock.release()

    def write(line: str) -> None:
        lines.append(line)
        other = threading.Thread(target=try_lock)
        other.start()
        other.join()

    lines: list[str] = []
    free: list[bool] = []
    report = JsonReport(write)
    save(folder / "a.tif", noise(64, 64, 3, dtype="u2") // 16)
    restore = ByModel.restore

    def small_device(self: ByModel, part: Tensor, *more: Any) -> Tensor:
        if part.shape[2] * part.shape[3] > 1200:
            raise torch.OutOfMemoryError("no memory")
        return restore(self, part, *more)

    monkeypatch.setattr(ByModel, "restore", small_device)
    assert Loop(method(network()), report, AMPLE).run(jobs_of(folder, "a.tif")).done == 1
    assert any("smaller tiles" in line for line in lines)
    assert not free


def test_tasks_run_in_order_and_all_before_the_end() -> None:
    done: list[int] = []
    with Behind() as behind:
        for number in range(50):
            behind.do(lambda number=number: done.append(number), 1 << 30)  # type: ignore[misc]
    assert done == list(range(50))


# -- the command


def run(*arguments: object, stdin: bytes | None = None) -> Any:
    return CliRunner().invoke(denoise, [str(one) for one in arguments], input=stdin)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "half.safetensors"
    halving().save(path)
    return path


def test_the_command_reports_bad_files_and_its_status_is_one(tmp_path: Path, model: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png", "c-denoised.png", "a-denoised.png"):
        save(tmp_path / "in" / name, noise(5, 6, 3))
    (tmp_path / "in/bad.png").write_bytes(b"bad")
    result = run(model, tmp_path / "in", "-o", tmp_path / "out", "--recursive")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == f"denoising {tmp_path / 'in'} with {model}"
    assert lines[1] == "left out 1 earlier result (*-denoised.*)"
    assert lines[2].startswith(f"error: {tmp_path / 'in/bad.png'}: cannot be read as an image")
    assert lines[-1] == f"1 image of 4 not denoised: {tmp_path / 'in/bad.png'}"
    results = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert results == ["a.png", "c-denoised.png", "sub/b.png"]
    again = run(model, tmp_path / "in", "-o", tmp_path / "out", "--recursive", "--resume")
    assert "3 images skipped, since the results exist" in again.stderr


def test_the_command_speaks_json(tmp_path: Path, model: Path) -> None:
    save(tmp_path / "a.png", noise(5, 6, 3))
    (tmp_path / "b.png").write_bytes(b"bad")
    result = run(model, tmp_path / "a.png", tmp_path / "b.png", "--json")
    assert result.exit_code == 1
    assert result.stderr == ""
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert told[0] == {"event": "begin", "model": str(model), "inputs": 2}
    assert told[1] == {"event": "start", "images": 2, "skipped": 0}
    images = {event["status"]: event for event in told if event["event"] == "image"}
    assert images["done"]["output"] == str(tmp_path / "a-denoised.png")
    assert "cannot be read as an image" in images["failed"]["error"]
    end = told[-1]
    assert (end["event"], end["done"], end["failed"], end["skipped"]) == ("end", 1, 1, 0)
    assert end["elapsed_s"] >= end["network_s"] > 0


@pytest.mark.parametrize("name", ["-a.png", "a b[1]*?.png", "\udcff\udc80.png", "é\n.png"])
def test_any_name_of_a_file_works(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Dashes, spaces, brackets, bytes that are not UTF-8, and the end of a line."""
    pixels = noise(5, 6, 3)
    save(tmp_path / "plain.png", pixels).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    result = run(model, "--json", "--", name)
    assert result.exit_code == 0, result.output
    target = Path(f"{name.removesuffix('.png')}-denoised.png")
    (done,) = (e for e in map(json.loads, result.stdout.splitlines()) if e["event"] == "image")
    assert done["output"] == str(target)
    image = Image.open(io.BytesIO(target.read_bytes()))
    np.testing.assert_allclose(np.asarray(image), pixels / 2, atol=0.51)
    assert run(model, "--overwrite", "--", name).exit_code == 0


def test_the_standard_input_becomes_the_standard_output(tmp_path: Path, model: Path) -> None:
    pixels = noise(5, 6, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    result = run(model, "-", "-o", "-", stdin=file.getvalue())
    assert result.exit_code == 0, result.stderr
    image = Image.open(io.BytesIO(result.stdout_bytes))
    assert image.format == "PNG"
    np.testing.assert_allclose(np.asarray(image), pixels / 2, atol=0.51)
    result = run(model, "-", "-o", tmp_path / "b.tif", stdin=file.getvalue())
    assert result.exit_code == 0, result.stderr
    np.testing.assert_allclose(tifffile.imread(tmp_path / "b.tif"), pixels / 2, atol=0.51)
    for data, message in ((b"", "has no bytes"), (b"text", "-: cannot be read as an image")):
        refused = run(model, "-", "-o", "-", stdin=data)
        assert isinstance(refused.exception, DataError)
        assert message in str(refused.exception)
    both = run(model, "-", "-o", "-", "--json", stdin=file.getvalue())
    assert "both write to the standard output" in str(both.exception)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_result_is_written_to_the_standard_output_before_that_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job.of(save(folder / "a.png", noise(5, 6, 3)), Path("-"))
    with Path("/dev/full").open("wb") as full, streamed([job], io.BytesIO(), full) as jobs:
        loop = Loop(method(halving()), TextReport(), AMPLE)
        expected = r"^-: the result cannot be written to the standard output \(No space left"
        with pytest.raises(WriteError, match=expected):
            loop.run(jobs)
    assert capsys.readouterr().err == ""


def test_a_result_has_the_format_of_an_image_whose_name_does_not_say_it(
    tmp_path: Path, model: Path
) -> None:
    pixels = noise(5, 6, 3)
    save(tmp_path / "a.png", pixels).rename(tmp_path / "plain")
    result = run(model, tmp_path / "plain")
    assert result.exit_code == 0, result.stderr
    target = tmp_path / "plain-denoised.png"
    assert f"wrote {target}" in result.stderr
    np.testing.assert_allclose(np.asarray(Image.open(target)), pixels / 2, atol=0.51)
    (tmp_path / "text").write_text("no image")
    refused = run(model, tmp_path / "text")
    assert refused.exit_code == 1
    assert f"error: {tmp_path / 'text'}: cannot be read as an image" in refused.stderr


def test_a_wrong_ending_is_noted_and_the_standard_output_has_the_format_of_the_content(
    tmp_path: Path, model: Path
) -> None:
    save(tmp_path / "a.png", noise(5, 6, 3)).rename(tmp_path / "wrong.jpg")
    result = run(model, tmp_path / "wrong.jpg")
    told = "wrong.jpg: is a PNG, but its name ends in .jpg, so the result is a JPEG\n"
    assert told in result.stderr
    with open_image(tmp_path / "wrong-denoised.jpg") as written_file:
        assert written_file.format == "jpeg"
    result = run(model, tmp_path / "wrong.jpg", "-o", "-")
    assert "is a PNG" not in result.stderr
    assert Image.open(io.BytesIO(result.stdout_bytes)).format == "PNG"
    result = run(model, tmp_path / "wrong.jpg", "-o", tmp_path / "b.tif")
    assert "is a PNG" not in result.stderr


def test_a_format_that_is_only_read_becomes_a_tiff_on_the_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Raw:
        format, path = "raw", Path("photo.dng")

    monkeypatch.setattr(written, "open_image", lambda _path: contextlib.nullcontext(Raw))
    job = Job.of(tmp_path / "photo.dng", Path("-"))
    with streamed([job], io.BytesIO(), io.BytesIO()) as changed:
        assert changed[0].result.name == "result.tif"


def test_folders_that_cannot_be_listed_are_reported(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "closed/b.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / "in" / name, noise(5, 6, 3))
    closed = tmp_path / "in/closed"
    scan = os.scandir

    def scandir(folder: Any) -> Any:
        if Path(folder) == closed:
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    arguments = (model, tmp_path / "in", "-o", tmp_path / "out", "--recursive")
    result = run(*arguments, "--json")
    assert result.exit_code == 1
    assert result.stderr == ""
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert {
        "event": "folder",
        "input": str(closed),
        "status": "failed",
        "error": "cannot be listed (Permission denied)",
    } in told
    assert told[-1]["event"] == "end"
    said = run(*arguments, "--overwrite").stderr.splitlines()
    assert f"error: {closed}: cannot be listed (Permission denied)" in said
    assert said[-1] == f"not searched: {closed}"


def measured(name: str, plane: int, std: float, kind: Kind = "camera") -> Measured:
    noise = FoundNoise(std=std, neighbours=0.5, channels=None, blocks=False)
    job = Job.of(Path(name), Path("out", name))
    return Measured(job, plane, noise, kind, f"noise: deviation {std}")


def test_the_noise_of_a_few_images_is_told_one_by_one_and_of_many_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    end = Summary(0, 0, 0, 1.0, 1.0)
    report = TextReport()
    report.start(2, 0)
    for name in ("a.jpg", "b.jpg"):
        report.noise(measured(name, 0, 3.3))  # also where the texts are equal
    report.end(end)
    said = capsys.readouterr().err
    assert said == "a.jpg: noise: deviation 3.3\nb.jpg: noise: deviation 3.3\n"
    report = TextReport()
    report.start(1200, 0)
    for number in range(1200):
        report.noise(measured(f"{number}.jpg", 0, 1.2 + number % 3))
    report.noise(measured("c.jpg", 0, 8.04, "gaussian"))
    assert capsys.readouterr().err == ""
    report.end(end)
    assert capsys.readouterr().err == (
        "noise: standard deviation 1.2 to 8.0 of 255 (median 2.2); "
        "model: camera for 1,200 images, gaussian for 1\n"
    )


def test_the_noise_of_a_stack_is_told_for_the_first_plane_and_then_in_short(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = TextReport()
    report.start(1, 0)
    for plane in range(50):
        report.noise(measured("a.tif", plane, 4.0))
    report.end(Summary(0, 0, 0, 1.0, 1.0))
    assert capsys.readouterr().err == (
        "a.tif: noise: deviation 4.0\nnoise: standard deviation 4.0 of 255; model: camera\n"
    )


def test_programs_get_the_noise_of_each_image() -> None:
    lines: list[str] = []
    JsonReport(lines.append).noise(measured("a.jpg", 2, 3.30004, "gaussian"))
    assert json.loads(lines[0]) == {
        "event": "noise",
        "input": "a.jpg",
        "plane": 2,
        "model": "gaussian",
        "std": 3.3,
        "neighbours": 0.5,
        "channels": None,
        "blocks": False,
    }


def test_a_result_that_is_encoded_as_a_whole_counts_as_memory(folder: Path) -> None:
    """Reading is by parts for both results, and only a TIFF is written by parts."""
    save(folder / "a.tif", noise(64, 64, 3))
    model = method(network())
    reach = model.reach()
    assert reach is not None
    whole_bytes = 3 * 64 * 64 * 3
    bound = Bound(int((whole_bytes + 800 * (reach.pixel_bytes + 300)) / 0.92))
    blocks = {}
    for result in ("b.tif", "b.jpg"):
        image = open_job(Job.of(folder / "a.tif", folder / result), model, bound)
        blocks[result] = len(image.blocks)
        image.close()
    assert 1 < blocks["b.tif"] < blocks["b.jpg"]


@pytest.mark.parametrize(
    ("source", "result", "copies"),
    [
        ("a.tif", "b.tif", 0),
        ("a.tif", "b.npy", 0),
        ("a.png", "b.tif", 0),
        ("a.bmp", "b.bmp", 0),
        ("a.tif", "b.bmp", 3),
        ("a.tif", "b.JPG", 3),
        ("a.png", "b.png", 0),
        ("a.tif", "b.webp", 14),
    ],
)
def test_only_results_that_are_encoded_as_a_whole_take_memory_as_a_whole(
    tmp_path: Path, source: str, result: str, copies: int
) -> None:
    save(tmp_path / source, noise(4, 5, 3))
    with open_image(tmp_path / source) as opened:
        assert written.copies_in_memory(tmp_path / result, opened) == copies


def test_the_help_needs_no_torch() -> None:
    """And so the first line is there at once."""
    code = (
        "import sys; import graphnet_denoise.commands.denoise; "
        "print({'torch', 'numpy', 'PIL', 'networkx'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("set()\n", "")


def test_the_text_says_how_long_it_takes_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = TextReport()
    job = Job.of(Path("a.png"), Path("b.png"))
    report.start(200, 0)
    report.begun = report.last = report.last - 60
    report.progress(50.5, job)
    assert capsys.readouterr().err == "25% of 200 images, 2 min 58 s left\n"
    report.progress(51, job)  # not again at once
    assert capsys.readouterr().err == ""


def test_a_result_says_that_it_was_denoised(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def noted(target: Path, source: Any, *, history: str) -> Any:
        seen.append(history)
        return create_like(target, source, history=history)

    monkeypatch.setattr(loop_module, "create_like", noted)
    save(folder / "a.png", noise(4, 4, 3))
    events(method(halving()), jobs_of(folder, "a.png"))
    assert seen == ["denoised with graphnet-denoise"]
    with open_image(folder / "out/a.png") as result:
        assert result.shape == (4, 4, 3)
