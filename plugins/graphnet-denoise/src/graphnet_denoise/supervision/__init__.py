"""Supervision: what a network sees and what its output is compared with, made from patches.

Clean images get noise during training: once, to compare with the clean image (noise2clean), or twice, to
compare two noisy images (noise2noise). From images that are noisy already, a network learns by predicting
pixels that it does not see (noise2void), or from one half of the pixels to the other (neighbor2neighbor,
zero_shot_noise2noise).
"""

from __future__ import annotations

from graphnet_denoise.choices import Choices
from graphnet_denoise.supervision.base import Supervision, Views, as_tensor
from graphnet_denoise.supervision.blindspot import Noise2Void
from graphnet_denoise.supervision.diagonals import ZeroShotNoise2Noise
from graphnet_denoise.supervision.neighbors import Neighbor2Neighbor
from graphnet_denoise.supervision.paired import Noise2Clean, Noise2Noise

__all__ = [
    "SUPERVISIONS",
    "Neighbor2Neighbor",
    "Noise2Clean",
    "Noise2Noise",
    "Noise2Void",
    "Supervision",
    "Views",
    "ZeroShotNoise2Noise",
    "as_tensor",
]

SUPERVISIONS = Choices[Supervision](
    Supervision,
    "denoise_supervisions",
    {
        "noise2noise": Noise2Noise,
        "noise2clean": Noise2Clean,
        "noise2void": Noise2Void,
        "neighbor2neighbor": Neighbor2Neighbor,
        "zero_shot_noise2noise": ZeroShotNoise2Noise,
    },
)
