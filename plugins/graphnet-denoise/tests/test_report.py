"""The report of a training run: its numbers, and its page in a browser."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from graphnet_denoise.ranges import Range
from graphnet_denoise.report.examples import Example, read_example
from graphnet_denoise.report.network import training_data
from graphnet_denoise.report.page import page, page_data
from graphnet_denoise.report.pictures import Pictured, correlations, spectrum
from graphnet_denoise.report.run import Run, read_run
from graphnet_denoise.restoring import Restorer
from PIL import Image, ImageOps
from playwright.sync_api import Page, expect, sync_playwright

import graphnet as gn
from graphnet.cli import run as graphnet_command
from graphnet.errors import CheckpointError

EVIL = "</script><script>window.broken=1</script>"
RECORDS: list[dict[str, Any]] = [
    {"kind": "start", "step": 0, "versions": {"torch": "2.13"}, "device": "cpu", "input": [2, 3, 8, 8],
     "config": {"name": EVIL, "epochs": 2, "data": {"train": "a.npz"}, "loss": "mse",
                "optimizer": {"sgd": {"lr": 0.1}}},
     "precision": "float32"},
    {"kind": "steps", "epoch": 1, "step": 10, "loss": 0.5, "lr": 0.1},
    {"kind": "epoch", "epoch": 1, "step": 10, "loss": 0.5, "metrics": {"psnr": 20.5}, "elapsed_s": 3.0},
    {"kind": "steps", "epoch": 2, "step": 20, "loss": None, "lr": 0.1},
    {"kind": "epoch", "epoch": 2, "step": 20, "loss": 0.3, "metrics": {"psnr": 25.25}, "elapsed_s": 6.0},
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run whose model halves each value, and a noisy image beside it."""
    folder = tmp_path / "a run"
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in RECORDS))
    conv = {"out_channels": 3, "kernel_size": 1, "bias": False}
    description = {"input": {"channels": 3}, "layers": [{"conv2d": conv}]}
    weights = {"conv2d_1.weight": torch.eye(3).reshape(3, 3, 1, 1) / 2}
    gn.Model(description, weights=weights).save(folder / "model.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 60), dtype=np.uint8)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "noisy.png")
    return folder


def decoded(address: str) -> Any:
    head, text = address.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_pictures_show_what_was_removed() -> None:
    noisy, denoised = torch.rand(3, 16, 20), torch.rand(3, 16, 20)
    data = Pictured("a", noisy, denoised, target=noisy).data()
    np.testing.assert_array_equal(
        decoded(data["images"]["noisy"]), (noisy * 255).round().permute(1, 2, 0).byte()
    )
    removed = (noisy - denoised).double()
    expected = (0.5 + removed / (8 * removed.std(correction=0))).clamp(0, 1) * 255
    np.testing.assert_allclose(
        decoded(data["images"]["removed"]), expected.permute(1, 2, 0), atol=0.51
    )
    assert data["numbers"]["removed, standard deviation in 255ths"] == pytest.approx(
        255 * float(removed.std(correction=0))
    )
    error = float((denoised - noisy).square().mean())
    assert data["numbers"]["PSNR of the denoised image against the target, dB"] == pytest.approx(
        -10 * np.log10(error), rel=1e-5
    )


def test_a_wave_stands_out_in_the_spectrum_at_its_frequency() -> None:
    x = np.arange(64)
    wave = np.cos(2 * np.pi * x / 4)[None, None].repeat(64, axis=1)  # 1/4 cycle a pixel
    power, rings = spectrum(wave)
    assert max(rings, key=lambda ring: ring[1])[0] == pytest.approx(0.25, abs=1 / 64)
    assert set(np.argwhere(power > power.max() / 2)[:, 1].tolist()) == {16, 48}


def test_correlations_are_those_of_numpy() -> None:
    removed = np.random.default_rng(0).standard_normal((1, 50, 50)).cumsum(axis=2)
    removed -= removed.mean()
    found = correlations(removed)
    expected = (removed[0, :, 1:] * removed[0, :, :-1]).mean() / removed.var()
    assert found["the pixel to the right"] == pytest.approx(expected)


def test_a_line_that_is_still_being_written_does_not_count(run: Path) -> None:
    with (run / "log.jsonl").open("a") as log:
        log.write('{"kind": "steps", "st')
    found = read_run(run)
    assert (len(found.steps), len(found.epochs), found.stopped) == (2, 2, "")
    assert found.model == run / "model.safetensors"


def test_what_is_no_run_is_refused_in_words(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected the folder of a training run"):
        read_run(tmp_path)
    (run / "log.jsonl").write_text("3\n")
    with pytest.raises(CheckpointError, match="log.jsonl:1: not a record"):
        read_run(run)
    assert graphnet_command(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 2


def test_an_image_that_cannot_be_read_is_left_out_and_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    arguments = ["report", str(run), str(tmp_path / "text.png"), str(tmp_path / "noisy.png")]
    assert graphnet_command([*arguments, "--most", "1", "-o", str(tmp_path / "r.html")]) == 0
    said = capsys.readouterr()
    assert "images: 1" in said.out
    assert f"Left out {tmp_path / 'text.png'}: cannot be read as an image" in said.err
    assert graphnet_command([*arguments[:3], "-o", str(tmp_path / "s.html")]) == 2
    assert "text.png: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "s.html").exists()


def test_names_from_a_file_end_no_script(run: Path) -> None:
    assert page(page_data(EVIL, run=read_run(run))).count("</script>") == 2


def test_a_run_without_images_says_why(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its training file names a validation that is gone."""
    start = {**RECORDS[0], "config": {"data": {"validation": "gone.npz"}}}
    (run / "log.jsonl").write_text(json.dumps(start) + "\n")
    assert graphnet_command(["report", str(run), "-o", str(tmp_path / "r.html")]) == 0
    assert "validation cannot be shown: gone.npz" in capsys.readouterr().err
    (run / "model.safetensors").unlink()
    assert graphnet_command(["report", str(run), "-o", str(tmp_path / "r.html")]) == 0
    assert "not written a model yet" in capsys.readouterr().err


def test_a_model_that_knows_its_range_gets_the_numbers_of_the_file() -> None:
    """It returns 1000 everywhere, which is the middle of the range 0..2000."""
    layers = [
        {"id": "normalized", "rescale": {"factor": 0.0}},
        {"id": "result", "add_scalar": {"value": 1000.0}},
    ]
    model = gn.Model({"input": {"channels": 1}, "layers": layers}, weights={})
    noisy = np.random.default_rng(0).integers(0, 2000, (1, 8, 9), dtype=np.uint16)
    found = Example("a", noisy, Range(0.0, 2000.0)).denoise(Restorer.of(model))
    np.testing.assert_allclose(found.noisy, noisy / 2000, rtol=1e-6)
    np.testing.assert_allclose(found.denoised, np.full((1, 8, 9), 0.5), rtol=1e-6)


def test_the_middle_of_a_file_is_read_in_its_range(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 11, 8), dtype=np.uint8)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "a.png")
    found = read_example(tmp_path / "a.png", side=4)
    np.testing.assert_array_equal(found.noisy, pixels[:, 3:7, 2:6])
    np.testing.assert_allclose(found.values()[0], pixels[:, 3:7, 2:6] / 255, rtol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_denoised_as_stored_and_shown_upright(tmp_path: Path, orientation: int) -> None:
    """The model multiplies each row by its number, so that it shows which way the image lay."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1)
    example = read_example(tmp_path / "a.png")
    np.testing.assert_array_equal(example.noisy, pixels.transpose(2, 0, 1))
    found = example.denoise(Restorer.of(Darker()))
    np.testing.assert_allclose(found.noisy, expected / 255, rtol=1e-6)
    rows = Image.fromarray(np.arange(6, dtype=np.uint8)[:, None].repeat(8, axis=1))
    rows.getexif()[0x0112] = orientation
    turned_rows = np.asarray(ImageOps.exif_transpose(rows))
    np.testing.assert_allclose(found.denoised, expected / 255 * turned_rows / 6, rtol=1e-5)


class Darker:
    """A model of colour that multiplies row k by k / 6."""

    weights: Mapping[str, torch.Tensor] | None = MappingProxyType({})
    input_channels: int | None = 3

    def divisor(self) -> int:
        return 1

    def predict(self, *inputs: torch.Tensor, options: gn.CompileOptions) -> torch.Tensor:
        (x,) = inputs
        return x * torch.arange(x.shape[2])[:, None] / 6


def test_the_plan_of_a_training_step_is_told_by_its_parts(run: Path) -> None:
    model = gn.load(run / "model.safetensors")
    shown = training_data(model, read_run(run), gn.CompileOptions(device="cpu"))
    assert shown is not None
    assert shown["title"].endswith("training step on 2x3x8x8, float32, eager executor")
    parts = {part["part"]: part for part in shown["parts"]}
    assert list(parts) == ["forward pass", "loss", "reverse pass", "optimizer"]
    # A multiplication and an addition for each pixel, input channel and output channel.
    assert parts["forward pass"]["flops"] == 2 * (2 * 8 * 8) * 3 * 3
    assert parts["loss"]["steps"] == 1
    assert sum(part["steps"] for part in parts.values()) == shown["steps"] == len(shown["memory"])
    assert sum(part["seconds"] for part in parts.values()) == pytest.approx(
        shown["total"]["at_least_s"]
    )
    assert max(part["alive"] for part in parts.values()) == shown["peak"]["bytes"]
    images = 4 * (2 * 3 * 8 * 8)
    assert shown["peak"]["holds"]["inputs"] == 2 * images  # the noisy images and the targets
    assert shown["peak"]["holds"]["parameters and states"] == 4 * (3 * 3)
    assert sum(shown["peak"]["holds"].values()) <= shown["peak"]["bytes"]


def test_a_log_that_does_not_say_the_batch_shows_no_training_step(run: Path) -> None:
    model = gn.load(run / "model.safetensors")
    older = {key: value for key, value in RECORDS[0].items() if key != "input"}
    assert training_data(model, Run(run, older), gn.CompileOptions(device="cpu")) is None


def test_a_training_step_that_cannot_be_planned_is_a_remark(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = {**RECORDS[0], "config": {"loss": "gone", "optimizer": "sgd"}}
    (run / "log.jsonl").write_text(json.dumps(start) + "\n")
    assert graphnet_command(["report", str(run), "-o", str(tmp_path / "r.html")]) == 0
    assert "plan of a training step cannot be shown" in capsys.readouterr().err


def test_images_of_one_name_have_different_names_on_the_page() -> None:
    found = page_data("t", pictures=[{"name": name} for name in ("a", "a", "b", "a")])
    assert [one["name"] for one in found["pictures"]] == ["a", "a (2)", "b", "a (3)"]


# -- in a browser ------------------------------------------------------------------------------------


@pytest.fixture
def shown(run: Path, tmp_path: Path) -> Iterator[Page]:
    """The page of the run on the screen; nothing may go wrong in it, and it may ask for nothing."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if name and (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed (apt-get install chromium), and $CHROMIUM names none")
    command = ["report", str(run), str(tmp_path / "noisy.png"), "-o", str(tmp_path / "r.html")]
    assert graphnet_command(command) == 0
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"] if os.getuid() == 0 else []
        )
        screen: Any = {"width": 1000, "height": 800}
        shown = browser.new_context(offline=True, viewport=screen).new_page()
        shown.on("pageerror", lambda error: problems.append(str(error)))
        shown.on("console", lambda message: problems.append(message.text))
        shown.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:", "blob:"))
                else problems.append(request.url)
            ),
        )
        shown.goto((tmp_path / "r.html").as_uri())
        expect(shown.locator("html")).to_have_attribute("data-ready", "true")
        yield shown
        browser.close()
    assert problems == []


def box(page: Page, selector: str) -> dict[str, float]:
    found = page.locator(selector).bounding_box()
    assert found is not None
    return {"x": found["x"], "y": found["y"], "width": found["width"], "height": found["height"]}


@pytest.mark.slow
def test_the_page_compares_zooms_and_reads_its_curves(shown: Page) -> None:
    assert EVIL in shown.locator("h1").inner_text()
    assert shown.evaluate("window.broken") is None
    assert "psnr 25.25" in shown.locator("#summary").inner_text()
    assert shown.locator("#which option").all_inner_texts() == ["noisy.png"]

    # The line follows the pointer, and cuts the right image where it is.
    viewer, line = box(shown, "#viewer"), box(shown, "#divider")
    y = line["y"] + line["height"] / 2
    shown.mouse.move(line["x"] + line["width"] / 2, y)
    shown.mouse.down()
    shown.mouse.move(viewer["x"] + viewer["width"] / 4, y, steps=3)
    shown.mouse.up()
    assert shown.locator("#divider").get_attribute("aria-valuenow") == "25"
    edge = viewer["width"] / 4
    clip = shown.evaluate("getComputedStyle(document.getElementById('right')).clipPath")
    assert float(clip.split("px")[-2].split()[-1]) == pytest.approx(edge, abs=1)
    shown.keyboard.press("ArrowRight")
    assert shown.locator("#divider").get_attribute("aria-valuenow") == "27"

    # At 8:1 a pixel of the image has 8 on the screen; a drag moves both images by as much.
    shown.locator("#zooms button", has_text="8:1").click()
    assert box(shown, "#right img")["width"] == 8 * 60
    before = box(shown, "#left img")
    shown.mouse.move(viewer["x"] + viewer["width"] * 0.8, y)
    shown.mouse.down()
    shown.mouse.move(viewer["x"] + viewer["width"] * 0.8 - 40, y + 30, steps=4)
    shown.mouse.up()
    after = box(shown, "#left img")
    assert (after["x"] - before["x"], after["y"] - before["y"]) == pytest.approx((-40, 30), abs=1)
    assert box(shown, "#right img") == after
    shown.mouse.wheel(0, -100)
    assert box(shown, "#right img")["width"] == pytest.approx(10 * 60)

    shown.locator("#sides button", has_text="what was removed").click()
    assert shown.locator("#tag-right").inner_text() == "what was removed"
    rows = shown.locator("#numbers tr").all_inner_texts()
    assert any(row.startswith("removed, standard deviation") for row in rows)

    shown.locator("#metrics svg").scroll_into_view_if_needed()
    curve = box(shown, "#metrics svg")
    shown.mouse.move(curve["x"] + curve["width"] - 20, curve["y"] + 50)
    assert shown.locator("#metrics .reading").text_content() == "epoch 2: 25.25"
    assert shown.locator("#parts tbody tr").all_inner_texts()[1].startswith("loss\t1\t")
    assert shown.locator("#training-memory .mark").count() == 1
    shown.locator("#training-graph summary").click()
    title = "training step on 2x3x8x8, float32"
    expect(shown.frame_locator("#training-graph iframe").locator("body")).to_contain_text(title)
    assert shown.locator("#loss .dot").count() == 1  # the loss that is not finite is left out
