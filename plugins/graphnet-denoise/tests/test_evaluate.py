"""`graphnet evaluate` on files: which belong together, in which range, and what is said of them."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner
from graphnet_denoise import plugin
from graphnet_denoise.commands import evaluate as evaluate_module
from graphnet_denoise.commands.evaluate import evaluate
from graphnet_denoise.matching import match_folders, pairs_in
from graphnet_denoise.scoring import Adjustment
from numpy.typing import NDArray
from PIL import Image

import graphnet
from graphnet.errors import DataError, GraphnetError
from graphnet.sdk import load_registry


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = load_registry(plugins=[plugin], entry_points=False)
    monkeypatch.setattr(evaluate_module, "default_registry", lambda: registry)


def run(*arguments: object, status: int = 0) -> str:
    command: click.Command = evaluate
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if isinstance(result.exception, GraphnetError):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


def measured(tmp_path: Path, *arguments: object, status: int = 0) -> dict[str, Any]:
    run(*arguments, "--json", tmp_path / "report.json", status=status)
    record: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    return record


def picture(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(40, 200, shape, dtype=np.uint8)


def save(path: Path, pixels: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    return path


def affine_model(path: Path, gain: float, offset: float, **layers: Any) -> Path:
    """A model of one channel that computes gain x + offset; `layers` come before."""
    given = [{"id": id, **layer} for id, layer in layers.items()]
    description = {
        "input": {"channels": 1},
        "layers": [*given, {"id": "c", "conv2d": {"out_channels": 1, "kernel_size": 1}}],
    }
    weights = {"c.weight": torch.full((1, 1, 1, 1), gain), "c.bias": torch.tensor([offset])}
    graphnet.Model(description).with_weights(weights).save(path)
    return path


# -- which images belong together --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noisy", "clean"),
    [
        ("noisy/x.png", "clean/x.tif"),
        ("lq/x.png", "gt/x.png"),
        ("A/x.png", "B/x.png"),
        ("LQ/x_lq.png", "HQ/x_hq.png"),
        ("low/x.png", "high/x.png"),
        ("x_noisy.png", "x_clean.png"),
        ("x_real.png", "x_mean.png"),
    ],
)
def test_pairs_are_found_by_the_usual_names(tmp_path: Path, noisy: str, clean: str) -> None:
    first, second = (save(tmp_path / name, picture(4, 4)) for name in (noisy, clean))
    save(tmp_path / noisy.replace("x", "y"), picture(6, 5))
    save(tmp_path / clean.replace("x", "y"), picture(6, 5))
    pairs = pairs_in(tmp_path)
    assert pairs is not None
    assert (pairs[0].image, pairs[0].clean, len(pairs)) == (first, second, 2)


def test_images_without_a_partner_are_named(tmp_path: Path) -> None:
    for name in ("a/x.png", "a/y.png", "b/x.png", "b/z.png"):
        save(tmp_path / name, picture(4, 4))
    with pytest.raises(DataError, match=r"2 without a partner: .*y\.png.*z\.png"):
        pairs_in(tmp_path)
    save(tmp_path / "a" / "x.tif", picture(4, 4))
    with pytest.raises(DataError, match="would both be the partner of one image"):
        match_folders(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").mkdir()
    assert pairs_in(tmp_path / "c") is None
    with pytest.raises(DataError, match="found none"):
        match_folders(tmp_path / "c", tmp_path / "c")


def test_images_of_other_sizes_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "noisy/x.png", picture(12, 12))
    save(tmp_path / "clean/x.png", picture(12, 13))
    with pytest.raises(DataError, match=r"12 x 12 pixels, but .* of 12 x 13"):
        run(tmp_path / "noisy", tmp_path / "clean")


def cut(path: Path) -> Path:
    """Keep half of a file."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def test_a_pair_that_cannot_be_compared_is_left_out_and_named(tmp_path: Path) -> None:
    clean = picture(12, 12)
    for name in ("a", "b", "c", "d", "e"):
        save(tmp_path / f"noisy/{name}.png", clean + 20)
        save(tmp_path / f"results/{name}.png", clean + 2)
        save(tmp_path / f"clean/{name}.png", clean)
    cut(tmp_path / "noisy/a.png")
    cut(tmp_path / "clean/b.png")
    cut(tmp_path / "results/c.png")
    # Of a stack, the planes before the damage do not count either.
    tifffile.imwrite(tmp_path / "noisy/f.tif", np.stack([clean] * 5), compression="zlib")
    tifffile.imwrite(tmp_path / "clean/f.tif", np.stack([clean] * 5))
    with tifffile.TiffFile(tmp_path / "noisy/f.tif") as stack:
        place = stack.pages[2].dataoffsets[0]
    with (tmp_path / "noisy/f.tif").open("r+b") as file:
        file.seek(place)
        file.write(bytes(8))
    save(tmp_path / "results/f.tif", np.stack([clean] * 5))
    folders = [tmp_path / name for name in ("noisy", "results", "clean")]
    record = measured(tmp_path, *folders, status=1)
    assert [row["name"] for row in record["images"]] == ["d.png", "e.png"]
    assert record["psnr_noisy_db"] == pytest.approx(20 * math.log10(255 / 20), abs=1e-3)
    bad = ["noisy/a.png", "clean/b.png", "results/c.png", "noisy/f.tif"]
    assert [text.split(":")[0] for text in record["left_out"]] == [str(tmp_path / x) for x in bad]
    said = run(*folders, status=1)
    assert f"error: {tmp_path / 'noisy/a.png'}: cannot be read as a PNG" in said
    last = said.splitlines()[-1]
    assert last.startswith(f"4 images of 6 not compared: {tmp_path / 'noisy/a.png'}, ")
    assert last.endswith(" and 1 more, see above")
    for name in ("d", "e"):
        cut(tmp_path / f"clean/{name}.png")
    with pytest.raises(DataError, match=r"a\.png: cannot be read as a PNG"):
        run(*folders)


def test_an_image_of_which_nothing_can_be_measured_is_left_out_and_named(tmp_path: Path) -> None:
    model = affine_model(tmp_path / "m.safetensors", 1.0, 0.0)
    for folder in ("noisy", "clean"):
        save(tmp_path / folder / "x.png", picture(12, 12))
        save(tmp_path / folder / "z.png", picture(4, 4))
    record = measured(tmp_path, model, tmp_path, "--crop", 2, status=1)
    assert record["pairs"] == 1
    assert record["left_out"][0].startswith(f"{tmp_path / 'noisy/z.png'}: a border of 2 pixels")


# -- scores ------------------------------------------------------------------------------------------


def test_pairs_of_any_sizes_are_scored_one_by_one(tmp_path: Path) -> None:
    model = affine_model(tmp_path / "m.safetensors", 1.0, -9 / 255)
    for name, size, error in (("x", (12, 20), 10), ("y", (16, 16), 19)):
        clean = picture(*size)
        save(tmp_path / f"clean/{name}.png", clean)
        save(tmp_path / f"noisy/{name}.png", clean + error)
    record = measured(tmp_path, model, tmp_path, "--csv", tmp_path / "rows.csv")
    noisy = [20 * math.log10(255 / 10), 20 * math.log10(255 / 19)]
    denoised = [20 * math.log10(255 / 1), 20 * math.log10(255 / 10)]
    assert record["psnr_noisy_db"] == pytest.approx(sum(noisy) / 2, abs=1e-3)
    assert record["psnr_denoised_db"] == pytest.approx(sum(denoised) / 2, abs=1e-3)
    assert [row["psnr_denoised_db"] for row in record["images"]] == pytest.approx(
        denoised, abs=1e-3
    )
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["x.png", "y.png"]
    assert [float(row["psnr_noisy_db"]) for row in rows] == pytest.approx(noisy, abs=1e-3)
    assert (rows[0]["height"], rows[0]["width"]) == ("12", "20")
    assert "x.png" in run(model, tmp_path, "--images")
    assert "x.png" not in run(model, tmp_path)


def test_without_a_model_the_included_one_is_used(tmp_path: Path) -> None:
    clean = np.full((16, 16, 3), 128, np.uint8)
    noise = np.random.default_rng(0).normal(0, 20, clean.shape)
    save(tmp_path / "lq/x.png", (clean + noise).clip(0, 255).astype(np.uint8))
    save(tmp_path / "gt/x.png", clean)
    record = measured(tmp_path, tmp_path)
    assert record["psnr_denoised_db"] > record["psnr_noisy_db"] + 6


def test_folders_are_compared_without_a_model(tmp_path: Path) -> None:
    clean = picture(12, 12)
    for name, error in (("clean", 0), ("results", 2), ("others", 20)):
        save(tmp_path / name / "x.png", clean + np.uint8(error))
    two = measured(tmp_path, tmp_path / "results", tmp_path / "clean")
    assert two["model"] is None
    assert two["psnr_noisy_db"] == pytest.approx(20 * math.log10(255 / 2), abs=1e-3)
    assert "psnr_denoised_db" not in two
    three = measured(tmp_path, tmp_path / "others", tmp_path / "results", tmp_path / "clean")
    assert three["psnr_noisy_db"] == pytest.approx(20 * math.log10(255 / 20), abs=1e-3)
    assert three["psnr_denoised_db"] == two["psnr_noisy_db"]


def test_equal_images_are_called_equal(tmp_path: Path) -> None:
    for name in ("x", "y"):
        save(tmp_path / f"a/{name}.png", picture(12, 12))
        save(tmp_path / f"b/{name}.png", picture(12, 12))
    output = run(tmp_path / "a", tmp_path / "b")
    assert "equal" in output
    assert "inf" not in output
    assert "2 of 2 images equal their targets" in " ".join(output.split())
    save(tmp_path / "b/y.png", picture(12, 12) + 1)
    record = measured(tmp_path, tmp_path / "a", tmp_path / "b", "--affine")
    assert record["exact_pairs"] == 1
    assert record["images"][0]["psnr_noisy_db"] is None
    assert record["images"][0]["noisy_equals_target"]
    assert not record["images"][1]["noisy_equals_target"]


def test_a_perfect_result_of_a_noisy_image_gives_no_infinite_gain(tmp_path: Path) -> None:
    clean = picture(12, 12)
    save(tmp_path / "noisy/x.png", clean + 9)
    for folder in ("results", "clean"):
        save(tmp_path / folder / "x.png", clean)
    output = run(tmp_path / "noisy", tmp_path / "results", tmp_path / "clean")
    assert "inf" not in output
    assert "equal" in output


def test_the_border_is_left_out_and_gain_and_offset_are_fitted(tmp_path: Path) -> None:
    clean = picture(20, 20)
    changed = clean // 2 + np.uint8(30)
    changed[:3] = 0
    save(tmp_path / "a/x.png", changed)
    save(tmp_path / "b/x.png", clean)
    fitted = measured(tmp_path, tmp_path / "a", tmp_path / "b", "--affine", "--crop", 3)
    # What is left is the rounding of clean / 2: 0 or 1/2, uniformly, times the gain of 2.
    assert fitted["psnr_noisy_db"] == pytest.approx(20 * math.log10(255 / 0.5), abs=0.3)
    assert measured(tmp_path, tmp_path / "a", tmp_path / "b")["psnr_noisy_db"] < 20
    with pytest.raises(DataError, match="leaves nothing of an image of 20 x 20"):
        run(tmp_path / "a", tmp_path / "b", "--crop", 10)
    zeros = torch.zeros(1, 1, 4, 4)
    assert Adjustment(affine=True)(zeros, zeros + 1)[0].eq(1).all()


# -- ranges ------------------------------------------------------------------------------------------


def test_twelve_bits_in_sixteen_are_noticed(tmp_path: Path) -> None:
    clean = np.random.default_rng(0).integers(0, 4096, (40, 40)).astype(np.uint16)
    save(tmp_path / "a/x.tif", np.where(clean > 2000, clean - 41, clean + 41).astype(np.uint16))
    save(tmp_path / "b/x.tif", clean)
    record = measured(tmp_path, tmp_path / "a", tmp_path / "b")
    assert record["white"] == 4095
    assert record["psnr_noisy_db"] == pytest.approx(20 * math.log10(4095 / 41), abs=1e-3)
    assert "uses 12 of 16 bits" in run(tmp_path / "a", tmp_path / "b")


def test_floating_point_of_any_range_is_measured_in_its_range(tmp_path: Path) -> None:
    clean = np.linspace(-3, 5, 1600, dtype=np.float32).reshape(40, 40)  # as a z-scored image
    save(tmp_path / "a/x.tif", clean + np.float32(0.08))
    save(tmp_path / "b/x.tif", clean)
    record = measured(tmp_path, tmp_path / "a", tmp_path / "b")
    assert record["psnr_noisy_db"] == pytest.approx(40, abs=0.05)
    assert "another range" not in run(tmp_path / "a", tmp_path / "b")
    save(tmp_path / "a/x.tif", clean + np.float32(5))
    assert "another range than their targets" in run(tmp_path / "a", tmp_path / "b")
    assert "another range" not in run(tmp_path / "a", tmp_path / "b", "--affine")


def test_results_in_floating_point_have_the_unit_of_the_integers(tmp_path: Path) -> None:
    clean = np.random.default_rng(0).integers(0, 60000, (20, 20)).astype(np.uint16)
    save(tmp_path / "b/x.tif", clean)
    save(tmp_path / "a/x.tif", clean.astype(np.float32) + 655.35)
    assert measured(tmp_path, tmp_path / "a", tmp_path / "b")["psnr_noisy_db"] == pytest.approx(
        40, abs=0.01
    )
    save(tmp_path / "a/x.tif", clean.astype(np.float32) / 65535 + 0.01)
    assert measured(tmp_path, tmp_path / "a", tmp_path / "b")["psnr_noisy_db"] == pytest.approx(
        40, abs=0.01
    )


def test_a_model_that_knows_its_range_gets_the_numbers_of_the_files(tmp_path: Path) -> None:
    scaled = {"normalized": {"rescale": {"factor": 1.0}}}
    model = affine_model(tmp_path / "m.safetensors", 1.0, -655.35, **scaled)
    clean = np.random.default_rng(0).integers(700, 60000, (12, 12)).astype(np.uint16)
    save(tmp_path / "noisy/x.tif", clean + np.uint16(1000))
    save(tmp_path / "clean/x.tif", clean)
    expected = 20 * math.log10(65535 / (1000 - 655.35))
    for options in ([], ["--self-ensemble"]):
        record = measured(tmp_path, model, tmp_path, *options)
        assert record["psnr_denoised_db"] == pytest.approx(expected, abs=1e-3)


# -- without clean images ----------------------------------------------------------------------------


def test_a_model_is_judged_without_clean_images(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    flat = np.full((2, 160, 160), 128.0) + np.linspace(-60, 60, 160)
    for i, image in enumerate(flat + draws.normal(0, 12, flat.shape)):
        save(tmp_path / f"{i}.png", image.clip(0, 255).astype(np.uint8))
    same = affine_model(tmp_path / "same.safetensors", 1.0, 0.0)
    record = measured(tmp_path, same, tmp_path, "--without-clean")
    # A hidden pixel is replaced by another one: twice the variance of the noise, and the picture's slope.
    assert record["score_db"] == pytest.approx(
        20 * math.log10(record["peak"] / (12 * math.sqrt(2))), abs=0.4
    )
    assert record["noise_db"] == pytest.approx(20 * math.log10(record["peak"] / 12), abs=0.4)
    assert record["residual"] == pytest.approx(0, abs=1e-3)
    assert 0 < record["score_error_db"] < 0.4
    assert "less was removed than there is noise" in run(same, tmp_path, "--without-clean")
    half = affine_model(tmp_path / "half.safetensors", 0.5, 0.25)
    assert measured(tmp_path, half, tmp_path, "--without-clean")["contrast_lost"] == pytest.approx(
        1, abs=0.01
    )
    assert "of the picture's contrast was removed" in run(half, tmp_path, "--without-clean")
    double = affine_model(tmp_path / "double.safetensors", 2.0, -0.5)
    assert "contrast of details of 8 pixels was added" in run(double, tmp_path, "--without-clean")


def test_pixels_without_a_number_and_without_a_picture_are_judged_in_words(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).normal(1000, 30, (96, 96)).astype(np.float32)
    noisy[3, 5] = np.nan
    (tmp_path / "some").mkdir()
    (tmp_path / "even").mkdir()
    np.save(tmp_path / "some" / "a.npy", noisy)
    np.save(tmp_path / "even" / "a.npy", np.full((96, 96), 7, np.uint16))
    half = affine_model(tmp_path / "half.safetensors", 0.5, 0.25)
    record = measured(tmp_path, half, tmp_path / "some", "--without-clean")
    assert math.isfinite(record["score_db"])
    with pytest.raises(DataError, match="all pixels are equal"):
        run(half, tmp_path / "even", "--without-clean")


def test_a_damaged_noisy_image_is_left_out_and_the_status_says_so(tmp_path: Path) -> None:
    half = affine_model(tmp_path / "half.safetensors", 0.5, 0.25)
    for name in ("x", "y"):
        save(tmp_path / f"in/{name}.png", picture(96, 96))
    cut(tmp_path / "in/y.png")
    record = measured(tmp_path, half, tmp_path / "in", "--without-clean", status=1)
    assert record["images"] == 1
    assert [text.split(":")[0] for text in record["left_out"]] == [str(tmp_path / "in/y.png")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "b", "c", "d"], "one to three folders, found 4"),
        (["m.safetensors", "a", "b", "c"], "DATA, or NOISY and CLEAN, found 3"),
        (["a", "b", "--noise", "gaussian:25"], "one folder or file, found 2"),
        (["a", "--noise", "gaussian:25", "--without-clean"], "Give one of them"),
        (["absent", "b"], "cannot be listed"),
    ],
)
def test_arguments_without_a_meaning_are_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        run(*arguments)


def test_photos_that_are_too_small_to_sample_get_advice_for_this_command(tmp_path: Path) -> None:
    save(tmp_path / "x.png", picture(40, 40, 3))
    with pytest.raises(DataError, match="--noise gaussian:25") as caught:
        run(tmp_path)
    assert "set size" not in str(caught.value)
