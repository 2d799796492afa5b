"""Pictures of further kinds: WebP, GIF, AVIF, BMP and JPEG 2000; read by Pillow."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.zoo.metadata import XMP, camera_exif, colour_profile
from tests.support.zoo.specimen import HEIGHT, WIDTH, Sight, Specimen, noise, slope


def look(path: Path) -> Sight:
    """Read a picture by Pillow."""
    with Image.open(path) as image:
        image.load()
        info = {
            key: value for key, value in image.info.items() if key not in ("timestamp", "duration")
        }
        if "exif" in info:
            info["exif"] = info["exif"].removeprefix(b"Exif\0\0")
        return Sight(np.array(image), {"mode": image.mode, "size": image.size, "info": info})


def look_at_colours(path: Path) -> Sight:
    """The colours of a picture, whose palette, if it has one, does not stay."""
    with Image.open(path) as image:
        has_alpha = "transparency" in image.info
        return Sight(np.array(image.convert("RGBA" if has_alpha else "RGB")), {"size": image.size})


def _saved(
    name: str, image: Image.Image, *, fixed: int = 0, tolerance: float = 0, **options: Any
) -> Specimen:
    buffer = io.BytesIO()
    image.save(
        buffer,
        {"avif": "AVIF", "webp": "WEBP", "gif": "GIF", "bmp": "BMP"}[name.rpartition(".")[2]],
        **options,
    )
    data = buffer.getvalue()
    return Specimen(
        name, lambda path: path.write_bytes(data), look, fixed=fixed, tolerance=tolerance
    )


def _webps() -> Iterator[Specimen]:
    rgb, rgba = Image.fromarray(noise(HEIGHT, WIDTH, 3)), Image.fromarray(noise(HEIGHT, WIDTH, 4))
    about: dict[str, Any] = {"icc_profile": colour_profile(), "exif": camera_exif(), "xmp": XMP}
    yield _saved("lossless.webp", rgb, lossless=True)
    yield _saved("alpha.webp", rgba, lossless=True, exact=True, fixed=1)
    yield _saved("metadata.webp", rgb, lossless=True, **about)
    yield _saved("lossy.webp", Image.fromarray(slope()), quality=90, tolerance=16)


def _indexed(name: str, image: Image.Image, *, fixed: int = 0, **options: Any) -> Specimen:
    """A picture with a palette, of which only the colours stay."""
    buffer = io.BytesIO()
    image.save(buffer, name.rpartition(".")[2].upper(), **options)
    data = buffer.getvalue()
    return Specimen(name, lambda path: path.write_bytes(data), look_at_colours, fixed)


def _gifs() -> Iterator[Specimen]:
    yield _saved("grey.gif", Image.fromarray(noise(HEIGHT, WIDTH)), comment=b"of a person")
    few = Image.fromarray(slope()).quantize(64)
    yield _indexed("colours.gif", few)
    yield _indexed("transparent.gif", few, fixed=1, transparency=few.getpixel((5, 5)))


def _avifs() -> Iterator[Specimen]:
    rgb = Image.fromarray(slope())
    about: dict[str, Any] = {"icc_profile": colour_profile(), "exif": camera_exif(), "xmp": XMP}
    yield _saved("rgb.avif", rgb, quality=95, subsampling="4:4:4", speed=10, tolerance=8)
    yield _saved("half.avif", rgb, quality=95, subsampling="4:2:0", speed=10, tolerance=12, **about)
    turned: dict[str, Any] = {"exif": camera_exif(orientation=6)}
    yield _saved(
        "turned.avif", rgb, quality=95, subsampling="4:4:4", speed=10, tolerance=8, **turned
    )
    rgba = Image.fromarray(np.dstack((slope(), np.full((HEIGHT, WIDTH), 99, np.uint8))))
    yield _saved(
        "alpha.avif", rgba, quality=95, subsampling="4:4:4", speed=10, tolerance=8, fixed=1
    )
    yield _saved(
        "grey.avif", rgb.convert("L"), quality=95, subsampling="4:0:0", speed=10, tolerance=8
    )


def _bmps() -> Iterator[Specimen]:
    yield _saved("rgb.bmp", Image.fromarray(noise(HEIGHT, WIDTH, 3)), dpi=(300, 300))
    yield _saved("grey.bmp", Image.fromarray(noise(HEIGHT, WIDTH)))
    for name, colours in (("one-bit", 2), ("palette", 200)):
        image = Image.fromarray(slope()).quantize(colours)
        yield _indexed(f"{name}.bmp", image.convert("1") if colours == 2 else image)
    rgb, rgba = noise(HEIGHT, WIDTH, 3), noise(HEIGHT, WIDTH, 4)
    downwards = _bmp(rgb[..., ::-1], masks=False, upwards=False)
    yield Specimen("downwards.bmp", lambda path: path.write_bytes(downwards), look)
    alpha = _bmp(rgba[..., [2, 1, 0, 3]], masks=True, upwards=True)
    yield Specimen("alpha.bmp", lambda path: path.write_bytes(alpha), look, fixed=1)


def _bmp(stored: NDArray[np.uint8], *, masks: bool, upwards: bool) -> bytes:
    """A BMP of bytes (H, W, S), blue first; with masks it has a header of version 4."""
    height, width, samples = stored.shape
    row = (width * samples + 3) // 4 * 4
    rows = np.zeros((height, row), np.uint8)
    rows[:, : width * samples] = (stored[::-1] if upwards else stored).reshape(height, -1)
    size = 108 if masks else 40
    tall = height if upwards else -height
    header = struct.pack(
        "<IiiHHIIiiII",
        size,
        width,
        tall,
        1,
        8 * samples,
        3 if masks else 0,
        rows.size,
        2835,
        2835,
        0,
        0,
    )
    if masks:
        header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    start = struct.pack("<2sIHHI", b"BM", 14 + size + rows.size, 0, 0, 14 + size)
    return start + header + rows.tobytes()


def look_at_jpeg2000(path: Path) -> Sight:
    """Read a JPEG 2000 by imagecodecs, with its boxes but the codestream."""
    data = path.read_bytes()
    boxes, place = [], 0
    while not data.startswith(b"\xff\x4f") and place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + length if length else len(data)
        if kind != b"jp2c":
            boxes.append(data[place:end])
        place = end
    array = imagecodecs.jpeg2k_decode(data)
    return Sight(array, {"boxes": boxes, "shape": array.shape, "dtype": array.dtype})


def _jpeg2000s() -> Iterator[Specimen]:
    def made(name: str, array: NDArray[Any], *, more: bytes = b"", **options: Any) -> Specimen:
        own = {key: options.pop(key) for key in ("fixed", "peak", "tolerance") if key in options}
        lossless: dict[str, Any] = {
            "level": 0,
            "reversible": True,
            "codecformat": "jp2",
            "resolutions": 3,
        }
        data = bytes(imagecodecs.jpeg2k_encode(array, **(lossless | options))) + more
        return Specimen(name, lambda path: path.write_bytes(data), look_at_jpeg2000, **own)

    yield made("grey-8.jp2", noise(HEIGHT, WIDTH))
    yield made("grey-12.jp2", noise(HEIGHT, WIDTH, dtype="u2") >> 4, bitspersample=12, peak=4095)
    yield made("rgb-8.jp2", noise(HEIGHT, WIDTH, 3))
    yield made("rgb-16.jp2", noise(HEIGHT, WIDTH, 3, dtype="u2"))
    yield made("rgba-8.jp2", noise(HEIGHT, WIDTH, 4), fixed=1)
    yield made("stream.j2k", noise(HEIGHT, WIDTH, dtype="u2"), codecformat="j2k")
    yield made("lossy.jp2", slope(), level=45, reversible=False, tolerance=8)
    text = b"<note>of a person</note>"
    box = struct.pack(">I4s", len(text) + 8, b"xml ") + text
    yield made("note.jp2", noise(HEIGHT, WIDTH), more=box)


def specimens() -> Iterator[Specimen]:
    """All further pictures."""
    for family in (_webps, _gifs, _avifs, _bmps, _jpeg2000s):
        yield from family()
