"""Noise against the closed form of its mean, variance and correlation."""

from typing import Any

import numpy as np
import pytest
from graphnet_denoise.draws import Draws
from graphnet_denoise.noise import (
    NOISES,
    BlockSampling,
    Correlated,
    Gaussian,
    Images,
    Noise,
    PoissonGaussian,
    SaltAndPepper,
    Scenes,
)
from graphnet_denoise.patches import Patches

from graphnet.errors import DescriptionError

LEVELS = np.linspace(0, 1, 6, dtype=np.float32)


def scenes_of(noise: Noise, clean: Images, *, seed: int = 0) -> Scenes:
    strength = noise.strength(Draws(seed, 0, range(len(clean)), stream=1))
    return Scenes(list(clean), clean.shape[1:3], strength)


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


@pytest.mark.parametrize("peak", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("std", [0.0, 10.0])
def test_photons_have_the_variance_of_their_count(peak: float, std: float) -> None:
    noise = PoissonGaussian(peak=(peak, peak), std=(std, std))
    check_moments(noise, LEVELS, LEVELS / peak + (std / 255) ** 2)
    if std == 0:
        counts = noisy(noise, flat()) * peak
        np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3 * peak)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_salt_and_pepper_are_equally_many_and_independent(share: float) -> None:
    noise = SaltAndPepper(share=(share, share))
    means = (1 - share) * LEVELS + share / 2
    check_moments(noise, means, (1 - share) * LEVELS**2 + share / 2 - means**2)
    clean = np.full((4, 64, 64, 3), 0.25, np.float32)
    drawn = noisy(noise, clean)
    assert set(np.unique(drawn)) <= {0.0, 0.25, 1.0}
    changed = drawn != clean
    both = (changed[..., 0] & changed[..., 1]).mean()  # channels by themselves
    assert (
        abs(both - share**2) < 5 * np.sqrt(share**2 * (1 - share**2) / changed[..., 0].size) + 1e-9
    )


@pytest.mark.parametrize("blur", [0.4, 1.0, 2.0])
def test_correlated_noise_keeps_its_deviation_and_has_the_kernels_correlation(blur: float) -> None:
    clean = np.zeros((200, 32, 40, 2), np.float32)
    drawn = noisy(Correlated(std=(25.0, 25.0), blur=blur), clean).astype(np.float64) * 255 / 25
    radius = int(np.ceil(3 * blur))
    g = np.exp(-0.5 * (np.arange(-radius, radius + 1) / blur) ** 2)
    wide = np.correlate(g, g, "full")[2 * radius :] / (g**2).sum()  # by distance, from 0
    wide = np.pad(wide, (0, 40))
    area = (2 * (wide**2).sum() - 1) ** 2  # pixels that count as one
    error = 5 * np.sqrt(2 * area / drawn.size)
    for d in range(radius + 3):
        for e in (0, 2):
            product = (drawn[:, d:, e:] * drawn[:, : 32 - d, : 40 - e]).mean()
            assert abs(product - wide[d] * wide[e]) < error
    assert abs((drawn[..., 0] * drawn[..., 1]).mean()) < error
    # The edges are like the rest.
    assert abs((drawn[:, 0] ** 2).mean() - 1) < 5 * np.sqrt(2 * area / drawn[:, 0].size)


def test_block_sampling_takes_a_random_pixel_of_each_block() -> None:
    """Source pixels say where they are; the clean image has the blocks' means."""
    rows, columns = np.mgrid[:20, :20]
    crop = np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)
    noise = BlockSampling()
    scenes = Scenes([crop] * 500, (4, 4), {})  # blocks of 5 x 5
    seen = scenes.clean
    means = crop.reshape(4, 5, 4, 5, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(seen, np.broadcast_to(means, seen.shape) / 255, rtol=1e-5)
    drawn = noise(scenes, Draws(0, 0, range(500), stream=3)) * 255
    row, column, both = np.rint(np.moveaxis(drawn, -1, 0)).astype(int)
    np.testing.assert_array_equal(both, row + column)  # all channels from one pixel
    np.testing.assert_array_equal(row // 5, np.broadcast_to(np.arange(4)[:, None], row.shape))
    np.testing.assert_array_equal(column // 5, np.broadcast_to(np.arange(4), row.shape))
    counts = np.bincount((row % 5 * 5 + column % 5).ravel(), minlength=25)
    assert ((counts - 320) ** 2 / 320).sum() < 51.2  # 24 degrees of freedom, p = 0.001
    sides = noise.block_sides(np.full(3000, 6), Draws(0, 0, range(3000), stream=0))
    assert set(sides) == {4, 5, 6}
    assert np.abs(np.bincount(sides)[4:] - 1000).max() < 130  # 5 sigma


def test_each_image_has_its_own_deviation_from_the_range() -> None:
    clean = np.zeros((300, 32, 32, 1), np.float32)
    noise = Gaussian(std=(5.0, 55.0))
    stated = scenes_of(noise, clean).strength["std"]
    assert stated.min() >= 5
    assert stated.max() <= 55
    assert abs(stated.mean() - 30) < 5 * 50 / np.sqrt(12 * 300)
    np.testing.assert_allclose(noisy(noise, clean).std(axis=(1, 2, 3)) * 255, stated, rtol=0.12)


def parts(*noises: dict[str, Any]) -> dict[str, Any]:
    return {"mixture": {"parts": [{"noise": noise} for noise in noises]}}


GAUSSIAN = {"gaussian": {"std": 25}}
MEANS = [
    GAUSSIAN,
    {"gaussian": {"std": 25, "clip": True}},
    {"correlated": {"std": 25, "blur": 0.7}},
    {"poisson_gaussian": {"peak": 100, "std": 10}},
    {"grey": {"noise": GAUSSIAN}},
    parts(GAUSSIAN, {"grey": {"noise": {"poisson_gaussian": {"peak": 50}}}}),
]


@pytest.mark.parametrize("form", MEANS, ids=str)
def test_mean_of_many_noisy_images_has_their_mean_and_less_variance(form: Any) -> None:
    """It is made in one step where the noise is Gaussian; here, 300 images are drawn one by one too."""
    noise = NOISES.make(form)
    clean = np.full((1, 24, 24, 3), 0.5, np.float32)
    scenes = scenes_of(noise, clean)
    draws = Draws(0, 0, [0], stream=3)
    each = np.stack([noise(scenes, draws)[0] for _ in range(300)]).astype(np.float64)
    mean = noise.mean_of(9, scenes, Draws(1, 0, [0], stream=3)).astype(np.float64)
    assert mean.shape == clean.shape
    error = (
        each.std() / 3 / np.sqrt(24 * 24 / 3)
    )  # a third of the pixels' number: noise may be correlated
    assert mean.mean() == pytest.approx(each.mean(), abs=5 * error)
    assert mean.std() == pytest.approx(each.std() / 3, rel=0.15)
    one = noise.mean_of(1, scenes, Draws(2, 0, [0], stream=3))
    np.testing.assert_array_equal(one, noise(scenes, Draws(2, 0, [0], stream=3)))


def test_clipped_noise_stays_in_0_to_1() -> None:
    clean = flat()
    plain, clipped = (noisy(Gaussian(std=(80.0, 80.0), clip=clip), clean) for clip in (False, True))
    np.testing.assert_array_equal(clipped, np.clip(plain, 0, 1))


@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("kind", ["gaussian", "grey", "mixture", "poisson_gaussian"])
def test_targets_of_clipped_noise_have_the_mean_of_the_clean_image(kind: str, count: int) -> None:
    """In the dark, the mean of clipped noise is far above 0."""
    own = {"gaussian": {"std": 50, "clip": True}}
    forms: dict[str, Any] = {
        "gaussian": own,
        "grey": {"grey": {"noise": own, "clip": True}},
        "mixture": parts(own, own),
        "poisson_gaussian": {"poisson_gaussian": {"peak": 1000, "std": 50, "clip": True}},
    }
    noise = NOISES.make(forms[kind])
    scenes = scenes_of(noise, np.full((1, 64, 64, 3), 0.02, np.float32))
    draws = Draws(0, 0, [0], stream=3)
    assert float(noise(scenes, draws).mean()) > 0.07
    assert float(noise.mean_of(count, scenes, draws).mean()) == pytest.approx(0.02, abs=0.013)


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
        ({"poisson_gaussian": {"peak": 0}}, r"peak: expected a number above 0, or a range of such"),
        ({"poisson_gaussian": {"peak": [0, 9]}}, "peak: expected a number above 0"),
        ({"salt_and_pepper": {"share": 1.5}}, r"share: expected a share of at most 1, found 1\.5"),
        ({"correlated": {"std": 1, "blur": 0}}, "blur: expected greater than 0, found 0"),
        ({"gausian": {"std": 1}}, "noise: unknown noise 'gausian'. Did you mean 'gaussian'"),
        ({"gaussian": {"std": 1}, "clip": True}, "one name"),
        (25, "expected a name or"),
    ],
)
def test_wrong_noise_is_refused_in_words(form: object, message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        Patches(path="photos", noise=form)  # type: ignore[arg-type]


def test_names_are_those_of_the_docs() -> None:
    assert NOISES.make({"gaussian": {"std": (5, 55)}}) == Gaussian(std=(5.0, 55.0))
