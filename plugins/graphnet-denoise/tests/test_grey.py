"""Grey images: the level of their noise, and what the model that comes with the command makes of them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from graphnet_denoise import grey
from graphnet_denoise.commands.denoise import denoise
from graphnet_denoise.commands.evaluate import evaluate
from graphnet_denoise.images import as_unit, read_pixels
from graphnet_denoise.models import MODELS
from PIL import Image
from torch import Tensor

SET12 = Path(__file__).parents[4] / "shared" / "data" / "set12"


def scene(size: int = 128) -> Tensor:
    """Waves, a disc and a bar in grey: smooth parts, edges and a texture, (size, size) in 0.1..0.9."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    picture = 0.45 + 0.15 * torch.sin(x / 9) * torch.cos(y / 13)
    picture[(x - 40) ** 2 + (y - 45) ** 2 < 24**2] = 0.85
    picture[80:100, 20:110] = 0.15
    picture[:, 100:] += 0.05 * torch.sin(x[:, 100:] * 1.3)
    return picture.float()


def noisy(clean: Tensor, std: float) -> Tensor:
    return clean + std / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))


def psnr(image: Tensor, clean: Tensor) -> float:
    return -10 * math.log10(float((image - clean).double().square().mean()))


@pytest.mark.parametrize("std", [3, 10, 25, 50])
def test_the_level_of_noise_is_estimated(std: float) -> None:
    estimate = grey.noise_level(noisy(scene(256), std)[None, None]) * 255
    assert float(estimate) == pytest.approx(std, rel=0.1)


def test_noise_that_is_cut_off_in_black_parts_is_estimated_from_the_others() -> None:
    clean = scene(256)
    clean[:, :160] = 0
    image = noisy(clean, 25).clamp(0, 1)
    assert float(grey.noise_level(image[None, None])) * 255 == pytest.approx(25, rel=0.1)


def test_images_without_noise_have_none() -> None:
    drawing = torch.full((2, 1, 32, 32), 0.5)
    drawing[:, :, 8:16, 8:16] = 0.9
    drawing[1] = drawing[1].round()  # black and white alone
    assert grey.noise_level(drawing).tolist() == [0, 0]
    assert grey.noise_level(torch.rand(1, 1, 2, 9)).tolist() == [0]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_denoise_removes_the_noise_of_a_grey_picture(tmp_path: Path, mode: str) -> None:
    """Stored as grey, and as colour with equal channels."""
    clean = scene()
    image = (noisy(clean, 25).clamp(0, 1) * 255).round().to(torch.uint8)
    Image.fromarray(image.numpy()).convert(mode).save(tmp_path / "a.png")
    result = CliRunner().invoke(denoise, [str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png")])
    assert result.exit_code == 0, result.output
    restored = torch.from_numpy(as_unit(read_pixels(tmp_path / "b.png")))
    assert len(restored) == (1 if mode == "L" else 3)
    assert bool(grey.is_grey(restored[None]))
    before, after = psnr(image / 255, clean), psnr(restored[0], clean)
    assert before == pytest.approx(20.2, abs=0.3)
    assert after > before + 8


def test_evaluate_measures_grey_images(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    pixels = (scene() * 255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(tmp_path / "clean/a.png")
    assert gain_db(tmp_path / "clean", tmp_path / "report.json") > 8


@pytest.mark.slow
@pytest.mark.skipif(not SET12.is_dir(), reason="the photos of Set12 are not there")
def test_set12_is_denoised_by_more_than_nine_decibels(tmp_path: Path) -> None:
    """Measured: 20.2 dB before, 30.0 after."""
    assert gain_db(SET12, tmp_path / "report.json") > 9.5


def gain_db(images: Path, report: Path) -> float:
    """By how much the model that comes with the command raises the PSNR of noise of deviation 25."""
    given = [str(MODELS["gaussian"]), str(images), "--noise", "gaussian:25", "--json", str(report)]
    result = CliRunner().invoke(evaluate, given)
    assert result.exit_code == 0, result.output
    found = json.loads(report.read_text())
    return float(np.subtract(found["psnr_denoised_db"], found["psnr_noisy_db"]))
