"""The formats of this distribution, one module for each family."""

from __future__ import annotations

from graphnet_denoise.images.format import Format
from graphnet_denoise.images.formats.jpeg import Jpeg
from graphnet_denoise.images.formats.png import Png
from graphnet_denoise.images.formats.tiff import Tiff

BUILTIN: tuple[Format, ...] = (Png(), Jpeg(), Tiff())
"""The order decides which format takes a file first."""
