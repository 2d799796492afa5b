"""Denoising images from noisy data alone: data sets, metrics and commands for graphnet.

    from graphnet_denoise import denoise
    clean = denoise(noisy)

    from graphnet_denoise import learn
    clean = denoise(noisy, model=learn("my-noisy-images", minutes=10).model)

Names are imported when they are first used, since they need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphnet_denoise.arrays import denoise, denoise_graphnet
    from graphnet_denoise.learning.own_images import learn

__version__ = "0.1.0"
__all__ = ["denoise", "denoise_graphnet", "learn"]

_HOMES = {"denoise": "arrays", "denoise_graphnet": "arrays", "learn": "learning.own_images"}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"graphnet_denoise.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
