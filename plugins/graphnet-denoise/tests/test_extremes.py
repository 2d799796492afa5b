"""A few pixels, as hot ones and stars, decide neither the normalization nor what is learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from graphnet_denoise.draws import Draws
from graphnet_denoise.learning.extremes import calmed, outside, picture_limits, within
from graphnet_denoise.learning.findings import find
from graphnet_denoise.learning.judging import judge
from graphnet_denoise.learning.pixel_weights import pixel_weights
from graphnet_denoise.learning.recipe import network_for
from graphnet_denoise.learning.scene_images import read_scenes, write_scenes
from graphnet_denoise.learning.scenes import HeldOut, OwnScenes
from graphnet_denoise.supervision import Neighbor2Neighbor, Noise2Noise, Noise2Void
from numpy.typing import NDArray

from graphnet.errors import DataError
from graphnet.sdk import Pairs
from tests.support import own_images
from tests.support.own_images import SIDE, Writer

Image = NDArray[np.float32]


def picture(number: int) -> Image:
    """Numbers in 100..400, with noise of 40."""
    noise = np.random.default_rng(number).normal(0, 40, (SIDE, SIDE))
    noisy = 500 * own_images.scene(number) + noise
    return noisy[None].astype(np.float32)


def with_hot_pixels(image: Image, share: float = 0.001) -> tuple[Image, NDArray[np.bool_]]:
    hot = np.random.default_rng(9).random(image.shape) < share
    return np.where(hot, np.float32(60_000), image), hot


def folder_of(folder: Path, images: list[Image]) -> Path:
    to = Writer(folder)
    for k, image in enumerate(images):
        to.tiff(f"im_{k}.tif", image[0] / 4095)
    return folder


def test_lone_pixels_are_calmed_and_edges_stay() -> None:
    image = np.zeros((1, 6, 6), np.float32)
    image[..., 3:] = 5
    expected = image.copy()
    image[0, 2, 1], image[0, 5, 5], image[0, 0, 0] = 99, -99, 99
    np.testing.assert_array_equal(calmed(image), expected)


def test_limits_enclose_a_picture_with_its_noise_and_no_hot_pixels() -> None:
    images = [picture(k) for k in range(4)]
    limits = picture_limits(images)
    assert limits is not None
    assert not any(outside(image, limits).any() for image in images)
    spoiled = [with_hot_pixels(image, 0.01) for image in images]
    found = picture_limits([image for image, _ in spoiled])
    assert found == pytest.approx(limits, rel=0.1, abs=20)
    for image, hot in spoiled:
        np.testing.assert_array_equal(outside(image, found), hot)


def test_limits_are_near_the_sky_where_few_stars_are_bright() -> None:
    sky = np.random.default_rng(0).normal(200, 15, (1, 256, 256))
    rows, columns = np.indices((256, 256))
    for k, flux in enumerate((300, 1000, 5000, 40_000, 60_000)):
        distance = np.hypot(rows - 40 * k - 30, columns - 128)
        sky[0] += flux * np.exp(-(distance**2) / 6.5)
    limits = picture_limits([sky.astype(np.float32)])
    assert limits is not None
    assert 300 < limits[1] < 500
    assert outside(sky.astype(np.float32), limits).mean() < 0.006


def test_images_of_a_few_photons_have_no_limits() -> None:
    photons = np.random.default_rng(0).poisson(0.02, (1, 128, 128)).astype(np.float32)
    assert picture_limits([photons]) is None
    assert within(photons, None) is photons
    assert not outside(photons, None).any()


def test_hot_pixels_change_neither_normalization_nor_noise_nor_range(tmp_path: Path) -> None:
    images = [picture(k) for k in range(4)]
    plain = find(folder_of(tmp_path / "plain", images))
    hot = find(folder_of(tmp_path / "hot", [with_hot_pixels(image)[0] for image in images]))
    assert plain.apart == 0
    assert hot.apart == pytest.approx(0.001, abs=5e-4)
    for name in ("mean", "deviation", "noise"):
        assert getattr(hot.choice, name) == pytest.approx(getattr(plain.choice, name), rel=0.05)
    assert plain.choice.peak < hot.choice.peak < 3 * plain.choice.peak  # not 60,000
    assert "is set apart and added again" in hot.lines("")[3]
    assert "set apart" not in plain.lines("")[3]


def test_limits_stand_in_the_network(tmp_path: Path) -> None:
    choice = find(folder_of(tmp_path, [picture(k) for k in range(2)])).choice
    assert choice.limits is not None
    seen = next(layer for layer in network_for(choice)["layers"] if layer["id"] == "seen")
    assert seen["hardtanh"]["min_val"] == pytest.approx(
        (choice.limits[0] - choice.mean) / choice.deviation, rel=1e-4
    )


def test_numbers_of_any_size_are_learned_from(tmp_path: Path) -> None:
    """Floating point with NaN, infinity, and numbers that float32 cannot hold or square."""
    to = Writer(tmp_path)
    for k in range(3):
        image = picture(k)[0].astype(np.float64)
        image[3, 5], image[9, 9], image[20, 4], image[40, 40] = np.nan, np.inf, 1e300, -1e30
        np.save(to.folder / f"im_{k}.npy", image)
    found = find(tmp_path)
    plain = find(folder_of(tmp_path / "plain", [picture(k) for k in range(3)]))
    assert found.choice.deviation == pytest.approx(plain.choice.deviation, rel=0.05)
    assert found.choice.noise == pytest.approx(plain.choice.noise, rel=0.1)
    path = tmp_path / "scenes.json"
    write_scenes(path, tmp_path, found.arrangement, limits=found.choice.limits, noise=40.0)
    stream = OwnScenes(path=str(path), supervision=Noise2Void(), weighted=True).load()
    for tensor in stream.batch(0, 0, range(32)):
        assert bool(tensor.isfinite().all())
        assert float(tensor.abs().max()) < 2000


def test_images_of_two_dtypes_without_a_common_unit_are_refused(tmp_path: Path) -> None:
    to = Writer(tmp_path)
    for k in range(3):
        to.png(f"a{k}.png", picture(k)[0] / 500)
        to.tiff(f"b{k}.tif", picture(k)[0] / 500)
    with pytest.raises(DataError, match="no common unit: those of uint16 .* and those of uint8 "):
        find(tmp_path)
    for k in range(3):
        (tmp_path / f"b{k}.tif").unlink()
        np.save(tmp_path / f"b{k}.npy", (picture(k)[0] / 2).astype(np.float32))
    assert "float32 and uint8" in find(tmp_path).lines("")[0]


def test_a_pixel_counts_by_what_its_surroundings_tell() -> None:
    shown = torch.full((1, 1, 32, 32), 10.0)
    shown[..., 16:] = 110.0  # an edge
    target = shown.clone()
    target[0, 0, 4, 4], target[0, 0, 8, 8] = 10 + 49, 10 + 51  # noise of 5: 9.8 and 10.2 deviations
    weights = pixel_weights(shown, target, 5.0)
    assert float(weights[0, 0, 20, 4]) == 1
    assert float(weights[0, 0, 4, 4]) == 1
    assert float(weights[0, 0, 8, 8]) == 0
    # Of the 5 columns around column 15, three have 10 and two 110: the variance is 2/5 3/5 100^2.
    assert float(weights[0, 0, 20, 15]) == pytest.approx(25 / (25 + 2400), rel=1e-4)
    shown[0, 0, 20, 20] = 60_000  # a hot pixel makes nothing around it uncertain
    assert float(pixel_weights(shown, target, 5.0)[0, 0, 21, 21]) == 1


def test_weights_do_not_depend_on_an_offset() -> None:
    draws = torch.from_numpy(Draws(0, 0, [0, 1], stream=0).normal(2 * 16 * 16)).reshape(
        2, 2, 16, 16
    )
    weights = pixel_weights(10 * draws, 10 * draws, 10.0)
    moved = pixel_weights(10 * draws + 20_000, 10 * draws + 20_000, 10.0)
    torch.testing.assert_close(weights, moved, rtol=0.01, atol=0.01)


def test_hot_pixels_are_neither_seen_nor_counted(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [with_hot_pixels(picture(k))[0] for k in range(2)])
    path, limits = tmp_path / "scenes.json", (0.0, 1000.0)
    write_scenes(path, folder, find(folder).arrangement, limits=limits, noise=40.0)
    stream = OwnScenes(path=str(path), supervision=Noise2Void(masked=0.11), weighted=True).load()
    shown, target, mask = stream.batch(0, 0, range(64))
    assert float(shown.max()) <= limits[1]
    hot = target >= limits[1]
    assert bool(hot.any())
    assert float(mask[hot].max()) == 0
    assert float(mask.max()) > 0.5
    assert stream.target_shapes == {"target": (1, 64, 64), "mask": (1, 64, 64)}
    pairs = HeldOut(path=str(path)).load()
    assert isinstance(pairs, Pairs)
    assert float(pairs.targets.nan_to_num(0).max()) < limits[1]


def test_pairs_are_weighted_too(tmp_path: Path) -> None:
    folder = own_images.write(tmp_path, own_images.bursts_by_folder)
    path = tmp_path / "scenes.json"
    write_scenes(path, folder, find(folder).arrangement, noise=20.0)
    stream = OwnScenes(path=str(path), supervision=Noise2Noise(), weighted=True).load()
    first, second, weights = stream.batch(0, 0, range(8))
    assert not bool((first == second).all())
    torch.testing.assert_close(weights, pixel_weights(first, second, 20.0))
    with pytest.raises(DataError, match="weighted: expected the supervision"):
        OwnScenes(path=str(path), supervision=Neighbor2Neighbor(), weighted=True).load()
    write_scenes(path, folder, find(folder).arrangement)
    read_scenes.cache_clear()
    with pytest.raises(DataError, match="to state the noise"):
        OwnScenes(path=str(path), supervision=Noise2Noise(), weighted=True).load()


class _Blur:
    """A denoiser: the mean of 5 x 5 pixels, which leaves pixels above 5,000 as they are."""

    takes_numbers = True

    def restore(self, images: torch.Tensor, *, noise_level: float | None = None) -> torch.Tensor:
        seen = images.clamp_max(5000)
        mean = torch.nn.functional.avg_pool2d(seen, 5, 1, 2, count_include_pad=False)
        return images - seen + torch.where(images > 5000, seen, mean)


def test_hot_pixels_do_not_count_when_a_model_is_judged(tmp_path: Path) -> None:
    images = [picture(k) for k in range(2)]
    plain, hot = (
        judge(_Blur(), find(folder).arrangement.noisy).quality
        for folder in (
            folder_of(tmp_path / "plain", images),
            folder_of(tmp_path / "hot", [with_hot_pixels(image, 2e-4)[0] for image in images]),
        )
    )
    assert hot.score_db == pytest.approx(plain.score_db, abs=6)  # without limits, it is -20 dB
    assert hot.noise_db == pytest.approx(plain.noise_db, abs=6)
