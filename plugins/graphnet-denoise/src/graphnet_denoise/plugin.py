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
    from graphnet_denoise.noise import NOISES, Grey, Mixture

    NOISES.register(register)
    register("grey", Grey)
    register("mixture", Mixture)


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
    """Add `denoise/diagonal_means`, which zero-shot training needs, and `denoise/pad_to_multiple` and
    `denoise/crop_to`, which make a network take images of any size."""
    from graphnet_denoise import layers

    register("denoise/diagonal_means", layers.DiagonalMeans)
    register("denoise/pad_to_multiple", layers.PadToMultiple)
    register("denoise/crop_to", layers.CropTo)


@hookimpl
def graphnet_datasets(register: Register) -> None:
    """Add `photos` (pairs sampled from a folder of photos), `pairs` (pairs in files), `patches` (pairs made
    during training), `images` (whole images with noise, for measuring), and those of `graphnet learn`:
    `scenes` (patches of one's own noisy images) and `held_out` (patches that training leaves out)."""
    from graphnet_denoise.gallery import WholeImages
    from graphnet_denoise.learning.scenes import HeldOut, OwnScenes
    from graphnet_denoise.pairs import PairFiles
    from graphnet_denoise.patches import Patches
    from graphnet_denoise.photos import Photos

    register("photos", Photos)
    register("pairs", PairFiles)
    register("patches", Patches)
    register("images", WholeImages)
    register("scenes", OwnScenes)
    register("held_out", HeldOut)


@hookimpl
def graphnet_commands(register: Register) -> None:
    """Add `denoise`, `learn`, `evaluate`, `report`, `view`, `convert-pairs`, and exports."""
    here = "graphnet_denoise.commands"
    register("denoise", Command("Denoise images of any size.", f"{here}.denoise:denoise"))
    register("learn", Command("Train on a folder of your noisy images.", f"{here}.learn:learn"))
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
    register("report", Command("Show a training run as one HTML file.", f"{here}.report:report"))
    register(
        "view",
        Command("Look at a training run, or at images before and after.", f"{here}.view:view"),
    )
    register(
        "export-darktable",
        Command(
            "Write a model for darktable's neural restore.",
            f"{here}.export_darktable:export_darktable",
        ),
    )
    register(
        "export-bioimageio",
        Command(
            "Write a model as a package of BioImage.IO.",
            f"{here}.export_bioimageio:export_bioimageio",
        ),
    )


@hookimpl
def graphnet_metrics(register: Register) -> None:
    """Add `psnr` (mean of the images' PSNR), `psnr_pooled` (PSNR of the mean error), `ssim` and
    `held_out_psnr`."""
    from graphnet_denoise import metrics

    register("psnr", metrics.PSNR)
    register("psnr_pooled", metrics.PooledPSNR)
    register("ssim", metrics.SSIM)
    register("held_out_psnr", metrics.HeldOutPSNR)
