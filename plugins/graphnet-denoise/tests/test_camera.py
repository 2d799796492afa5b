"""The noise of cameras, of grey images and of mixtures."""

from typing import Any

import numpy as np
import pytest
import torch
from graphnet_denoise.draws import Draws
from graphnet_denoise.noise import NOISES, Camera, Images, Mixture, Noise, Scenes
from graphnet_denoise.noise.camera import _exposed
from graphnet_denoise.patches import Patches, PatchStream

from graphnet.errors import DescriptionError


def scene(side: int = 48) -> Images:
    y, x = np.mgrid[:side, :side] / side
    return np.stack((0.3 + 0.4 * x, 0.5 + 0.3 * np.sin(6 * y), 0.4 + 0.2 * x * y), -1).astype(
        np.float32
    )


def scenes_of(noise: Noise, crops: list[Any], side: int, *, first: int = 0) -> Scenes:
    indices = range(first, first + len(crops))
    return Scenes(crops, (side, side), noise.strength(Draws(0, 0, indices, stream=1)))


def noise_of(name: str, **fields: Any) -> Noise:
    return NOISES.make({name: fields})


def made(noise: Noise, crops: list[Any], side: int, *, first: int = 0) -> tuple[Images, Images]:
    scenes = scenes_of(noise, crops, side, first=first)
    indices = range(first, first + len(crops))
    return noise(scenes, Draws(0, 0, indices, stream=3)), noise.clean(scenes)


def test_pictures_of_a_camera_do_not_depend_on_their_batch() -> None:
    crops = [scene(), scene(96), scene()[::-1], scene(96)]
    noisy, clean = made(Camera(), crops, 48)
    assert noisy.dtype == clean.dtype == np.float32
    assert 0 <= noisy.min() <= noisy.max() <= 1
    for i, crop in enumerate(crops):
        alone = made(Camera(), [crop], 48, first=i)
        np.testing.assert_allclose(alone[0][0], noisy[i], atol=2e-5 + 1 / 255)
        np.testing.assert_allclose(alone[1][0], clean[i], atol=2e-5)


def test_a_higher_iso_has_more_noise_and_the_clean_picture_is_near_the_photo() -> None:
    errors = []
    for iso in (100.0, 3200.0, 25_600.0):
        noisy, clean = made(noise_of("camera", iso=iso, jpeg=0), [scene()] * 16, 48)
        errors.append(float(np.mean((noisy - clean) ** 2)))
        assert np.mean((clean - scene()) ** 2) < 2e-4 + 0.02  # magnified ones show another part
    assert errors[0] * 5 < errors[1]
    assert errors[1] * 2 < errors[2]


@pytest.mark.parametrize("level", [0.05, 0.25])
def test_the_clean_picture_of_a_camera_is_the_mean_of_many_noisy_ones(level: float) -> None:
    """It is not the picture without noise: near black that is darker, elsewhere brighter."""
    camera = noise_of("camera", iso=6400, jpeg=0)
    flat = np.full((48, 48, 3), level, np.float32)
    scenes = scenes_of(camera, [flat] * 256, 48)
    scenes.strength["scale"][:] = 0  # magnified pictures are slow
    noisy = camera(scenes, Draws(0, 0, range(256), stream=3)).mean((0, 1, 2))
    assert np.abs(noisy - level).max() * 255 > 2.5
    np.testing.assert_allclose(camera.clean(scenes).mean((0, 1, 2)), noisy, atol=0.9 / 255)


def test_a_jpeg_of_low_quality_changes_the_noisy_picture_alone() -> None:
    low, high = (
        made(noise_of("camera", iso=100, quality=quality, jpeg=1), [scene()] * 8, 48)
        for quality in (10, 100)
    )
    np.testing.assert_array_equal(low[1], high[1])
    assert np.mean((low[0] - low[1]) ** 2) > 2 * np.mean((high[0] - high[1]) ** 2)


def test_a_sensor_counts_photons_and_adds_read_noise() -> None:
    """The variance at the value x is x / peak + (read / peak)^2 (1 + row^2)."""
    peak, read, row, x = 50.0, 3.0, 0.4, 0.3
    settings = {name: torch.full((64, 1, 1, 1), v) for name, v in (("read", read), ("row", row))}
    mosaic = torch.full((64, 1, 32, 32), x)
    found = _exposed(mosaic, torch.tensor(peak), settings, Draws(0, 0, range(64), stream=3))
    variance = x / peak + (read / peak) ** 2 * (1 + row**2)
    assert float(found.mean()) == pytest.approx(x, abs=5 * (variance / 2048) ** 0.5)
    assert float(found.var()) == pytest.approx(variance, rel=0.03)
    rows = found.mean(dim=3).var()
    assert float(rows) == pytest.approx((read * row / peak) ** 2 + variance / 32, rel=0.15)


def test_grey_noise_is_equal_in_all_channels() -> None:
    noisy, clean = made(noise_of("grey", noise={"gaussian": {"std": 25}}), [scene()] * 4, 48)
    for images in (noisy, clean):
        np.testing.assert_array_equal(images, np.repeat(images[..., :1], 3, axis=3))
    luma = scene() @ np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(clean[0, ..., 0], luma, atol=1e-6)
    assert float((noisy - clean).std()) == pytest.approx(25 / 255, rel=0.03)


def test_a_mixture_gives_each_image_the_noise_of_its_part() -> None:
    parts = ({"noise": {"gaussian": {"std": 0}}, "weight": 3}, {"noise": {"gaussian": {"std": 25}}})
    mixture = noise_of("mixture", parts=parts)
    noisy, clean = made(mixture, [scene()] * 400, 48)
    deviations = (noisy - clean).std(axis=(1, 2, 3)) * 255
    is_quiet = deviations < 1e-3
    np.testing.assert_allclose(deviations[~is_quiet], 25, rtol=0.05)
    assert is_quiet.mean() == pytest.approx(0.75, abs=5 * (0.75 * 0.25 / 400) ** 0.5)


def test_the_draws_of_some_images_are_theirs() -> None:
    every = Draws(0, 1, [5, 7, 9], stream=0).normal(4)
    some = Draws(0, 1, [5, 7, 9], stream=0).of(np.array([2, 0])).normal(4)
    np.testing.assert_array_equal(some, every[[2, 0]])


def test_the_noise_of_channels_has_the_stated_correlation() -> None:
    flat = [np.full((64, 64, 3), 0.5, np.float32)] * 16
    noisy, _ = made(noise_of("gaussian", std=25, shared=0.6), flat, 64)
    noise = (noisy - 0.5).reshape(-1, 3)
    np.testing.assert_allclose(np.corrcoef(noise.T)[np.triu_indices(3, 1)], 0.6, atol=0.02)
    assert float(noise.std()) * 255 == pytest.approx(25, rel=0.02)


def test_a_stream_of_patches_trains_on_the_developed_clean_picture() -> None:
    form: dict[str, Any] = {
        "path": "not read",
        "size": 32,
        "noise": {"mixture": {"parts": [{"noise": {"camera": {"iso": 100, "jpeg": 0}}}]}},
        "supervision": "noise2clean",
    }
    patches = Patches(**form)
    given, target = PatchStream(patches, [scene(96)] * 2).batch(0, 1, range(8))
    assert given.shape == target.shape == (8, 3, 32, 32)
    error = (given - target).square().mean(dim=(1, 2, 3))
    assert bool((error < 1e-3).all())


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"parts": []}, "at least 1"),
        ({"parts": [{"noise": "block_sampling"}]}, "cannot be a part of a mixture"),
        ({"parts": [{"noise": {"gaussian": {}}}]}, "std"),
        ({"parts": [3]}, "expected {noise: ..., weight: ...}"),
    ],
)
def test_wrong_mixtures_say_what_is_wrong(form: Any, said: str) -> None:
    with pytest.raises(DescriptionError, match=said.replace("{", r"\{").replace("}", r"\}")):
        Mixture(**form)
