"""PSNR by arithmetic, SSIM against scikit-image, and what the metrics refuse."""

import math

import numpy as np
import pytest
import torch
from graphnet_denoise import metrics
from skimage.metrics import structural_similarity as skimage_ssim
from torch import Tensor

from graphnet.errors import DataError
from graphnet.sdk import Metric, default_registry


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def reference_ssim(prediction: Tensor, target: Tensor) -> float:
    values = [
        skimage_ssim(  # type: ignore[no-untyped-call, unused-ignore]
            x.double().numpy(),
            y.double().numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=0,
        )
        for x, y in zip(prediction, target, strict=True)
    ]
    return float(np.mean(values))


def test_psnr_is_the_mean_of_the_images_psnr() -> None:
    target = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    prediction = target.clone()
    prediction[0] += 0.1  # MSE 0.01, 20 dB
    prediction[1] += 0.001  # MSE 1e-6, 60 dB
    assert metrics.psnr(prediction, target) == pytest.approx(40.0, abs=1e-9)


def test_pooled_psnr_is_the_psnr_of_the_mean_error() -> None:
    target = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    prediction = target.clone()
    prediction[0] += 0.1
    prediction[1] += 0.001
    expected = 10 * math.log10(1 / ((0.01 + 1e-6) / 2))
    assert metrics.psnr_pooled(prediction, target) == pytest.approx(expected, abs=1e-9)


def test_psnr_of_one_image_in_which_one_of_four_pixels_is_wrong_by_half() -> None:
    target = torch.zeros(1, 1, 2, 2)
    prediction = torch.tensor([[[[0.5, 0.0], [0.0, 0.0]]]])  # MSE 0.25 / 4 = 1 / 16
    for metric in (metrics.psnr, metrics.psnr_pooled):
        assert metric(prediction, target) == pytest.approx(10 * math.log10(16))


def test_black_against_white_is_zero_db() -> None:
    assert metrics.psnr(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)) == 0.0


def test_identical_images_have_infinite_psnr_and_ssim_one() -> None:
    images = random_images(3, 3, 16, 16)
    assert metrics.psnr(images, images) == math.inf
    assert metrics.psnr_pooled(images, images) == math.inf
    assert metrics.ssim(images, images) == pytest.approx(1.0, abs=1e-12)


def test_one_identical_image_makes_the_mean_infinite_but_not_the_pooled() -> None:
    target = torch.zeros(2, 1, 4, 4)
    prediction = target.clone()
    prediction[0] = 1
    assert metrics.psnr(prediction, target) == math.inf
    assert metrics.psnr_pooled(prediction, target) == pytest.approx(10 * math.log10(2))


@pytest.mark.parametrize("shape", [(1, 1, 11, 11), (2, 3, 12, 31), (3, 1, 32, 32), (1, 4, 40, 11)])
def test_ssim_equals_scikit_image(shape: tuple[int, ...]) -> None:
    target = random_images(*shape)
    prediction = (target + 0.2 * random_images(*shape, seed=1)).clamp(0, 1)
    expected = reference_ssim(prediction, target)
    assert metrics.ssim(prediction, target) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_smooth_images_equals_scikit_image() -> None:
    ramp = torch.linspace(0, 1, 32)
    target = (ramp[:, None] * ramp).expand(1, 3, 32, 32)
    prediction = (target * 0.8 + 0.1).contiguous()
    expected = reference_ssim(prediction, target)
    assert metrics.ssim(prediction, target) == pytest.approx(expected, abs=1e-9)


def test_metrics_in_chunks_equal_metrics_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    target, prediction = random_images(5, 3, 12, 12), random_images(5, 3, 12, 12, seed=1)
    whole = metrics.squared_error(prediction, target), metrics.ssim(prediction, target)
    monkeypatch.setattr(metrics, "_CHUNK", 2 * 3 * 12 * 12)
    torch.testing.assert_close(metrics.squared_error(prediction, target), whole[0])
    assert metrics.ssim(prediction, target) == pytest.approx(whole[1])


def test_metrics_of_a_large_image_in_bands_equal_those_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = random_images(2, 3, 101, 37), random_images(2, 3, 101, 37, seed=1)
    at_once = [metric(*images) for metric in (metrics.psnr, metrics.ssim)]
    seen: list[int] = []
    similarity = metrics._similarity

    def watched(x: Tensor, y: Tensor) -> Tensor:
        seen.append(x.shape[2])
        return similarity(x, y)

    monkeypatch.setattr(metrics, "_similarity", watched)
    monkeypatch.setattr(metrics, "_BAND", 3 * 37 * 20)
    monkeypatch.setattr(metrics, "_CHUNK", 1)
    in_bands = [metric(*images) for metric in (metrics.psnr, metrics.ssim)]
    assert in_bands == pytest.approx(at_once, rel=1e-13)
    assert max(seen) < 40


def test_metrics_leave_their_arguments_alone_and_take_any_strides() -> None:
    target = random_images(2, 12, 12, 3).permute(0, 3, 1, 2)
    prediction = random_images(2, 3, 24, 24)[:, :, ::2, ::2]
    before = prediction.clone(), target.clone()
    values = [f(prediction, target) for f in (metrics.psnr, metrics.psnr_pooled, metrics.ssim)]
    again = [f(*before) for f in (metrics.psnr, metrics.psnr_pooled, metrics.ssim)]
    assert values == pytest.approx(again)
    assert torch.equal(prediction, before[0])
    assert torch.equal(target, before[1])


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    image = torch.zeros(1, 1, 11, 10)
    with pytest.raises(DataError, match=r"at least 11 x 11 .* found 11 x 10"):
        metrics.ssim(image, image)


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.psnr_pooled, metrics.ssim])
def test_metrics_say_what_does_not_fit(metric: Metric) -> None:
    image = torch.zeros(1, 3, 12, 12)
    with pytest.raises(DataError, match=r"\(1, 3, 12, 12\) and a target \(1, 1, 12, 12\)"):
        metric(image, image[:, :1])
    with pytest.raises(DataError, match=r"\(N, C, H, W\), found shape \(3, 12, 12\)"):
        metric(image[0], image[0])
    with pytest.raises(DataError, match=r"floating point .* target of torch.uint8"):
        metric(image, image.to(torch.uint8))


@pytest.mark.parametrize("name", ["psnr", "psnr_pooled", "ssim"])
def test_predictions_outside_of_0_to_1_count_as_an_image_file_would_hold_them(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 1, 12, 12, generator=generator)
    found = 3 * torch.rand(2, 1, 12, 12, generator=generator) - 1
    registered, plain = default_registry().make("metrics", name), getattr(metrics, name)
    assert registered(found, target) == plain(found.clamp(0, 1), target) != plain(found, target)
