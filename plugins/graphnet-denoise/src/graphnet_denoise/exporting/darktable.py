"""darktable: a denoiser as a .dtmodel, which the module "neural restore" of darktable 5.6 runs.

What darktable expects was read in its sources and in those of its models (github.com/darktable-org, in
spring 2026), and no text or code is taken from them:

- A .dtmodel is a zip with one folder, whose name is the model's id, and in it `config.json` and `model.onnx`.
  The first entry names the folder (darktable: src/common/ai_models.c, dt_ai_models_install_local). It is
  installed by "import from file..." in preferences -> AI.
- config.json must have `id` and `name`. `task` is "denoise" for the tab "denoise"; `backend` is "onnx";
  `num_inputs` is 1 or 2; `version` is compared for updates; `spatial_dims` are the names of the free sizes in
  the ONNX file, which darktable sets to the side of its tiles; `attributes.input_sizes` are the sides that
  tiles may have, the largest first. Without it they are 2048, 1536, 1024, 768, 512, 384 and 256
  (dev-doc/AI.md, dev-doc/AI_Tasks.md; src/ai/backend_common.c; src/common/ai/restore.c,
  _resolve_tile_ladder).
- The first input is 1 x 3 x H x W in float32: the developed image with the curve of sRGB, 0..1. The only
  output is of the same shape. The second input, if there is one, is 1 x 1 x H x W and always 25/255, whatever
  the noise of the image is (src/common/ai/restore_rgb.c, dt_restore_run_patch).
- Tiles are squares that overlap by 64 pixels on each side, with mirrored pixels at the borders; no model can
  ask for more (OVERLAP_DENOISE, dt_restore_process_tiled). A network that looks further gets other pixels
  near the border of a tile than in the whole image.

darktable does not know which number must divide the sides. So the network in model.onnx pads the image and
crops the result by itself, and takes all sizes; and `input_sizes` are multiples, so that nothing is padded.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphnet.errors import DataError, InputError
from graphnet.model import Model
from graphnet.sdk import Written
from graphnet.system import atomic_write
from graphnet_denoise.exporting.wrapping import Network, for_images, slug, write_onnx
from graphnet_denoise.normalization import takes_numbers

SUFFIX = ".dtmodel"
OVERLAP = 64
"""How far darktable's tiles overlap on each side, in pixels."""
_TILES = (2048, 1536, 1024, 768, 512, 384, 256)  # darktable's own ladder
_CHANNELS = 3
_VERSION = "1.0"
_SAME_DATE = (1980, 1, 1, 0, 0, 0)  # the same model gives the same file, to the byte


def write_dtmodel(
    model: Model, path: Path, *, name: str | None = None, noise_level: float | None = None
) -> Written:
    """Write a denoiser as a .dtmodel for darktable.

    Args:
        model: a denoiser of images of 3 channels, or of 1: then each channel is denoised on its own.
        path: the file to write; its name ends with .dtmodel.
        name: what darktable shows; its id is made from it. None takes the name in the model's description.
        noise_level: what a model with a map of the noise level assumes, in 255ths. None leaves it to
            darktable, which states 25 for all images.

    Raises:
        InputError: the path does not end with .dtmodel, or graphnet-onnx is not installed.
        CheckpointError: the model has no weights.
        DataError: the model is no denoiser of such images, takes other numbers than 0..1, or takes no noise
            level.
        CannotExport: ONNX has no operators for a layer.
        WriteError: the file cannot be written.
    """
    if path.suffix.lower() != SUFFIX:
        raise InputError(f"{path}: expected a name that ends with {SUFFIX}, found {path.name!r}.")
    if takes_numbers(model):
        raise DataError(
            f"{model.description.name}: the model takes the numbers of the files that it was trained on, as "
            f"models of `graphnet learn` do, and darktable gives photographs in 0..1. Train one with "
            f"`graphnet train` for darktable."
        )
    network = Network.of(model)
    wrapped = for_images(network, _CHANNELS, noise_level=noise_level)
    config = _config(network, wrapped, name or model.description.name)
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "model.onnx"
        written = write_onnx(wrapped, onnx, side=network.up(64))
        files = {
            "config.json": json.dumps(config, indent=2).encode() + b"\n",
            "model.onnx": onnx.read_bytes(),
        }
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as package:
        for file, data in files.items():
            entry = zipfile.ZipInfo(f"{config['id']}/{file}", _SAME_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            package.writestr(entry, data)
    return replace(written, path=path, size_bytes=path.stat().st_size, note=_note(network, config))


def _config(network: Network, wrapped: Model, name: str) -> dict[str, Any]:
    multiples = [size - size % network.divisor for size in _TILES]
    return {
        "id": f"denoise-{slug(name)}",
        "name": name,
        "description": f"{network.model.description.name}, a denoiser trained with graphnet",
        "task": "denoise",
        "version": _VERSION,
        "backend": "onnx",
        "tiling": True,
        "num_inputs": len(wrapped.description.inputs),
        "spatial_dims": ["height", "width"],
        "attributes": {"input_sizes": multiples},
    }


def _note(network: Network, config: dict[str, Any]) -> str:
    reach = network.reach()
    note = f"id {config['id']}"
    if reach is None or reach > OVERLAP:
        seen = "the whole image" if reach is None else f"pixels up to {reach} away"
        note += f"; a pixel depends on {seen}, and darktable's tiles overlap by {OVERLAP} pixels"
    if config["num_inputs"] == 2:
        note += "; darktable states a noise level of 25 for all images, unless you fix one"
    return note
