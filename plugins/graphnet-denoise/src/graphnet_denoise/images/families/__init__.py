"""The formats of this distribution, one module for each family."""

from __future__ import annotations

from graphnet_denoise.images.families.bmp import Bmp
from graphnet_denoise.images.families.fits import Fits
from graphnet_denoise.images.families.jpeg import Jpeg
from graphnet_denoise.images.families.jpeg2000 import Jpeg2000
from graphnet_denoise.images.families.mrc import Mrc
from graphnet_denoise.images.families.npy import Npy
from graphnet_denoise.images.families.pillow import Avif, Gif, Webp
from graphnet_denoise.images.families.png import Png
from graphnet_denoise.images.families.pnm import Pnm
from graphnet_denoise.images.families.raw import Raw
from graphnet_denoise.images.families.tiff import Tiff
from graphnet_denoise.images.families.zarr import Zarr
from graphnet_denoise.images.format import Format

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
