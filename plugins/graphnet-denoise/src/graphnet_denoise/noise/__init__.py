"""Noise that is added to clean images in training or measuring, in floating point.

Standard deviations are given in 255ths of the range from black to white, as papers do. A field that takes
a range, such as `std: [5, 55]`, gives each image one value, drawn uniformly from it. Noisy pixels may lie
outside 0..1. `clip: true` clips them, as a camera does; the mean of many noisy images is then darker or
lighter than the clean image.
"""

from __future__ import annotations

import json

from graphnet.errors import DescriptionError, Problem
from graphnet_denoise.noise.base import Images, Noise, Range, Scenes, check_level
from graphnet_denoise.noise.blocks import BlockSampling
from graphnet_denoise.noise.camera import Camera
from graphnet_denoise.noise.gaussian import Correlated, Gaussian
from graphnet_denoise.noise.kinds import NOISES
from graphnet_denoise.noise.mixture import Grey, Mixture
from graphnet_denoise.noise.sensor import PoissonGaussian, SaltAndPepper

__all__ = [
    "NOISES",
    "BlockSampling",
    "Camera",
    "Correlated",
    "Gaussian",
    "Grey",
    "Images",
    "Mixture",
    "Noise",
    "PoissonGaussian",
    "Range",
    "SaltAndPepper",
    "Scenes",
    "check_level",
    "parse_noise",
]


def parse_noise(text: str) -> Noise:
    """Make noise from "name", "name:number" (for its first range) or JSON {name: {field: value}}.

    Raises DescriptionError if the text has another form, or a value is wrong.

    >>> parse_noise("gaussian:25") == parse_noise('{"gaussian": {"std": 25}}')
    True
    """
    name, colon, value = text.partition(":")
    try:
        if text.lstrip().startswith("{"):
            return NOISES.make(json.loads(text))
        if not colon:
            return NOISES.make(name)
        return NOISES.make({name: {NOISES.find(name).ranges[0]: float(value)}})
    except (ValueError, IndexError) as error:
        if isinstance(error, DescriptionError):
            raise
        message = f"expected noise such as gaussian:25, or JSON {{name: {{field: value}}}}, found {text!r}"
        raise DescriptionError([Problem(message)]) from error
