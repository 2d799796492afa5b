"""Drawing: the images of a run's model, and its network, as a page shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import graphnet
from graphnet.errors import DataError, GraphnetError
from graphnet.model import Model
from graphnet.plan import CompileOptions
from graphnet_denoise.images import list_images
from graphnet_denoise.report.examples import read_example, validation_examples
from graphnet_denoise.report.network import network_data, training_data
from graphnet_denoise.report.run import Run
from graphnet_denoise.restoring import Restorer, Settings
from graphnet_denoise.wording import error_text

NO_MODEL = "The run has not written a model yet, so there are no images."


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a page shows of a model.

    Args:
        pictures: what `Pictured.data` returns for each image.
        network: what `network_data` returns, if the network can be shown.
        training: what `training_data` returns, if a step of the training can be shown.
        remarks: sentences for the reader, about what cannot be shown.
    """

    pictures: Sequence[Mapping[str, Any]] = ()
    network: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None
    remarks: Sequence[str] = ()


def draw(run: Run, images: Sequence[Path], *, most: int, options: CompileOptions) -> Drawn:
    """Denoise images with the run's model.

    Args:
        run: the run.
        images: noisy images, or folders of them; without any, those of the run's validation.
        most: how many images are shown.
        options: how the model computes.

    An image that cannot be read becomes a remark, as does all that cannot be read of the run.

    Raises:
        DataError: none of `images` can be read.
    """
    if run.model is None:
        return Drawn(remarks=(NO_MODEL,))
    model = graphnet.load(run.model)
    network, remarks = draw_network(model, options)
    training = None
    try:
        training = training_data(model, run, options)
    except GraphnetError as error:
        remarks = [*remarks, f"The plan of a training step cannot be shown: {error}"]
    restorer = Restorer.of(model, Settings(options))
    if images:
        pictures, left_out = _denoised(images, restorer, most=most, channels=model.input_channels)
        return Drawn(pictures, network, training, [*remarks, *left_out])
    pictures = []
    try:
        examples = validation_examples(run, numbers=restorer.takes_numbers)
        pictures = [one.denoise(restorer).data() for one in islice(examples, most)]
    except GraphnetError as error:
        remarks = [*remarks, f"The images of the run's validation cannot be shown: {error}"]
    return Drawn(pictures, network, training, remarks)


def _denoised(
    images: Sequence[Path], restorer: Restorer, *, most: int, channels: int | None
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Denoise image files, and those directly in folders; and say which of them cannot be read."""
    pictures: list[Mapping[str, Any]] = []
    left_out: list[str] = []
    for path in [path for one in images for path in (list_images(one) if one.is_dir() else [one])]:
        if len(pictures) == most:
            break
        try:
            example = read_example(path, channels=channels)
            pictures.append(example.denoise(restorer).data())
        except GraphnetError as error:
            left_out.append(error_text(error, path))
    if left_out and not pictures:
        raise DataError(left_out[0])
    return pictures, [f"Left out {text}" for text in left_out]


def draw_network(
    model: Model, options: CompileOptions
) -> tuple[Mapping[str, Any] | None, list[str]]:
    """Return what `network_data` does, or None and the reason why the network cannot be shown."""
    try:
        return network_data(model, options), []
    except GraphnetError as error:
        return None, [f"The plan of the network cannot be shown: {error}"]
