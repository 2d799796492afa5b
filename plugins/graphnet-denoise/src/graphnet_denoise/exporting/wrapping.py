"""Wrapping: a denoiser as the network that another program runs, on images of any size."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphnet.description import InputDescription, ModelDescription, NodeDescription
from graphnet.errors import DataError, InputError
from graphnet.model import Model
from graphnet.plan import margins
from graphnet.sdk import Written
from graphnet_denoise.embedding import NETWORK, as_block
from graphnet_denoise.restoring import trained_weights

IMAGE = "input"
LEVEL = "sigma"
OPSET = 17
"""The version of ONNX's operators: what the programs with the oldest onnxruntime still read."""
_EXTRA = "pip install 'graphnet-denoise[onnx]'"


@dataclass(frozen=True, slots=True)
class Network:
    """What a denoiser takes: the channels of an image, whether a map of the noise level follows them as one
    more channel, and the number that must divide H and W."""

    model: Model
    channels: int
    told: bool
    divisor: int

    @classmethod
    def of(cls, model: Model) -> Network:
        """Find it out. Raises CheckpointError without weights, DataError for a model that is no denoiser."""
        name = model.description.name
        trained_weights(model)
        taken = model.input_channels
        if len(model.description.inputs) != 1 or taken is None:
            raise DataError(
                f"{name}: expected a model with one image as input, whose channels its description states "
                f"(input: {{channels: 3}}), found inputs "
                f"{ {key: str(one) for key, one in model.description.inputs.items()} }."
            )
        divisor = model.divisor()
        side = divisor * -(-16 // divisor)
        graph = model.graph((1, taken, side, side))
        shapes = [graph.values[value].spec.shape for value in graph.outputs]
        made = shapes[0][1] if len(shapes) == 1 and len(shapes[0]) == 4 else 0
        if taken - made not in (0, 1) or made == 0 or shapes[0][2:] != (side, side):
            raise DataError(
                f"{name}: the model is no denoiser: from an image of {taken} channels it makes "
                f"{', '.join(map(str, shapes))}. Give a model with one output, of the shape of its input."
            )
        return cls(model, made, made < taken, divisor)

    def reach(self) -> int | None:
        """How many pixels around a pixel its result depends on, rounded up to a multiple of the divisor; None
        for a network that looks at the whole image."""
        side = self.up(16)
        graph = self.model.graph((1, self.channels + self.told, side, side))
        try:
            return self.up(max(max(one.before, one.after) for one in margins(graph)))
        except InputError:
            return None

    def up(self, size: int) -> int:
        """The smallest multiple of the divisor that is not below a size."""
        return -(-size // self.divisor) * self.divisor

    def level_or_refuse(self, noise_level: float | None) -> None:
        """Raise DataError if a noise level is given that the model does not take."""
        if noise_level is not None and not self.told:
            raise DataError(
                f"{self.model.description.name}: the model has no input for a noise level. Leave it out."
            )


def for_images(network: Network, channels: int, *, noise_level: float | None = None) -> Model:
    """Return a model that takes images of that many channels and of any size, and returns their like.

    The image is padded by reflection for the network, and the result is cropped. A network of one channel
    denoises each channel on its own. The map of a network that takes one holds `noise_level`, in 255ths; if
    that is None, the map is a second input, `sigma`, in parts of the range from black to white.

    Raises DataError if the channels do not fit, or if the network takes no noise level.
    """
    network.level_or_refuse(noise_level)
    description = network.model.description
    if network.channels not in (1, channels):
        raise DataError(
            f"{description.name}: the model takes images of {network.channels} channels, and this file is "
            f"for images of {channels}. Give a model for {channels} channels, or for 1."
        )
    nodes: list[NodeDescription] = []

    def node(layer: str, id: str, *inputs: str, share: str | None = None, **config: Any) -> str:
        nodes.append(NodeDescription(layer, config, id, inputs, share))
        return id

    image, level = f"${IMAGE}", f"${LEVEL}"
    name, blocks = as_block(description)
    if network.told and noise_level is not None:
        black = node("rescale", "black", node("slice", "first", image, end=1), factor=0.0)
        level = node("add_scalar", "level", black, value=noise_level / 255)
    parts = [image]
    if network.channels != channels:
        parts = [node("slice", f"channel{c}", image, start=c, end=c + 1) for c in range(channels)]
    results = []
    for number, part in enumerate(parts):
        which = str(number) if len(parts) > 1 else ""
        x = node("concat", f"told{which}", part, level) if network.told else part
        if network.divisor > 1:
            x = node("denoise/pad_to_multiple", f"padded{which}", x, divisor=network.divisor)
        first = NETWORK if number == 0 else None
        results.append(node(name, f"{NETWORK}{number or ''}", x, share=None if first else NETWORK))
    whole = results[0] if len(results) == 1 else node("concat", "channels", *results)
    if network.divisor > 1:
        node("denoise/crop_to", "cropped", whole, image)
    inputs = {IMAGE: InputDescription(channels=channels)}
    if level == f"${LEVEL}" and network.told:
        inputs[LEVEL] = InputDescription(channels=1)
    weights = trained_weights(network.model)
    return Model(
        ModelDescription(tuple(nodes), description.name, inputs, blocks),
        registry=network.model.registry,
        weights={f"{NETWORK}.{key}": tensor for key, tensor in weights.items()},
    )


def write_onnx(
    model: Model, path: Path, side: int, *, fixed: Collection[str] = ("batch",)
) -> Written:
    """Write a model that `for_images` made, with free height and width; `side` is an example of them.

    Raises InputError if graphnet-onnx is not installed, CannotExport if ONNX cannot compute a layer, or needs
    a size that is free.
    """
    try:
        import graphnet_onnx
    except ImportError:
        raise InputError(
            f"{path}: graphnet-onnx writes this file, and it is not installed. Run: {_EXTRA}"
        ) from None
    shapes = [(1, one.channels or 1, side, side) for one in model.description.inputs.values()]
    return graphnet_onnx.export(model, path, *shapes, fixed=fixed, opset=OPSET)


def slug(text: str) -> str:
    """A text as a name for files: lower-case letters, digits and hyphens.

    >>> slug("U-Net (fine), 2nd")
    'u-net-fine-2nd'
    """
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split()
    return "-".join(words) or "model"
