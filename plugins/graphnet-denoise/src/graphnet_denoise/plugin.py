"""The hooks of this distribution. Heavy modules are imported when a hook runs."""

from __future__ import annotations

from graphnet.sdk import Command, OwnKind, Register, hookimpl

GRAPHNET_CONTRACT = 2


@hookimpl
def graphnet_kinds(register: Register) -> None:
    """Declare noises, supervisions and formats of image files, to which other distributions can add."""
    from graphnet_denoise.images import Format
    from graphnet_denoise.images.opening import KIND
    from graphnet_denoise.noise import NOISES, Noise
    from graphnet_denoise.supervision import SUPERVISIONS, Supervision

    register(NOISES.kind, OwnKind("noise", Noise, needs=("noisy",)))
    register(SUPERVISIONS.kind, OwnKind("supervision", Supervision, needs=("make",)))
    register(KIND, OwnKind("format", Format, needs=("matches", "open")))


@hookimpl
def graphnet_denoise_noises(register: Register) -> None:
    """Add the noises of this distribution, such as `gaussian`."""
    from graphnet_denoise.noise import NOISES

    NOISES.register(register)


@hookimpl
def graphnet_denoise_supervisions(register: Register) -> None:
    """Add the supervisions of this distribution, such as `noise2noise`."""
    from graphnet_denoise.supervision import SUPERVISIONS

    SUPERVISIONS.register(register)


@hookimpl
def graphnet_denoise_formats(register: Register) -> None:
    """Add the formats of image files of this distribution, such as `tiff`."""
    from graphnet_denoise.images.families import BUILTIN

    for known in BUILTIN:
        register(known.name, type(known))


@hookimpl
def graphnet_layers(register: Register) -> None:
    """Add `denoise/diagonal_means`, which zero-shot training needs."""
    from graphnet_denoise.layers import DiagonalMeans

    register("denoise/diagonal_means", DiagonalMeans)


@hookimpl
def graphnet_datasets(register: Register) -> None:
    """Add `photos` (pairs sampled from a folder of photos), `pairs` (pairs in files), `patches` (pairs made
    during training) and `images` (whole images with noise, for measuring)."""
    from graphnet_denoise.gallery import WholeImages
    from graphnet_denoise.pairs import PairFiles
    from graphnet_denoise.patches import Patches
    from graphnet_denoise.photos import Photos

    register("photos", Photos)
    register("pairs", PairFiles)
    register("patches", Patches)
    register("images", WholeImages)


@hookimpl
def graphnet_commands(register: Register) -> None:
    """Add `denoise`, `evaluate` and `convert-pairs`."""
    here = "graphnet_denoise.commands"
    register("denoise", Command("Denoise images of any size.", f"{here}.denoise:denoise"))
    register(
        "evaluate",
        Command("Compare a model's images with clean ones.", f"{here}.evaluate:evaluate"),
    )
    register(
        "convert-pairs",
        Command(
            "Make a .npz file of pairs from an old .pkl file.", f"{here}.convert:convert_pairs"
        ),
    )


@hookimpl
def graphnet_metrics(register: Register) -> None:
    """Add `psnr` (mean of the images' PSNR), `psnr_pooled` (PSNR of the mean error) and `ssim`."""
    from graphnet_denoise import metrics

    register("psnr", metrics.PSNR)
    register("psnr_pooled", metrics.PooledPSNR)
    register("ssim", metrics.SSIM)
