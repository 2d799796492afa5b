"""TIFF: depths, layouts, compressions, stacks and metadata; read whole by tifffile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.support.zoo.metadata import XMP, camera_exif, colour_profile
from tests.support.zoo.specimen import HEIGHT, WIDTH, Sight, Specimen, noise, slope

_PLACES = {
    273,
    279,
    324,
    325,
    34665,
    34853,
}  # where things lie in the file, or a directory of its own
_OME = {"axes": "TCZYX", "PhysicalSizeX": 0.1, "Channel": {"Name": ["DAPI", "GFP"]}}


def look(path: Path) -> Sight:
    """Read a TIFF by tifffile, with every tag of every page."""
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        tags = []
        for page in tiff.pages:
            whole = page.aspage()
            about: dict[Any, Any] = {
                tag.code: tag.value for tag in whole.tags if tag.code not in _PLACES
            }
            for name in ("ExifTag", "GPSTag"):
                if name in whole.tags:
                    about[name] = whole.tags[name].value
            tags.append(about)
        facts = {
            "axes": series.axes,
            "shape": series.shape,
            "dtype": series.dtype,
            "order": tiff.byteorder,
            "big": tiff.is_bigtiff,
            "kind": series.kind,
            "tags": tags,
        }
        return Sight(series.asarray(), facts)


def look_at_pixels(path: Path) -> Sight:
    """Read the first image of a TIFF, of which only the axes and the kind of numbers stay."""
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        facts = {"axes": series.axes, "shape": series.shape, "dtype": series.dtype}
        return Sight(series.asarray(), facts)


def look_through_palette(path: Path) -> Sight:
    """The colours of a TIFF with a palette of 8 bits, or of the TIFF that was made of it."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        pixels = page.asarray()
        if page.colormap is not None:
            pixels = (page.colormap[:, pixels] >> 8).astype(np.uint8).transpose(1, 2, 0)
        return Sight(pixels, {"resolution": page.resolution})


def _made(
    name: str, array: NDArray[Any], *, seen: Callable[[Path], Sight] = look, **options: Any
) -> Specimen:
    own = {key: options.pop(key) for key in ("fixed", "peak", "tolerance") if key in options}
    writer = {
        key: options.pop(key) for key in ("bigtiff", "byteorder", "imagej", "ome") if key in options
    }

    def write(path: Path) -> None:
        with tifffile.TiffWriter(path, **writer) as tiff:
            tiff.write(array, **options)

    return Specimen(f"{name}.tif", write, seen, **own)


def _grey(name: str, dtype: Any, **options: Any) -> Specimen:
    return _made(name, noise(HEIGHT, WIDTH, dtype=dtype), **options)


def _colour(name: str, dtype: Any, samples: int = 3, **options: Any) -> Specimen:
    options = {"photometric": "rgb", "planarconfig": "contig"} | options
    shape = (
        (samples, HEIGHT, WIDTH)
        if options["planarconfig"] == "separate"
        else (HEIGHT, WIDTH, samples)
    )
    return _made(name, noise(*shape, dtype=dtype), **options)


def _depths() -> Iterator[Specimen]:
    for dtype in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"):
        yield _grey(f"grey-{dtype}", dtype)
    yield _grey("one-bit", "?")
    yield _made("four-bits", noise(HEIGHT, WIDTH) >> 4, bitspersample=4, peak=15)
    yield _made("twelve-bits", noise(HEIGHT, WIDTH, dtype="u2") >> 4, bitspersample=12, peak=4095)
    yield _grey("white-is-zero-8", "u1", photometric="miniswhite")
    yield _grey("white-is-zero-16", "u2", photometric="miniswhite", compression="deflate")
    yield _grey("big-endian-u2", "u2", byteorder=">")
    yield _grey("big-endian-f4", "f4", byteorder=">", compression="deflate")
    yield _grey("bigtiff", "u2", bigtiff=True)
    yield _grey("bigtiff-big-endian", "u2", bigtiff=True, byteorder=">", tile=(16, 16))


def _layouts() -> Iterator[Specimen]:
    yield _grey("strips", "u2", rowsperstrip=5)
    yield _grey("tiles", "u2", tile=(16, 32))
    yield _grey("one-tile", "u2", tile=(48, 64))
    yield _colour("rgb-8", "u1")
    yield _colour("rgb-16", "u2")
    yield _colour("rgb-f4", "f4", compression="deflate", predictor=3)
    yield _colour("rgb-16-tiles", "u2", tile=(16, 16), compression="deflate", predictor=True)
    yield _colour("rgb-16-apart", "u2", planarconfig="separate")
    yield _colour("rgb-16-apart-tiles", "u2", planarconfig="separate", tile=(16, 16))
    yield _colour(
        "rgb-8-apart-strips", "u1", planarconfig="separate", compression="lzw", rowsperstrip=8
    )
    yield _colour("rgba-8", "u1", 4, extrasamples=["unassalpha"], fixed=1)
    yield _colour("rgba-16-premultiplied", "u2", 4, extrasamples=["assocalpha"], fixed=1)
    yield _colour("rgb-and-two-more", "u2", 5, extrasamples=[0, 0], fixed=2)
    yield _colour("two-channels", "u2", 2, photometric="minisblack")
    yield _colour("five-channels", "f4", 5, photometric="minisblack")
    yield _colour(
        "grey-alpha", "u1", 2, photometric="minisblack", extrasamples=["unassalpha"], fixed=1
    )
    yield _colour("cmyk", "u1", 4, photometric="separated")
    yield _colour("lab", "u1", photometric="cielab")
    palette = noise(3, 256, seed=2).astype(np.uint16) * 257
    yield _made(
        "palette",
        noise(HEIGHT, WIDTH),
        seen=look_through_palette,
        photometric="palette",
        colormap=palette,
        resolution=(300, 300),
    )


def _compressions() -> Iterator[Specimen]:
    for name in ("lzw", "deflate", "packbits", "zstd", "lzma"):
        yield _colour(name, "u2", compression=name, rowsperstrip=8)
    yield _grey("lzw-predictor", "u2", compression="lzw", predictor=2)
    yield _grey("zstd-predictor", "f4", compression="zstd", predictor=3, tile=(16, 16))
    yield _grey("lerc", "u2", compression="lerc")
    yield _grey("jpeg2000", "u2", compression="jpeg2000", tile=(32, 32))
    yield _made(
        "webp", slope(), compression="webp", photometric="rgb", compressionargs={"lossless": True}
    )
    yield _made("jpeg-grey", slope(1), compression="jpeg", tolerance=6)
    yield _made(
        "jpeg-tiles", slope(), compression="jpeg", photometric="rgb", tile=(32, 32), tolerance=12
    )


def _of_pillow(name: str, image: Image.Image, **options: Any) -> Specimen:
    """A TIFF by libtiff, whose compression becomes Deflate."""
    return Specimen(f"{name}.tif", lambda path: image.save(path, **options), look_at_pixels)


def _replaced() -> Iterator[Specimen]:
    bits = Image.fromarray(noise(HEIGHT, WIDTH, dtype="?"))
    yield _of_pillow("fax", bits, compression="group4")
    alpha = Image.fromarray(noise(HEIGHT, WIDTH, 4))
    yield dataclasses.replace(_of_pillow("jpeg-alpha", alpha, compression="jpeg"), fixed=1)


def _stacks() -> Iterator[Specimen]:
    small = noise(3, 2, 4, HEIGHT, WIDTH, dtype="u2")
    yield _made("pages", noise(5, HEIGHT, WIDTH), photometric="minisblack", metadata=None)
    yield _made("rgb-pages", noise(3, HEIGHT, WIDTH, 3), photometric="rgb", metadata=None)
    yield _made(
        "own-axes",
        small[0, 0],
        photometric="minisblack",
        metadata={"axes": "QYX"},
        compression="deflate",
    )
    yield _made("one-directory", small, photometric="minisblack", truncate=True)
    yield _made("imagej", small.transpose(0, 2, 1, 3, 4), imagej=True, metadata={"axes": "TZCYX"})
    yield _made("imagej-rgb", noise(4, HEIGHT, WIDTH, 3), imagej=True, metadata={"axes": "ZYXS"})
    yield _made(
        "imagej-info",
        small[0, 0],
        imagej=True,
        resolution=(10.0, 10.0),
        metadata={
            "axes": "ZYX",
            "spacing": 0.3,
            "unit": "um",
            "Info": "a note",
            "Labels": list("abcd"),
        },
    )
    yield _made("ome.ome", small, ome=True, metadata=_OME, photometric="minisblack")
    yield _made(
        "ome-tiles.ome",
        small,
        ome=True,
        metadata=_OME,
        photometric="minisblack",
        tile=(16, 16),
        compression="deflate",
        predictor=True,
    )
    yield _made(
        "ome-f4.ome", noise(4, HEIGHT, WIDTH, dtype="f4"), ome=True, metadata={"axes": "ZYX"}
    )
    yield _made(
        "ome-rgb.ome",
        noise(HEIGHT, WIDTH, 3),
        ome=True,
        metadata={"axes": "YXS"},
        photometric="rgb",
    )
    yield Specimen("different-pages.tif", _different_pages, look)
    yield Specimen("thumbnail.tif", _with_thumbnail, look_at_pixels)
    yield Specimen("pyramid.ome.tif", _pyramid, look_at_pixels)


def _different_pages(path: Path) -> None:
    with tifffile.TiffWriter(path) as tiff:
        for number in range(3):
            tiff.write(
                noise(HEIGHT, WIDTH, seed=number),
                metadata=None,
                description=f"page {number}",
                datetime="2024:05:06 07:08:09",
            )


def _with_thumbnail(path: Path) -> None:
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(noise(HEIGHT, WIDTH, 3), photometric="rgb", metadata=None)
        tiff.write(noise(8, 8, 3), photometric="rgb", metadata=None, subfiletype=1)


def _pyramid(path: Path) -> None:
    picture = noise(2, HEIGHT, WIDTH, dtype="u2")
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(picture, subifds=1, metadata={"axes": "ZYX"}, photometric="minisblack")
        tiff.write(picture[:, ::2, ::2], subfiletype=1)


def _metadata() -> Iterator[Specimen]:
    yield _colour("icc", "u2", iccprofile=colour_profile())
    yield _grey(
        "resolution", "u2", resolution=((118110, 1000), (118110, 1000)), resolutionunit="centimeter"
    )
    yield _grey(
        "tags",
        "u2",
        description="a story\nof two lines",
        software="a program",
        datetime="2024:05:06 07:08:09",
        metadata=None,
        extratags=[(315, 2, 0, "A. Person", True), (33432, 2, 0, "me", True), (274, 3, 1, 6, True)],
    )
    yield _grey("xmp", "u1", extratags=[(700, 1, len(XMP), XMP, True)], metadata=None)
    yield _grey(
        "of-a-program",
        "f4",
        metadata=None,
        extratags=[
            (33550, 12, 3, (0.5, 0.5, 0.0), True),
            (42113, 2, 0, "-9999", True),
            (65000, 7, 4, b"\1\2\3\4", True),
        ],
    )
    yield Specimen("exif.tif", _with_exif, look)


def _with_exif(path: Path) -> None:
    exif = Image.Exif()
    exif.load(camera_exif(orientation=8))
    Image.fromarray(noise(HEIGHT, WIDTH, 3)).save(path, exif=exif, dpi=(300, 300))


def specimens() -> Iterator[Specimen]:
    """All TIFFs."""
    for family in (_depths, _layouts, _compressions, _replaced, _stacks, _metadata):
        yield from family()
