"""The hooks: what this distribution adds to graphnet. Nothing heavy is imported until a hook
runs.
"""

from __future__ import annotations

from graphnet.sdk import Register, hookimpl


@hookimpl
def graphnet_layers(register: Register) -> None:
    """Add `denoise/diagonal_means`, which zero-shot training needs."""
    from graphnet_denoise.layers import DiagonalMeans

    register("denoise/diagonal_means", DiagonalMeans)


@hookimpl
def graphnet_datasets(register: Register) -> None:
    """Add `photos` (pairs sampled from a folder of photos), `pairs` (ready pairs in files), `patches`
    (pairs made while training) and `images` (whole images with noise, to measure on)."""
    from graphnet_denoise.gallery import WholeImages
    from graphnet_denoise.pairs import PairFiles
    from graphnet_denoise.patches import Patches
    from graphnet_denoise.photos import Photos

    register("photos", Photos)
    register("pairs", PairFiles)
    register("patches", Patches)
    register("images", WholeImages)


@hookimpl
def graphnet_metrics(register: Register) -> None:
    """Add `psnr` (mean of the images' PSNR), `psnr_pooled` (PSNR of the mean error) and `ssim`."""
    from graphnet_denoise import metrics

    register("psnr", metrics.of_images(metrics.psnr))
    register("psnr_pooled", metrics.of_images(metrics.psnr_pooled))
    register("ssim", metrics.of_images(metrics.ssim))
