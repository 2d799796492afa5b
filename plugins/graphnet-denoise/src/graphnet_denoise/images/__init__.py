"""Images: files of every format, read and written without loss, in parts where the format allows it.

    with open_image(path) as source, create_like(target, source) as sink:
        for plane in range(source.planes):
            for rows in bands(source.height, 512):
                pixels = source.read(plane, rows)          # (C, h, w), in the file's own numbers
                sink.write(plane, rows, slice(None), pixels)

`read_pixels`, `read_rgb` and `image_size` are for one small image as a whole.
"""

from __future__ import annotations

from graphnet_denoise.images.file import ImageFile, ImageSink
from graphnet_denoise.images.format import Format
from graphnet_denoise.images.layout import Layout, bands
from graphnet_denoise.images.levels import Levels
from graphnet_denoise.images.listing import Listing, find_images, list_images, nothing_in
from graphnet_denoise.images.metadata import Metadata, upright
from graphnet_denoise.images.names import DENOISED, Names, earlier_results
from graphnet_denoise.images.opening import (
    create_like,
    formats,
    open_image,
    result_format,
)
from graphnet_denoise.images.picture import (
    Pixels,
    as_unit,
    image_size,
    read_pixels,
    read_rgb,
)

__all__ = [
    "DENOISED",
    "Format",
    "ImageFile",
    "ImageSink",
    "Layout",
    "Levels",
    "Listing",
    "Metadata",
    "Names",
    "Pixels",
    "as_unit",
    "bands",
    "create_like",
    "earlier_results",
    "find_images",
    "formats",
    "image_size",
    "list_images",
    "nothing_in",
    "open_image",
    "read_pixels",
    "read_rgb",
    "result_format",
    "upright",
]
