"""TIFF: every depth, layout and compression that tifffile reads, page by page and part by part."""

from __future__ import annotations

from graphnet_denoise.images.families.tiff.form import Tiff

__all__ = ["Tiff"]
