"""The kinds of noise by name, except those that are made of others: these are in mixture.py."""

from __future__ import annotations

from graphnet_denoise.choices import Choices
from graphnet_denoise.noise.base import Noise
from graphnet_denoise.noise.blocks import BlockSampling
from graphnet_denoise.noise.camera import Camera
from graphnet_denoise.noise.gaussian import Correlated, Gaussian
from graphnet_denoise.noise.sensor import PoissonGaussian, SaltAndPepper

NOISES = Choices[Noise](
    Noise,
    "denoise_noises",
    {
        "gaussian": Gaussian,
        "poisson_gaussian": PoissonGaussian,
        "salt_and_pepper": SaltAndPepper,
        "correlated": Correlated,
        "block_sampling": BlockSampling,
        "camera": Camera,
    },
)
