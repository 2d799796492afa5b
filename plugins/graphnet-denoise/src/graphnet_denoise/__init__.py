"""Denoising images from noisy data alone: data sets, metrics and commands for graphnet.

    from graphnet_denoise import denoise
    clean = denoise(noisy)

Names are imported when they are first used, since they need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphnet_denoise.arrays import denoise, denoise_graphnet

__version__ = "0.1.0"
__all__ = ["denoise", "denoise_graphnet"]


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    if name in __all__:
        from graphnet_denoise import arrays

        return getattr(arrays, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
