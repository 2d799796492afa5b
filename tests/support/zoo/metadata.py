"""Metadata as cameras and programs write it."""

from __future__ import annotations

import functools
import struct

from PIL import Image, ImageCms
from PIL.ExifTags import GPS, IFD, Base


def camera_exif(orientation: int = 1) -> bytes:
    """EXIF data with camera, time, lens and place, from its byte-order mark on."""
    exif = Image.Exif()
    exif[Base.Make] = "Maker"
    exif[Base.Model] = "Model 7"
    exif[Base.Orientation] = orientation
    exif[Base.DateTime] = "2024:05:06 07:08:09"
    details = exif.get_ifd(IFD.Exif)
    details[Base.DateTimeOriginal] = "2024:05:06 07:08:09"
    details[Base.LensModel] = "50mm f/1.8"
    details[Base.ISOSpeedRatings] = 6400
    details[Base.ExposureTime] = (1, 250)
    places = exif.get_ifd(IFD.GPSInfo)
    places[GPS.GPSLatitudeRef] = "N"
    places[GPS.GPSLatitude] = (46.0, 31.0, 12.5)
    places[GPS.GPSLongitudeRef] = "E"
    places[GPS.GPSLongitude] = (6.0, 34.0, 0.25)
    return exif.tobytes().removeprefix(b"Exif\0\0")


@functools.cache
def colour_profile() -> bytes:
    """An ICC profile; it holds the time when it was made."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rating>5</rating></x:xmpmeta>'
BROKEN_EXIF = b"II*\0" + struct.pack("<I", 0xFFFFFF00)
