"""Scoring: the scores of noisy images, and those of the images that a model makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import DataError
from graphnet.sdk import Gallery, Pairs, as_unit
from graphnet_denoise import metrics
from graphnet_denoise.restoring import Restorer

_BATCH_PIXELS = 1 << 18  # of the images in a batch when no size is given


@dataclass(frozen=True, slots=True)
class Scores:
    """PSNR and SSIM against the targets; SSIM is None for images that are smaller than its window."""

    psnr_db: float
    psnr_pooled_db: float
    ssim: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The scores of `pairs` noisy images, and of the images that a model makes of them.

    `exact` counts the noisy images that equal their target, such as crops of an even sky: their
    PSNR is infinite, so `psnr_db` is the mean over the others, on both sides.
    """

    noisy: Scores
    denoised: Scores
    pairs: int
    exact: int

    def record(self) -> dict[str, Any]:
        """The numbers for JSON; None if a PSNR is infinite or an SSIM is undefined."""
        record: dict[str, Any] = {"pairs": self.pairs, "exact_pairs": self.exact}
        for name, scores in (("noisy", self.noisy), ("denoised", self.denoised)):
            record[f"psnr_{name}_db"] = _finite(scores.psnr_db)
            record[f"psnr_pooled_{name}_db"] = _finite(scores.psnr_pooled_db)
            record[f"ssim_{name}"] = scores.ssim
        return record


def compare(
    restorer: Restorer, pairs: Pairs | Gallery, *, batch_size: int | None = None
) -> Comparison:
    """Score the inputs of `pairs` and the restored images against the targets.

    Without `batch_size` a batch has about a quarter of a million pixels; images of a gallery come one by one.
    Raises DataError if the model does not fit the images.
    """
    noisy, denoised = _Measurements(), _Measurements()
    for inputs, targets in _batches(pairs, batch_size):
        channels = targets.shape[1]
        images, level = inputs[:, :channels], inputs[:, channels:]  # a noise level map, or nothing
        noisy.add(images, targets)
        denoised.add(_restored(restorer, images, level), targets)
    exact = noisy.errors() == 0
    return Comparison(
        noisy=noisy.scores(leave_out=exact),
        denoised=denoised.scores(leave_out=exact),
        pairs=len(pairs),
        exact=int(exact.sum()),
    )


def _restored(restorer: Restorer, images: Tensor, level: Tensor) -> Tensor:
    """The model's images, those of one noise level together; `level` is (N, 1, H, W), or (N, 0, H, W)."""
    if level.shape[1] == 0:
        return restorer.restore(images)
    levels = level[:, 0, 0, 0]
    if level.shape[1] > 1 or not bool((level == levels.reshape(-1, 1, 1, 1)).all()):
        raise DataError(
            f"expected inputs of {images.shape[1]} channels, as the targets have, and at most one more "
            f"that holds an image's noise level everywhere; found {level.shape[1]} more. Give noisy "
            f"images and, for a model that is told it, their level."
        )
    restored = torch.empty_like(images)
    for one in sorted(set(levels.tolist())):
        same = levels == one
        restored[same] = restorer.restore(images[same], noise_level=one * 255)
    return restored


def _batches(pairs: Pairs | Gallery, batch_size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(pairs, Gallery):
        for index in range(len(pairs)):
            image, target = pairs[index]
            yield as_unit(image[None], torch.float32), as_unit(target[None], torch.float32)
        return
    size = batch_size or max(1, _BATCH_PIXELS // math.prod(pairs.inputs.shape[2:]))
    for start in range(0, len(pairs), size):
        part = slice(start, start + size)
        yield (
            as_unit(pairs.inputs[part], torch.float32),
            as_unit(pairs.targets[part], torch.float32),
        )


class _Measurements:
    """The error and similarity of each image, collected batch by batch."""

    def __init__(self) -> None:
        self._errors: list[Tensor] = []
        self._pixels: list[Tensor] = []
        self._similarities: list[Tensor] = []

    def add(self, images: Tensor, targets: Tensor) -> None:
        errors = metrics.squared_error(images, targets)
        self._errors.append(errors)
        self._pixels.append(torch.full_like(errors, math.prod(images.shape[2:])))
        if min(images.shape[2:]) >= metrics.WINDOW:
            self._similarities.append(metrics.structural_similarity(images, targets))

    def errors(self) -> Tensor:
        return torch.cat(self._errors)

    def scores(self, *, leave_out: Tensor) -> Scores:
        errors = self.errors()
        counted = errors if bool(leave_out.all()) else errors[~leave_out]
        return Scores(
            psnr_db=metrics.mean_psnr(counted),
            psnr_pooled_db=metrics.pooled_psnr(errors, torch.cat(self._pixels)),
            ssim=float(torch.cat(self._similarities).mean()) if self._similarities else None,
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
