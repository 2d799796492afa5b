"""What noise an image has: measured on pictures whose noise is known."""

import io

import numpy as np
import pytest
import torch
from graphnet_denoise.noise.development import blur
from graphnet_denoise.noise.measure import FoundNoise, has_blocks, measure_noise
from PIL import Image
from torch import Tensor


def picture(channels: int = 3, side: int = 192) -> Tensor:
    """Smooth parts, edges and a fine texture, in 0.1..0.9."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    grey = 0.45 + 0.15 * torch.sin(x / 29) * torch.cos(y / 33)
    grey[(x - 60) ** 2 + (y - 65) ** 2 < 36**2] = 0.85
    grey[120:150, 30:165] = 0.15
    grey[:, 150:] += 0.05 * torch.sin(x[:, 150:] * 1.3)
    return grey.float() * torch.tensor([1.0, 0.9, 0.8][:channels]).reshape(-1, 1, 1)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("std", [5.0, 25.0])
def test_gaussian_noise_is_found_independent(channels: int, std: float) -> None:
    clean = picture(channels)
    found = measure_noise(clean + std / 255 * normal(*clean.shape))
    assert found.is_independent
    assert found.std == pytest.approx(std, rel=0.12)
    assert found.neighbours < 0.1
    assert (found.channels is None) == (channels == 1)


def test_noise_that_neighbours_share_is_found() -> None:
    noise = blur(normal(1, 3, 192, 192), torch.full((1, 1, 1, 1), 0.8))[0]
    found = measure_noise(picture() + 10 / 255 * noise / noise.std())
    assert not found.is_independent
    assert found.neighbours == pytest.approx(0.63, abs=0.1)  # near exp(-1 / (4 * 0.8^2)) = 0.68
    assert not found.blocks


def test_noise_that_channels_share_is_found_unless_the_image_is_grey() -> None:
    noise = 0.1**0.5 * normal(3, 192, 192) + 0.9**0.5 * torch.randn(192, 192)
    found = measure_noise(picture() + 10 / 255 * noise)
    assert found.channels == pytest.approx(0.9, abs=0.08)
    assert not found.is_independent
    grey = (picture(1) + 10 / 255 * normal(1, 192, 192)).expand(3, -1, -1)
    assert measure_noise(grey).channels is None
    assert measure_noise(grey).is_independent


@pytest.mark.parametrize("quality", [50, 80])
def test_the_blocks_of_a_jpeg_are_found(quality: int) -> None:
    noisy = (picture() + 6 / 255 * normal(3, 192, 192)).clamp(0, 1)
    levels = (noisy * 255).byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality)
    decoded = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
    assert has_blocks(decoded.mean(0))
    assert not measure_noise(decoded).is_independent
    assert not has_blocks(noisy.mean(0))


def test_small_and_even_images_are_measured() -> None:
    assert measure_noise(torch.full((3, 5, 7), 0.5)).std == 0
    assert measure_noise(torch.zeros(1, 64, 64)) == FoundNoise(0.0, 0.0, None, False)
    assert measure_noise(torch.rand(1, 1, 1)).std == 0
