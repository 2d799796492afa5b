"""Scores of a model over a data set, by hand."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from graphnet_denoise import metrics
from graphnet_denoise.restoring import Restorer
from graphnet_denoise.scoring import compare
from torch import Tensor

from graphnet.errors import DataError
from graphnet.plan import CompileOptions
from graphnet.sdk import Pairs


class Shift:
    """A model that adds a constant, and notes the batches that it sees."""

    input_channels = 3

    def __init__(self, by: float) -> None:
        self.weights: Mapping[str, Tensor] | None = {}
        self._by = by
        self.batches: list[int] = []

    def divisor(self) -> int:
        return 1

    def predict(self, *inputs: Tensor, options: CompileOptions) -> Any:
        self.batches.append(len(inputs[0]))
        return inputs[0] + self._by


def test_noisy_and_denoised_are_scored_against_the_target() -> None:
    inputs = torch.full((2, 3, 12, 12), 0.4)
    targets = torch.full((2, 3, 12, 12), 0.5)
    targets[1] = 0.8
    result = compare(Restorer.of(Shift(0.09)), Pairs(inputs, targets))
    # Errors 0.1 and 0.4 before, 0.01 and 0.31 after.
    assert result.noisy.psnr_db == pytest.approx((20 - 20 * math.log10(0.4)) / 2, abs=1e-4)
    assert result.denoised.psnr_db == pytest.approx((40 - 20 * math.log10(0.31)) / 2, abs=1e-4)
    pooled = -10 * math.log10((0.1**2 + 0.4**2) / 2)
    assert result.noisy.psnr_pooled_db == pytest.approx(pooled, abs=1e-4)
    assert result.noisy.ssim == pytest.approx(metrics.ssim(inputs, targets))
    assert result.denoised.ssim == pytest.approx(metrics.ssim(inputs + 0.09, targets))
    assert (result.pairs, result.exact) == (2, 0)


def test_batches_do_not_change_the_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = Pairs(
        torch.randint(0, 256, (7, 3, 12, 12), generator=generator).to(torch.uint8),
        torch.randint(0, 256, (7, 3, 12, 12), generator=generator).to(torch.uint8),
    )
    whole, parts = Shift(0.1), Shift(0.1)
    expected = compare(Restorer.of(whole), pairs)
    result = compare(Restorer.of(parts), pairs, batch_size=3)
    assert (whole.batches, parts.batches) == ([7], [3, 3, 1])
    assert result.denoised.psnr_db == pytest.approx(expected.denoised.psnr_db, abs=1e-9)
    assert result.denoised.ssim == pytest.approx(expected.denoised.ssim, abs=1e-9)
    noisy = pairs.inputs / 255
    assert result.noisy.psnr_db == pytest.approx(metrics.psnr(noisy, pairs.targets / 255), abs=1e-4)


def test_a_noisy_image_that_equals_its_target_is_left_out_of_the_mean() -> None:
    inputs = torch.full((2, 3, 12, 12), 0.5)
    targets = inputs.clone()
    targets[1] = 0.6
    result = compare(Restorer.of(Shift(0.09)), Pairs(inputs, targets))
    assert result.exact == 1
    assert result.noisy.psnr_db == pytest.approx(20, abs=1e-4)
    assert result.denoised.psnr_db == pytest.approx(40, abs=1e-3)


class Told(Shift):
    """A model that is told the noise level, which it subtracts."""

    input_channels = 4

    def predict(self, *inputs: Tensor, options: CompileOptions) -> Any:
        return inputs[0][:, :3] - inputs[0][:, 3:]


def test_each_image_of_a_batch_is_restored_with_its_own_noise_level() -> None:
    levels = torch.tensor([0.1, 0.3, 0.1]).reshape(3, 1, 1, 1)
    # One channel differs, since grey images get noise of their own in each channel.
    clean = torch.tensor([0.5, 0.5, 0.6]).reshape(1, 3, 1, 1).expand(3, 3, 12, 12)
    inputs = torch.cat((clean + levels, levels.expand(3, 1, 12, 12)), dim=1)
    result = compare(Restorer.of(Told(0)), Pairs(inputs, clean))
    assert result.denoised.psnr_db > 100
    with pytest.raises(DataError, match="at most one more .* found 2 more"):
        compare(Restorer.of(Told(0)), Pairs(inputs[:, [0, 1, 2, 3, 3]], clean))
    inputs[0, 3, 5, 5] = 0.2
    with pytest.raises(DataError, match="noise level everywhere"):
        compare(Restorer.of(Told(0)), Pairs(inputs, clean))


def test_images_below_the_window_have_no_ssim() -> None:
    pairs = Pairs(torch.zeros(1, 3, 10, 12), torch.ones(1, 3, 10, 12))
    result = compare(Restorer.of(Shift(0.1)), pairs)
    assert result.noisy.ssim is None
    assert result.record()["ssim_denoised"] is None


def test_the_record_is_json_even_where_a_psnr_is_infinite() -> None:
    images = torch.full((1, 3, 12, 12), 0.5)
    record = compare(Restorer.of(Shift(0)), Pairs(images, images)).record()
    again = json.loads(json.dumps(record, allow_nan=False))
    assert again["psnr_noisy_db"] is None
    assert again["exact_pairs"] == again["pairs"] == 1
