"""The formats of this distribution, one module for each family."""

from __future__ import annotations

from graphnet_denoise.images.format import Format
from graphnet_denoise.images.formats.bmp import Bmp
from graphnet_denoise.images.formats.fits import Fits
from graphnet_denoise.images.formats.jpeg import Jpeg
from graphnet_denoise.images.formats.jpeg2000 import Jpeg2000
from graphnet_denoise.images.formats.mrc import Mrc
from graphnet_denoise.images.formats.npy import Npy
from graphnet_denoise.images.formats.pillow import Avif, Gif, Webp
from graphnet_denoise.images.formats.png import Png
from graphnet_denoise.images.formats.pnm import Pnm
from graphnet_denoise.images.formats.raw import Raw
from graphnet_denoise.images.formats.tiff import Tiff
from graphnet_denoise.images.formats.zarr import Zarr

BUILTIN: tuple[Format, ...] = (
    Raw(),  # by its name, since most raw files begin as a TIFF does
    Png(),
    Jpeg(),
    Tiff(),
    Webp(),
    Gif(),
    Bmp(),
    Avif(),
    Jpeg2000(),
    Fits(),
    Mrc(),
    Npy(),
    Pnm(),
    Zarr(),
)
"""The order decides which format takes a file first."""
