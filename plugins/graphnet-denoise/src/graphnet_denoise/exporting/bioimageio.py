"""BioImage.IO: a denoiser as a model package, which napari, deepImageJ, ilastik, QuPath and others can run.

A package is a zip or a folder with `rdf.yaml`, the description of the model in the format 0.5
(github.com/bioimage-io/spec-bioimage-io), `model.onnx`, a text for people, and test tensors: an input, and
the output that graphnet computes for it. bioimageio.core runs the model on the one and compares with the
other. The description states

- the axes batch, channel, y, x of the input and the output, both float32: black 0 and white 1, or the numbers
  of the files for a model that knows their range, as those of `graphnet learn` do;
- which sides fit: at least `min` pixels, in steps of the number that must divide them. Other sides are
  padded inside the network, so that they work too;
- the `halo`: how many pixels at the border of a tile depend on what lies outside of it. A program that cuts
  an image into tiles lets them overlap by it. A network that looks at the whole image has none.
"""

from __future__ import annotations

import importlib
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet.errors import DataError, InputError, WriteError
from graphnet.model import Model
from graphnet.sdk import Written
from graphnet.system import atomic_write
from graphnet_denoise.exporting.wrapping import OPSET, Network, for_images, write_onnx
from graphnet_denoise.normalization import knows_range, normalization_of

_EXTRA = "pip install 'graphnet-denoise[bioimageio]'"
_NOISE = 25 / 255  # of the test image, where the model is told no other level


def write_bioimageio(
    model: Model,
    path: Path,
    *,
    name: str | None = None,
    authors: Sequence[str] = (),
    license: str | None = None,
    noise_level: float | None = None,
) -> Written:
    """Write a denoiser as a model package of BioImage.IO, and check it with its own library.

    Args:
        model: a denoiser of images of any number of channels.
        path: the zip to write if it ends with .zip, else the folder, which is made.
        name: what programs show; None takes the name in the model's description.
        authors: who trained the model.
        license: the model's licence, as its SPDX identifier, such as "CC-BY-4.0".
        noise_level: what a model with a map of the noise level assumes, in 255ths; such a model needs it.

    Raises:
        InputError: bioimageio.core or graphnet-onnx is not installed, or the folder has files.
        CheckpointError: the model has no weights.
        DataError: the model is no denoiser, or is told a noise level and takes none, or the reverse; or the
            library refuses the description.
        CannotExport: ONNX has no operators for a layer.
        WriteError: the package cannot be written.
    """
    spec = _library(path)
    network = Network.of(model)
    title = model.description.name
    if network.told and noise_level is None:
        raise DataError(
            f"{title}: the model takes the noise level as an input, and programs for BioImage.IO cannot know "
            f"it. State it: --noise-level 25, the standard deviation in 255ths."
        )
    wrapped = for_images(network, network.channels, noise_level=noise_level)
    halo = network.reach()
    least = network.up(2 * (halo or 0) + 16)
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "files"
        inside.mkdir()
        written = write_onnx(wrapped, inside / "model.onnx", side=least, fixed=())
        noisy = _test_image(network.channels, least, (noise_level or 255 * _NOISE) / 255)
        mean, deviation = normalization_of(model.description) or (0.0, 1.0)
        noisy = (deviation * noisy + mean).astype(np.float32)
        np.save(inside / "test_input.npy", noisy)
        np.save(inside / "test_output.npy", wrapped.predict(torch.from_numpy(noisy)).numpy())
        (inside / "README.md").write_text(_words(name or title, network, noise_level))
        description = _description(
            spec, inside, network, name or title, authors, license, least, halo
        )
        package = Path(folder) / "package.zip"
        try:
            spec.save_bioimageio_package(description, output_path=package)
        except ValueError as error:  # pydantic's ValidationError is one
            raise DataError(f"{title}: BioImage.IO refuses the description: {error}") from error
        size = _place(package, path)
    note = f"halo {halo}" if halo is not None else "no halo: the network looks at the whole image"
    sides = f"sides of {least}, {least + network.divisor}, ... pixels"
    return replace(written, path=path, size_bytes=size, note=f"{sides}, {note}")


def _library(path: Path) -> Any:
    try:
        return importlib.import_module("bioimageio.spec")
    except ImportError:
        raise InputError(
            f"{path}: bioimageio.core writes and checks this package, and it is not installed. Run: {_EXTRA}"
        ) from None


def _description(
    spec: Any,
    folder: Path,
    network: Network,
    name: str,
    authors: Sequence[str],
    license: str | None,
    least: int,
    halo: int | None,
) -> Any:
    """The rdf.yaml. Raises DataError, with what the library says, if it is refused."""
    channels = [f"channel{c}" for c in range(network.channels)]
    if network.channels == 3:
        channels = ["red", "green", "blue"]
    data: dict[str, Any] = {"type": "float32", "range": [0.0, 1.0]}
    values = "black 0 and white 1"
    if knows_range(network.model.description):
        data, values = {"type": "float32"}, "the numbers of its file"

    def side(axis: str) -> dict[str, Any]:
        return {"type": "space", "id": axis, "size": {"min": least, "step": network.divisor}}

    def same_side(axis: str) -> dict[str, Any]:
        size = {"tensor_id": "noisy", "axis_id": axis}
        return {"type": "space", "id": axis, "size": size, **({"halo": halo} if halo else {})}

    ends = [{"type": "batch"}, {"type": "channel", "channel_names": channels}]
    content = {
        "type": "model",
        "format_version": spec.model.v0_5.ModelDescr.implemented_format_version,
        "name": name,
        "description": f"A denoiser of images ({network.model.description.name}), trained with graphnet",
        "authors": [{"name": author} for author in authors],
        "tags": ["denoising", "image-restoration", "2d", "onnx", "graphnet"],
        "documentation": {"source": "README.md"},
        "inputs": [
            {
                "id": "noisy",
                "description": f"a noisy image, {values}",
                "axes": [*ends, side("y"), side("x")],
                "data": data,
                "test_tensor": {"source": "test_input.npy"},
            }
        ],
        "outputs": [
            {
                "id": "denoised",
                "description": "the image without its noise",
                "axes": [*ends, same_side("y"), same_side("x")],
                "data": {"type": "float32"},
                "test_tensor": {"source": "test_output.npy"},
            }
        ],
        "weights": {"onnx": {"source": "model.onnx", "opset_version": OPSET}},
        **({"license": license} if license else {}),
    }
    context = spec.ValidationContext(root=folder, perform_io_checks=True)
    found = spec.build_description(content, context=context)
    if isinstance(found, spec.InvalidDescr):
        raise DataError(
            f"{name}: BioImage.IO refuses the description: {found.validation_summary.format()}"
        )
    return found


def _test_image(channels: int, side: int, noise: float) -> NDArray[np.float32]:
    """Waves with noise, always the same: float32 (1, C, side, side), around 0..1."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / 24
    waves = [np.sin(x + c) * np.cos(y * math.sqrt(1 + c)) for c in range(channels)]
    clean = 0.5 + 0.3 * np.stack(waves)[None]
    noisy: NDArray[Any] = clean + noise * random.standard_normal(clean.shape)
    return noisy.astype(np.float32)


def _words(name: str, network: Network, noise_level: float | None) -> str:
    known = normalization_of(network.model.description)
    range_of_data = "in which black is 0 and white is 1"
    if known is not None:
        mean, deviation = known
        range_of_data = (
            f"with the numbers of their files, as the model was trained on (mean {mean:.4g}, deviation "
            f"{deviation:.4g})"
        )
    told = "" if noise_level is None else f" It assumes noise of the deviation {noise_level:g}/255."
    return f"""# {name}

A denoiser of images of {network.channels} channels, trained with graphnet
({network.model.description.name}).{told}

Give it images {range_of_data}.
The noise should be as the camera made it: no clipping, no smoothing. The denoised image has the same range.

# Validation

The package holds a test image with its expected result. Compare results with images that you know to be
clean, or at least look at the difference between the noisy image and the result: it should show no structure.
"""


def _place(package: Path, path: Path) -> int:
    """Move the zip to its place, or unpack it there; return the size of all files."""
    if path.suffix.lower() == ".zip":
        with atomic_write(path) as temporary:
            shutil.copyfile(package, temporary)
        return path.stat().st_size
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(
            f"{path}: expected a folder that is empty or does not exist, or a name that ends with .zip."
        )
    try:
        shutil.unpack_archive(package, path)
    except OSError as error:
        raise WriteError(f"{path}: the folder cannot be written ({error.strerror}).") from error
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
