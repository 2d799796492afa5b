"""The commands, with real models and files, and each input that they refuse."""

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import skimage
import torch
from click.testing import CliRunner, Result
from graphnet_denoise import plugin
from graphnet_denoise.commands import evaluate as evaluate_module
from graphnet_denoise.commands.convert import convert_pairs
from graphnet_denoise.commands.denoise import denoise
from graphnet_denoise.commands.evaluate import evaluate
from graphnet_denoise.images import as_unit, open_image, read_pixels
from numpy.typing import NDArray
from PIL import Image

import graphnet
from graphnet.errors import CheckpointError, DataError, GraphnetError, WriteError
from graphnet.sdk import load_registry


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, *shape: int, seed: int = 0) -> Path:
    Image.fromarray(noise(*shape, seed=seed)).save(path)
    return path


def run(command: click.Command, *arguments: object) -> Result:
    """Call a command as the host does: errors of graphnet come through as they are."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if isinstance(result.exception, GraphnetError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def run_failing(command: click.Command, *arguments: object) -> str:
    """Call a command that fails for some images, and return what it says on stderr."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 1, result.output
    return result.stderr


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = load_registry(plugins=[plugin], entry_points=False)
    monkeypatch.setattr(evaluate_module, "default_registry", lambda: registry)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network of divisor 2 that halves its images: patches to 12 channels, and back."""
    description = {
        "name": "half",
        "input": {"channels": 3},
        "layers": [
            {"id": "down", "conv2d": {"out_channels": 12, "kernel_size": 2, "stride": 2}},
            {"id": "up", "upsampling": {"out_channels": 3, "kernel_size": 2, "stride": 2}},
        ],
    }
    patches = torch.eye(12).reshape(12, 3, 2, 2)
    weights = {
        "down.weight": patches,
        "down.bias": torch.zeros(12),
        "up.weight": patches / 2,
        "up.bias": torch.zeros(3),
    }
    path = tmp_path / "model.safetensors"
    graphnet.Model(description).with_weights(weights).save(path)
    return path


def test_denoise_one_image_of_odd_size(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path / "a.png", 13, 7, 3)
    run(denoise, model, source, "-o", tmp_path / "out.png")
    result = read_pixels(tmp_path / "out.png")
    expected = noise(13, 7, 3).transpose(2, 0, 1) / 2
    np.testing.assert_allclose(result, expected, atol=0.51)


def test_the_ending_of_a_model_may_have_capital_letters(tmp_path: Path, model: Path) -> None:
    source, loud = save(tmp_path / "a.png", 8, 8, 3), model.rename(tmp_path / "MODEL.SafeTensors")
    run(denoise, loud, source, "-o", tmp_path / "out.png")
    expected = noise(8, 8, 3).transpose(2, 0, 1) / 2
    np.testing.assert_allclose(read_pixels(tmp_path / "out.png"), expected, atol=0.51)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9), (300, 2, 3), (5, 5, 4), (64, 64, 2)])
def test_denoise_any_shape(tmp_path: Path, model: Path, shape: tuple[int, ...]) -> None:
    source = save(tmp_path / "a.png", *shape)
    run(denoise, model, source, "-o", tmp_path / "out.png", "--kernels", "reference")
    with open_image(source) as before, open_image(tmp_path / "out.png") as after:
        np.testing.assert_allclose(after.read(), before.read() / 2, atol=0.51)
        np.testing.assert_array_equal(after.read_extra(), before.read_extra())


def test_denoise_a_jpeg_into_a_jpeg(tmp_path: Path, model: Path) -> None:
    Image.new("RGB", (33, 17), (200, 100, 50)).save(tmp_path / "a.jpg")
    run(denoise, model, tmp_path / "a.jpg", "-o", tmp_path / "out.jpg", "--device", "cpu")
    pixels = read_pixels(tmp_path / "out.jpg")
    assert pixels.shape == (3, 17, 33)
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)), [100, 50, 25], atol=2)


def test_denoise_many_into_a_new_folder(tmp_path: Path, model: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.jpg", "c.tif"):
        save(tmp_path / "in" / name, 8, 8, 3)
    alone = save(tmp_path / "d.png", 8, 8, 3)
    run(denoise, model, tmp_path / "in", alone, "-o", tmp_path / "deep/out")
    names = sorted(path.name for path in (tmp_path / "deep/out").iterdir())
    assert names == ["a.png", "b.jpg", "c.tif", "d.png"]


def test_denoise_without_an_output_puts_results_beside_the_images(
    tmp_path: Path, model: Path
) -> None:
    sources = [save(tmp_path / name, 8, 8, 3) for name in ("a.png", "b.jpg")]
    run(denoise, model, *sources)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"a-denoised.png", "b-denoised.jpg"} <= names
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), noise(8, 8, 3))


def test_denoise_says_what_it_wrote_and_what_it_replaced(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path / "a.png", 8, 8, 3)
    out = tmp_path / "a-denoised.png"
    first = f"denoising {source} with {model}\n"
    assert run(denoise, model, source).stderr == f"{first}wrote {out}\n"
    before = out.read_bytes()
    with pytest.raises(DataError, match=r"exists already\. Add --resume .* or --overwrite"):
        run(denoise, model, source)
    assert out.read_bytes() == before
    again = run(denoise, model, source, "--overwrite").stderr
    assert again == f"{first}wrote {out} in place of an older file\n"
    (tmp_path / "in").mkdir()
    for number in range(5):
        save(tmp_path / "in" / f"{number}.png", 8, 8, 3)
    folder = tmp_path / "out"
    folder.mkdir()
    save(folder / "3.png", 3, 3)
    with pytest.raises(DataError, match="3.png exists already"):
        run(denoise, model, tmp_path / "in", "-o", folder)
    resumed = run(denoise, model, tmp_path / "in", "-o", folder, "--resume").stderr
    assert "1 image skipped, since the results exist\n" in resumed
    assert f"wrote 4 images into {folder} in " in resumed
    assert read_pixels(folder / "3.png").shape == (1, 3, 3)
    with pytest.raises(DataError, match="Give one of them"):
        run(denoise, model, tmp_path / "in", "-o", folder, "--resume", "--overwrite")


def test_denoise_without_a_model_takes_the_one_that_comes_with_it(tmp_path: Path) -> None:
    """A photo with noise of standard deviation 25 comes out closer to the photo by 8 dB, or 30 dB in all."""
    photo: NDArray[np.uint8] = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    clean = photo[:160, 160:320].astype(np.float32)
    noisy = clean + np.random.default_rng(0).normal(0, 25, clean.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(tmp_path / "photo.png")
    run(denoise, tmp_path / "photo.png")
    result = np.asarray(Image.open(tmp_path / "photo-denoised.png")).astype(np.float32)
    psnr = [10 * math.log10(255**2 / ((x - clean) ** 2).mean()) for x in (noisy, result)]
    assert psnr[1] > max(30.0, psnr[0] + 8.0)


def test_denoise_says_what_noise_it_found_and_takes_the_model_for_it(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    independent = 128 + 12 * draw.standard_normal((96, 96, 3))
    shared = 128 + 12 * draw.standard_normal((96, 96, 1)).repeat(3, axis=2)
    shared[..., 0] += 1  # channels that are equal would be a grey picture
    for name, pixels in (("a", independent), ("b", shared)):
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{name}.png")
    said = run(denoise, tmp_path, "-o", tmp_path / "out").stderr
    assert re.search(
        r"a\.png: noise: standard deviation 1[0-3]\.\d of 255, independent.*; model: gaussian", said
    )
    assert re.search(r"b\.png: noise: .*correlated between channels \(1\.0\); model: camera", said)
    again = run(denoise, tmp_path / "a.png", "--noise", "camera").stderr
    assert "independent from pixel to pixel; model: camera" in again


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_denoise_removes_a_part_of_the_noise(tmp_path: Path, model: Path, strength: float) -> None:
    source = save(tmp_path / "a.png", 8, 8, 3)
    run(denoise, model, source, "-o", tmp_path / "all.png")
    run(denoise, model, source, "-o", tmp_path / "part.png", "--strength", strength)
    noisy, clean, part = (
        torch.from_numpy(as_unit(read_pixels(tmp_path / f"{name}.png")))
        for name in ("a", "all", "part")
    )
    expected = (1 - strength) * noisy + strength * clean
    torch.testing.assert_close(part, expected, rtol=0, atol=1.01 / 255)


def test_denoise_refuses_choices_that_do_not_fit(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path / "a.png", 8, 8, 3)
    with pytest.raises(DataError, match="--noise chooses an included model"):
        run(denoise, model, source, "--noise", "camera")
    with pytest.raises(DataError, match="--noise-level is for a model that takes the noise level"):
        run(denoise, source, "--noise-level", "5")
    with pytest.raises(DataError, match="--zero-shot trains a network on each image: give"):
        run(denoise, source, "--zero-shot")
    assert not list(tmp_path.glob("*-denoised*"))


def test_denoise_one_image_into_a_folder(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path / "a.png", 8, 8, 3)
    run(denoise, model, source, "-o", tmp_path / "out")
    (tmp_path / "there.png").mkdir()
    run(denoise, model, source, "-o", tmp_path / "there.png")
    assert (tmp_path / "out/a.png").is_file()
    assert (tmp_path / "there.png/a.png").is_file()


def test_denoise_says_when_sixteen_bits_become_eight(tmp_path: Path, model: Path) -> None:
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "a.png")
    result = run(denoise, model, tmp_path / "a.png", "-o", tmp_path / "out.png")
    assert "16 bits" not in result.output
    assert read_pixels(tmp_path / "out.png").tolist() == [[[20_000] * 4] * 4]
    result = run(denoise, model, tmp_path / "a.png", "-o", tmp_path / "out.jpg")
    assert "16 bits a channel" in result.stderr


def test_denoise_tells_the_noise_level_to_a_model_that_wants_it(tmp_path: Path) -> None:
    layers = [{"id": "c", "conv2d": {"out_channels": 3, "kernel_size": 1, "bias": False}}]
    weight = torch.cat((torch.eye(3), -torch.ones(3, 1)), 1).reshape(3, 4, 1, 1)  # x - level
    model = graphnet.Model({"input": {"channels": 4}, "layers": layers})
    model.with_weights({"c.weight": weight}).save(tmp_path / "model.safetensors")
    source = save(tmp_path / "a.png", 7, 5, 3)
    told = ("--noise-level", 10, "--precision", "float32", "-o", tmp_path / "out.png")
    run(denoise, tmp_path / "model.safetensors", source, *told)
    result = read_pixels(tmp_path / "out.png")
    expected = np.clip(noise(7, 5, 3).transpose(2, 0, 1).astype(int) - 10, 0, 255)
    np.testing.assert_array_equal(result, expected)
    failing = (tmp_path / "model.safetensors", source, "-o", tmp_path / "out2.png")
    assert "If the last one is the noise level, give it too" in run_failing(denoise, *failing)

    report = tmp_path / "report.json"
    clean = tmp_path / "clean"
    clean.mkdir()
    save(clean / "a.png", 40, 30, 3)
    given = ("--noise", "gaussian:25", "--json", report)
    run(evaluate, tmp_path / "model.safetensors", clean, *given)
    found = json.loads(report.read_text())
    assert found["noise"] == "gaussian:25"
    assert found["psnr_noisy_db"] == pytest.approx(20 * math.log10(255 / 25), abs=0.3)


def test_a_model_that_is_not_told_the_noise_level_says_so(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path / "a.png", 8, 8, 3)
    said = run_failing(denoise, model, source, "-o", tmp_path / "out.png", "--noise-level", 25)
    assert "no channel for the noise level of images of 3 channels" in said


def test_evaluate_adds_noise_to_clean_images(tmp_path: Path, model: Path) -> None:
    for index, size in enumerate([(41, 30), (30, 41)]):
        save(tmp_path / f"{index}.png", *size, 3, seed=index)
    reports = []
    for name in ("a.json", "b.json"):
        result = run(evaluate, model, tmp_path, "--noise", "gaussian:50", "--json", tmp_path / name)
        reports.append(json.loads((tmp_path / name).read_text()) | {"elapsed_s": 0})
    assert "2 images of" in result.output
    assert "with gaussian:50" in result.output
    assert reports[0] == reports[1]
    assert reports[0]["psnr_noisy_db"] == pytest.approx(20 * math.log10(255 / 50), abs=0.2)
    with pytest.raises(DataError, match="--noise gaussian:x: expected noise such as"):
        run(evaluate, model, tmp_path, "--noise", "gaussian:x")
    with pytest.raises(DataError, match="absent: no such file or folder"):
        run(evaluate, model, tmp_path / "absent", "--noise", "gaussian:25")
    form = {"patches": {"path": str(tmp_path), "size": 8, "noise": {"gaussian": {"std": 1}}}}
    with pytest.raises(DataError, match="makes other pairs in each epoch"):
        run(evaluate, model, json.dumps(form))


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["a.png"], "a.png", "a.png: is an input, and would be overwritten"),
        (["a.png"], ".", "a.png: is an input, and would be overwritten"),
        (["a.png", "b.png"], "b.png/../", "a.png: is an input"),
        (["a.png", "b.png"], "out.png", "several images cannot become one file"),
        (["folder"], "out.png", "several images cannot become one file"),
        (["a.png", "folder"], "out", "a.png: would be the result of both"),
        (["a.png"], "out.xyz", r"expected a folder, or a file that ends in \.png.* found '\.xyz'"),
        (["a.png"], "file", "expected a folder, or a file"),
        (["a.png", "b.png"], "file", "expected a folder, or a file"),
        (["a.png", "b.png"], "file/out", "the folder cannot be made"),
        (["a.png"], "file/out.png", "the folder cannot be made"),
        (["a.png", "absent.png", "gone"], "out", r"no such file or folder: \S+absent.png, \S+gone"),
        (["empty"], "out", "empty: expected a folder with images"),
    ],
)
def test_denoise_refuses(
    tmp_path: Path, model: Path, inputs: Sequence[str], output: str, message: str
) -> None:
    for name in ("folder", "empty"):
        (tmp_path / name).mkdir()
    for name in ("a.png", "b.png", "folder/a.png"):
        save(tmp_path / name, 8, 8, 3)
    (tmp_path / "file").write_text("in the way")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=message):
        run(denoise, model, *(tmp_path / name for name in inputs), "-o", f"{tmp_path}/{output}")
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_denoise_without_an_output_refuses_what_has_no_clear_place(
    tmp_path: Path, model: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    both = [save(folder / name, 8, 8, 3) for name in ("a.png", "a.jpg")]
    with pytest.raises(DataError, match="photos: say where the results of a folder go"):
        run(denoise, model, folder)
    run(denoise, model, *both)
    assert (folder / "a-denoised.jpg").is_file()
    assert (folder / "a-denoised.png").is_file()
    with pytest.raises(DataError, match="there is no image to denoise with"):
        run(denoise, model)


def test_denoise_sees_through_links_to_an_input(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path / "a.png", 8, 8, 3)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(DataError, match="is an input"):
        run(denoise, model, source, "-o", tmp_path / "link/a.png")


def test_denoise_needs_trained_weights(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", 8, 8, 3)
    path = tmp_path / "model.yaml"
    path.write_text("input: {channels: 3}\nlayers:\n  - relu\n")
    with pytest.raises(CheckpointError, match="has no weights"):
        run(denoise, path, source, "-o", tmp_path / "out.png")
    with pytest.raises(CheckpointError):
        run(denoise, tmp_path / "absent.safetensors", source, "-o", tmp_path / "out.png")


def test_evaluate_prints_a_table_and_writes_json(tmp_path: Path, model: Path) -> None:
    # The model halves: noisy is 0.4 off (102 levels), denoised 0.1 (25.5 levels).
    np.savez(
        tmp_path / "data.npz",
        noisy=np.full((3, 3, 13, 13), 153, np.uint8) + np.uint8(51),
        clean=np.full((3, 3, 13, 13), 102, np.uint8),
    )
    result = run(evaluate, model, tmp_path / "data.npz", "--json", tmp_path / "report.json")
    assert "PSNR (mean of images), dB" in result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["psnr_noisy_db"] == pytest.approx(-20 * math.log10(0.4), abs=1e-4)
    assert report["psnr_denoised_db"] is None  # 204 / 2 is the target
    assert report["pairs"] == 3
    assert report["model"] == str(model)
    assert report["elapsed_s"] > 0


def test_evaluate_a_folder_of_photos_against_clean_crops(tmp_path: Path, model: Path) -> None:
    (tmp_path / "photos [1]").mkdir()
    save(tmp_path / "photos [1]/a.png", 128, 140, 3)
    result = run(evaluate, model, tmp_path / "photos [1]", "--json", tmp_path / "a.json")
    assert "1000 images of" in result.output
    assert "[1]" in result.output
    form = {"photos": {"path": str(tmp_path / "photos [1]"), "pairs": 1000, "target": "clean"}}
    run(evaluate, model, json.dumps(form), "--json", tmp_path / "b.json", "--batch-size", 64)
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert first["psnr_noisy_db"] == pytest.approx(second["psnr_noisy_db"], abs=1e-9)
    assert first["ssim_denoised"] == pytest.approx(second["ssim_denoised"], abs=1e-6)


def test_names_with_brackets_are_printed_as_they_are(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    name = "[red]x[0] [b] :smile:"
    named = model.rename(tmp_path / f"{name}.safetensors")
    folder = tmp_path / f"photos [bold]{name}"
    folder.mkdir()
    save(folder / f"{name}.png", 12, 12, 3)
    given = (named, folder, "--noise", "gaussian:25", "--json", tmp_path / f"{name}.json")
    title = f"1 images of {folder} with gaussian:25"
    output = "".join(run(evaluate, *given).output.split())  # the title is as wide as the table
    assert "".join(title.split()) in output
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(folder / f"{name}.png")
    target = tmp_path / f"{name}.jpg"
    result = run(denoise, named, folder / f"{name}.png", "-o", target)
    assert f"{folder / name}.png: has 16 bits a channel, .jpg gets 8" in result.stderr
    np.savez(tmp_path / f"{name}.npz", [0])
    with pytest.raises(DataError) as caught:
        run(evaluate, named, tmp_path / f"{name}.npz")
    assert str(tmp_path / f"{name}.npz") in str(caught.value)


def test_evaluate_refuses_what_it_cannot_read(tmp_path: Path, model: Path) -> None:
    with pytest.raises(DataError, match="absent"):
        run(evaluate, model, tmp_path / "absent.npz")
    with pytest.raises(DataError, match=r"DATA: expected a path, or JSON such as \{"):
        run(evaluate, model, "{photos: here}")
    with pytest.raises(GraphnetError, match="fotos"):
        run(evaluate, model, '{"fotos": {"path": "here"}}')
    np.savez(tmp_path / "a.npz", noisy=noise(1, 4, 8, 8), clean=noise(1, 4, 8, 8))
    with pytest.raises(DataError, match="takes images of 3 channels, found 4"):
        run(evaluate, model, tmp_path / "a.npz")


def test_evaluate_leaves_an_old_report_when_the_disk_is_full(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", noisy=noise(1, 3, 8, 8), clean=noise(1, 3, 8, 8, seed=1))
    (tmp_path / "report.json").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        run(evaluate, model, tmp_path / "a.npz", "--json", tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text() == "old"


def test_convert_pairs(tmp_path: Path, model: Path) -> None:
    first = torch.from_numpy(noise(4, 3, 12, 12))
    second = torch.from_numpy(noise(4, 12, 12, 3, seed=1)).permute(0, 3, 1, 2)
    torch.save((first, second), tmp_path / "val.pkl")
    result = run(convert_pairs, tmp_path / "val.pkl", tmp_path / "val.npz")
    assert result.output.strip().endswith("val.npz: 4 pairs (3, 12, 12), torch.uint8")
    with np.load(tmp_path / "val.npz") as archive:
        np.testing.assert_array_equal(archive["input"], first.numpy())
        np.testing.assert_array_equal(archive["target"], second.numpy())
    run(evaluate, model, tmp_path / "val.npz")


@pytest.mark.parametrize(
    ("value", "output", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(2, 3)), "a.npz", r"arrays \(N, C, H, W\)"),
        ((torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4)), "a.npz", "of one shape"),
        ((torch.zeros(1, 1, 1, 1), 3), "a.npz", "two tensors, found a tuple of 2"),
        ((torch.zeros(1, 1, 1, 1),) * 2, "a.pkl", r"ends in \.npz, found '\.pkl'"),
        ((torch.zeros(1, 1, 1, 1),) * 2, "absent/a.npz", "cannot be written"),
    ],
)
def test_convert_pairs_refuses(tmp_path: Path, value: Any, output: str, message: str) -> None:
    torch.save(value, tmp_path / "a.pkl")
    before = (tmp_path / "a.pkl").read_bytes()
    expected = WriteError if message == "cannot be written" else DataError
    with pytest.raises(expected, match=message):
        run(convert_pairs, tmp_path / "a.pkl", tmp_path / output)
    assert (tmp_path / "a.pkl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]
