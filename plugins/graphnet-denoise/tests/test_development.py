"""Steps of a camera's development, against values by hand, numpy and Pillow."""

import io

import numpy as np
import pytest
import torch
from graphnet_denoise.noise.development import (
    bayer_masks,
    blur,
    colour_matrix,
    demosaic,
    inverse_tone,
    magnified,
    mix_channels,
    smooth_flat_parts,
    through_jpeg,
    to_luma_and_colour,
    tone,
)
from PIL import Image
from torch import Tensor


def each(*values: float) -> Tensor:
    return torch.tensor(values).reshape(-1, 1, 1, 1)


def random_images(n: int, channels: int, side: int) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def test_tone_is_a_power_and_a_smooth_step() -> None:
    x, gamma, contrast = 0.3, 2.2, 0.5
    p = x ** (1 / gamma)
    expected = 0.5 * p + 0.5 * (3 * p**2 - 2 * p**3)
    assert float(tone(each(x), each(gamma), each(contrast))) == pytest.approx(expected, abs=1e-6)


def test_inverse_tone_inverts_tone_for_each_image() -> None:
    images = random_images(3, 3, 16)
    gamma, contrast = each(1.9, 2.2, 2.5), each(0.0, 0.4, 0.7)
    back = tone(inverse_tone(images, gamma, contrast), gamma, contrast)
    torch.testing.assert_close(back, images, atol=2e-3, rtol=0)


def test_colour_matrix_leaves_grey_and_moves_colours_away_from_it() -> None:
    matrix = colour_matrix(each(0.5), each(0.6))
    np.testing.assert_allclose(
        matrix[0], [[1.4, -0.3, -0.1], [-0.1, 1.2, -0.1], [-0.1, -0.3, 1.4]], atol=1e-6
    )
    grey = torch.full((1, 3, 2, 2), 0.3)
    torch.testing.assert_close(mix_channels(grey, matrix), grey)


def test_bayer_masks_divide_the_pixels_among_the_colours() -> None:
    masks = bayer_masks(5, 6)
    assert bool((masks.sum(0) == 1).all())
    assert masks.sum((1, 2)).tolist() == [9, 15, 6]


@pytest.mark.parametrize("correction", [0.0, 1.0])
@pytest.mark.parametrize("direction", [0.0, 3.0])
def test_demosaic_restores_even_colours_and_grey_slopes(
    correction: float, direction: float
) -> None:
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    slope = (0.1 + 0.02 * x + 0.03 * y).expand(3, -1, -1)
    even = torch.tensor([0.8, 0.5, 0.2]).reshape(3, 1, 1).expand(3, 12, 12)
    for scene, inside in ((slope, slice(3, -3)), (even, slice(None))):
        mosaic = (scene * bayer_masks(12, 12)).sum(0).reshape(1, 1, 12, 12)
        found = demosaic(mosaic, each(correction), each(direction))[0]
        torch.testing.assert_close(
            found[:, inside, inside], scene[:, inside, inside], atol=1e-5, rtol=0
        )


def test_demosaic_follows_an_edge_when_it_chooses_directions() -> None:
    """Vertical stripes of grey: along the columns nothing changes."""
    scene = (torch.arange(16) // 4 % 2).float().expand(3, 16, 16)
    mosaic = (scene * bayer_masks(16, 16)).sum(0).reshape(1, 1, 16, 16)
    errors = [
        float((demosaic(mosaic, each(0.0), each(power))[0, 1] - scene[1]).square().mean())
        for power in (0.0, 3.0)
    ]
    assert errors[1] < errors[0] / 100


def test_blur_of_a_point_is_the_gaussian_kernel_of_each_image() -> None:
    images = torch.zeros(2, 2, 15, 15)
    images[:, :, 7, 7] = 1
    found = blur(images, each(0.8, 1.1))
    for image, std in zip(found, (0.8, 1.1), strict=True):
        bell = np.exp(-0.5 * (np.arange(-4, 5) / std) ** 2)
        bell /= bell.sum()
        np.testing.assert_allclose(image[0, 3:12, 3:12], np.outer(bell, bell), atol=2e-6)
        torch.testing.assert_close(image[1], image[0])


def test_blur_of_no_pixels_changes_nothing() -> None:
    images = random_images(2, 3, 9)
    blurred = blur(images, each(0.0, 1.0))
    assert torch.equal(blurred[0], images[0])
    assert not torch.equal(blurred[1], images[1])


def test_flat_parts_become_their_mean_and_edges_stay() -> None:
    noise = 0.02 * torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    picture = torch.full((1, 1, 40, 40), 0.3)
    picture[..., 20:] = 0.8
    found = smooth_flat_parts(picture + noise, each(0.03))
    assert float((found - picture)[..., :15].std()) < 0.3 * float(noise.std())
    assert float((found - picture - noise)[..., 19:21].abs().max()) < 0.005
    assert smooth_flat_parts(noise, each(0.0)) is noise


def test_magnified_keeps_the_middle_and_the_size() -> None:
    y = torch.linspace(-1, 1, 32).reshape(1, 1, 32, 1).expand(1, 1, 32, 32)
    found = magnified(y, each(2.0))
    # Cubic interpolation with a = -0.75 is not exact for slopes.
    torch.testing.assert_close(found[..., 4:-4, :], y[..., 4:-4, :] / 2, atol=5e-3, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_through_jpeg_gives_what_pillow_reads(channels: int) -> None:
    image = random_images(1, channels, 24)[0]
    levels = (image * 255).round().byte().permute(1, 2, 0).numpy().squeeze()
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=60, subsampling=2)
    expected = np.asarray(Image.open(file)).reshape(24, 24, channels).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(through_jpeg(image, quality=60, subsampling=2), expected, atol=1e-6)


def test_luma_and_colour_add_up_to_the_image() -> None:
    images = random_images(1, 3, 4)
    luma, colour = to_luma_and_colour(images)
    torch.testing.assert_close(luma + colour, images)
    expected = 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]
    torch.testing.assert_close(luma, expected)
