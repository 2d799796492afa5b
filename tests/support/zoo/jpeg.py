"""JPEG: sampling, quality, colours and metadata; read by Pillow."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin

from tests.support.zoo.metadata import BROKEN_EXIF, XMP, camera_exif, colour_profile
from tests.support.zoo.specimen import Sight, Specimen, slope


def look(path: Path) -> Sight:
    """Read a JPEG by Pillow."""
    with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        sampling = JpegImagePlugin.get_sampling(image)
        info = {key: value for key, value in image.info.items() if key != "mp"}
        facts = {
            "mode": image.mode,
            "size": image.size,
            "tables": image.quantization,
            "sampling": sampling,
            "layers": [layer[:3] for layer in image.layer],
            "info": info,
        }
        return Sight(np.asarray(image), facts)


def _saved(name: str, mode: str = "RGB", *, tolerance: float = 6, **options: Any) -> Specimen:
    pixels = slope({"L": 1, "RGB": 3, "CMYK": 4}[mode])
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    return Specimen(f"{name}.jpg", lambda path: path.write_bytes(data), look, tolerance=tolerance)


def _with_segment(name: str, marker: int, data: bytes) -> Specimen:
    plain = io.BytesIO()
    Image.fromarray(slope()).save(plain, "JPEG", quality=90)
    start = plain.getvalue()
    segment = struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
    whole = start[:2] + segment + start[2:]
    return Specimen(f"{name}.jpg", lambda path: path.write_bytes(whole), look, tolerance=6)


def specimens() -> Iterator[Specimen]:
    """All JPEGs."""
    yield _saved("grey", "L", quality=85)
    for sampling in ("4:4:4", "4:2:2", "4:2:0"):
        yield _saved(
            f"rgb-{sampling.replace(':', '')}", quality=90, subsampling=sampling, tolerance=12
        )
    yield _saved("low-quality", quality=20, tolerance=40)
    yield _saved("best-quality", quality=100, subsampling=0, tolerance=3)
    yield _saved("own-tables", qtables=[[3] * 64, [5] * 64], subsampling=0)
    yield _saved("progressive", quality=90, progressive=True, subsampling=0)
    yield _saved("cmyk", "CMYK", quality=95)
    yield _saved("stored-as-rgb", quality=95, keep_rgb=True)
    yield _saved("restarts", quality=90, subsampling=0, restart_marker_rows=1)
    yield _saved("resolution", quality=90, dpi=(300, 300), subsampling=0)
    yield _saved("exif", quality=90, exif=b"Exif\0\0" + camera_exif(), subsampling=0)
    yield _saved("turned", quality=90, exif=b"Exif\0\0" + camera_exif(orientation=6), subsampling=0)
    yield _saved("icc", quality=90, icc_profile=colour_profile(), subsampling=0)
    yield _saved("large-icc", quality=90, icc_profile=bytes(100_000), subsampling=0)
    yield _saved("comment", quality=90, comment=b"of a person", subsampling=0)
    yield _with_segment("xmp", 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    yield _with_segment("broken-exif", 0xE1, b"Exif\0\0" + BROKEN_EXIF)
    yield _with_segment("iptc", 0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0")
