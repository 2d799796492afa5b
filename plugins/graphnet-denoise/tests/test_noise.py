"""Noise against the closed form of its mean, variance and correlation."""

from typing import Any

import numpy as np
import pytest
from graphnet_denoise.draws import Draws
from graphnet_denoise.noise import NOISES, Gaussian, Images, Noise, Scenes
from graphnet_denoise.patches import Patches

from graphnet.errors import DescriptionError

LEVELS = np.linspace(0, 1, 6, dtype=np.float32)


def scenes_of(noise: Noise, clean: Images, *, seed: int = 0) -> Scenes:
    return Scenes(clean, noise.strength(Draws(seed, 0, range(len(clean)), stream=1)), list(clean))


def noisy(noise: Noise, clean: Images, *, seed: int = 0) -> Images:
    scenes = scenes_of(noise, clean, seed=seed)
    before = clean.copy()
    drawn = noise(scenes, Draws(seed, 0, range(len(clean)), stream=3))
    np.testing.assert_array_equal(clean, before)
    assert drawn.dtype == np.float32
    assert drawn.shape == clean.shape
    return drawn


def flat(side: int = 64, channels: int = 3) -> Images:
    """One even image for each of LEVELS."""
    return np.repeat(LEVELS, side * side * channels).reshape(-1, side, side, channels)


def check_moments(noise: Noise, means: Any, variances: Any, *, independent: float = 1.0) -> None:
    """Mean and variance of each level, from 64 * 64 * 3 pixels, of which a part counts as independent."""
    drawn = noisy(noise, flat()).astype(np.float64).reshape(len(LEVELS), -1)
    count = drawn.shape[1] * independent
    for row, mean, variance in zip(drawn, means, variances, strict=True):
        fourth = ((row - mean) ** 4).mean()
        assert abs(row.mean() - mean) <= 5 * np.sqrt(variance / count) + 1e-6
        error = np.sqrt(max(0.0, fourth - variance**2) / count)
        assert abs(((row - mean) ** 2).mean() - variance) <= 5 * error + 1e-6


@pytest.mark.parametrize("std", [0.0, 25.0, 100.0])
def test_gaussian_noise_has_the_stated_deviation_and_leaves_0_to_1(std: float) -> None:
    check_moments(Gaussian(std=(std, std)), LEVELS, [(std / 255) ** 2] * 6)
    drawn = noisy(Gaussian(std=(std, std)), flat())
    assert (drawn.min() < 0) == (drawn.max() > 1) == (std > 0)


def test_each_image_has_its_own_deviation_from_the_range() -> None:
    clean = np.zeros((300, 32, 32, 1), np.float32)
    noise = Gaussian(std=(5.0, 55.0))
    stated = scenes_of(noise, clean).strength["std"]
    assert stated.min() >= 5
    assert stated.max() <= 55
    assert abs(stated.mean() - 30) < 5 * 50 / np.sqrt(12 * 300)
    np.testing.assert_allclose(noisy(noise, clean).std(axis=(1, 2, 3)) * 255, stated, rtol=0.12)


def test_clipped_noise_stays_in_0_to_1() -> None:
    clean = flat()
    plain, clipped = (noisy(Gaussian(std=(80.0, 80.0), clip=clip), clean) for clip in (False, True))
    np.testing.assert_array_equal(clipped, np.clip(plain, 0, 1))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (
            {"gaussian": {"std": -1}},
            r"noise\.gaussian\.std: expected a number of 0 or more.* found",
        ),
        ({"gaussian": {"std": [30, 5]}}, r"or a range \[low, high\] of such, found \(30, 5\)"),
        ({"gaussian": {"std": True}}, "found True"),
        ({"gaussian": {"std": "25"}}, "found '25'"),
        ({"gaussian": {"std": float("inf")}}, "found inf"),
        ({"gaussian": {}}, r"noise\.gaussian\.std: must be given"),
        ({"gaussian": {"std": 1, "clipped": True}}, r"clipped: unknown field. Did you mean 'clip'"),
        ({"gausian": {"std": 1}}, "noise: unknown name 'gausian'. Did you mean 'gaussian'?"),
        ({"gaussian": {"std": 1}, "clip": True}, "one name"),
        (25, "expected a name or"),
    ],
)
def test_wrong_noise_is_refused_in_words(form: object, message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        Patches(path="photos", noise=form)  # type: ignore[arg-type]


def test_names_are_those_of_the_docs() -> None:
    assert NOISES.make({"gaussian": {"std": (5, 55)}}) == Gaussian(std=(5.0, 55.0))
