"""Scoring: the scores of noisy images, and those of the images that a model makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from graphnet.errors import DataError
from graphnet.sdk import Gallery, Pairs, as_unit
from graphnet_denoise import metrics

_BATCH_PIXELS = 1 << 18  # of the images in a batch when no size is given


@dataclass(frozen=True, slots=True)
class Scores:
    """PSNR and SSIM against the targets; SSIM is None for images that are smaller than its window."""

    psnr_db: float
    psnr_pooled_db: float
    ssim: float | None


@dataclass(frozen=True, slots=True)
class ImageScore:
    """The scores of one image: its mean squared error for a range of 1, and its SSIM."""

    error: float
    ssim: float | None

    @property
    def psnr_db(self) -> float:
        """PSNR; infinite for an image that equals its target."""
        return -10 * math.log10(self.error) if self.error else math.inf

    @property
    def equal(self) -> bool:
        """Whether the image equals its target."""
        return self.error == 0


@dataclass(frozen=True, slots=True)
class ImageRow:
    """The scores of one image before and after, or of the image alone; `size` is (C, H, W)."""

    name: str
    size: tuple[int, int, int]
    noisy: ImageScore
    denoised: ImageScore | None

    def record(self) -> dict[str, Any]:
        """The row as plain data; None where a PSNR is infinite or an SSIM is undefined."""
        channels, height, width = self.size
        row: dict[str, Any] = {"name": self.name, "channels": channels}
        row |= {"height": height, "width": width}
        for name, score in (("noisy", self.noisy), ("denoised", self.denoised)):
            if score is not None:
                row[f"psnr_{name}_db"] = finite(score.psnr_db)
                row[f"ssim_{name}"] = score.ssim
                row[f"{name}_equals_target"] = score.equal
        return row


@dataclass(frozen=True, slots=True)
class Comparison:
    """The scores of noisy images, and of the images that are made of them; None if there are no such.

    `exact` counts the images that equal their target, before or after, such as crops of an even sky: their
    PSNR is infinite, so `psnr_db` is the mean over the others, on both sides.
    """

    noisy: Scores
    made: Scores | None
    images: tuple[ImageRow, ...]
    exact: int

    @property
    def denoised(self) -> Scores:
        """The scores of the images that were made; only where there are such."""
        assert self.made is not None
        return self.made

    @property
    def pairs(self) -> int:
        """The number of images."""
        return len(self.images)

    def record(self) -> dict[str, Any]:
        """The numbers for JSON; None if a PSNR is infinite or an SSIM is undefined."""
        record: dict[str, Any] = {"pairs": self.pairs, "exact_pairs": self.exact}
        for name, scores in (("noisy", self.noisy), ("denoised", self.made)):
            if scores is not None:
                record[f"psnr_{name}_db"] = finite(scores.psnr_db)
                record[f"psnr_pooled_{name}_db"] = finite(scores.psnr_pooled_db)
                record[f"ssim_{name}"] = scores.ssim
        return {**record, "images": [row.record() for row in self.images]}


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What is done to images before they are measured.

    Attributes:
        crop: so many rows and columns at each border are left out.
        affine: whether the best gain and offset of each image are applied first, for images that differ in
            exposure from their targets.
    """

    crop: int = 0
    affine: bool = False

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Adjust images and targets, (N, C, H, W). Raises DataError if nothing is left of them.

        >>> images = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 1, 1, 3)
        >>> Adjustment(affine=True)(images, 5 - 2 * images)[0].round().flatten().tolist()
        [3.0, 1.0, -3.0]
        """
        if self.crop:
            if min(images.shape[2:]) <= 2 * self.crop:
                raise DataError(
                    f"a border of {self.crop} pixels leaves nothing of an image of {images.shape[2]} x "
                    f"{images.shape[3]}. Give a smaller --crop."
                )
            inside = slice(self.crop, -self.crop)
            images, targets = (x[:, :, inside, inside] for x in (images, targets))
        if self.affine:
            images = _fitted(images.double(), targets.double())
        return images, targets


def _fitted(images: Tensor, targets: Tensor) -> Tensor:
    """The affine function of each image that comes closest to its target."""
    axes = (1, 2, 3)
    means = [x.mean(dim=axes, keepdim=True) for x in (images, targets)]
    x, y = images - means[0], targets - means[1]
    gain = (x * y).sum(axes, keepdim=True) / x.square().sum(axes, keepdim=True).clamp_min(1e-30)
    return gain * x + means[1]


@dataclass
class Measurements:
    """Collects the scores of images, one batch after the other."""

    adjustment: Adjustment = Adjustment()
    rows: list[ImageRow] = field(default_factory=list)

    def add(
        self, names: Sequence[str], noisy: Tensor, denoised: Tensor | None, targets: Tensor
    ) -> None:
        """Measure images (N, C, H, W) in 0..1 against their targets."""
        before = self._scores(noisy, targets)
        after = [None] * len(names) if denoised is None else self._scores(denoised, targets)
        channels, height, width = targets.shape[1:]
        for name, one, other in zip(names, before, after, strict=True):
            self.rows.append(ImageRow(name, (channels, height, width), one, other))

    def _scores(self, images: Tensor, targets: Tensor) -> list[ImageScore]:
        equal = (images == targets).flatten(1).all(1)
        images, targets = self.adjustment(images, targets)
        errors = metrics.squared_error(images, targets).masked_fill(equal.cpu(), 0).tolist()
        similarities: list[Any] = [None] * len(errors)
        if min(images.shape[2:]) >= metrics.WINDOW:
            similarities = metrics.structural_similarity(images, targets).tolist()
        return [ImageScore(*pair) for pair in zip(errors, similarities, strict=True)]

    def comparison(self) -> Comparison:
        """The scores of all images together."""
        rows = self.rows
        exact = [
            row.noisy.equal or (row.denoised is not None and row.denoised.equal) for row in rows
        ]
        sizes = [row.size[1] * row.size[2] for row in rows]
        before = [row.noisy for row in rows]
        after = [row.denoised for row in rows if row.denoised is not None]
        return Comparison(
            noisy=_together(before, sizes, exact),
            made=_together(after, sizes, exact) if after else None,
            images=tuple(rows),
            exact=sum(exact),
        )


def _together(scores: Sequence[ImageScore], sizes: Sequence[int], exact: Sequence[bool]) -> Scores:
    errors = torch.tensor([score.error for score in scores], dtype=torch.float64)
    left_out = torch.tensor(exact)
    counted = errors if bool(left_out.all()) else errors[~left_out]
    similarities = [score.ssim for score in scores if score.ssim is not None]
    return Scores(
        psnr_db=metrics.mean_psnr(counted),
        psnr_pooled_db=metrics.pooled_psnr(errors, torch.tensor(sizes, dtype=torch.float64)),
        ssim=sum(similarities) / len(similarities) if similarities else None,
    )


class Restores(Protocol):
    """What denoises images: a Restorer, or several of which each image gets one."""

    @property
    def takes_numbers(self) -> bool:
        """Whether images are the numbers of their file, not 0..1."""

    def restore(self, images: Tensor, *, noise_level: float | None = None) -> Tensor:
        """Denoise images, float (N, C, H, W)."""


def compare(
    restorer: Restores,
    pairs: Pairs | Gallery,
    *,
    batch_size: int | None = None,
    adjustment: Adjustment | None = None,
) -> Comparison:
    """Score the inputs of `pairs` and the restored images against the targets.

    Without `batch_size` a batch has about a quarter of a million pixels; images of a gallery come one by one.
    Raises DataError if the model does not fit the images.
    """
    measured = Measurements(adjustment or Adjustment())
    for inputs, targets in _batches(pairs, batch_size):
        channels = targets.shape[1]
        images, level = inputs[:, :channels], inputs[:, channels:]  # a noise level map, or nothing
        first = len(measured.rows)
        names = [str(first + i) for i in range(len(images))]
        measured.add(names, images, _restored(restorer, images, level), targets)
    return measured.comparison()


def _restored(restorer: Restores, images: Tensor, level: Tensor) -> Tensor:
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


def finite(value: float) -> float | None:
    """The value, or None if it is infinite."""
    return value if math.isfinite(value) else None
