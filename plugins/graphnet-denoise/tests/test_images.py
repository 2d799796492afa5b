"""Reading of images as a whole, in every mode and with every damage, and the images of a folder."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from graphnet_denoise.images import image_size, list_images, open_image, read_pixels, read_rgb
from numpy.typing import NDArray
from PIL import Image, ImageOps

from graphnet.errors import DataError


def random_pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def alpha(path: Path) -> NDArray[Any]:
    with open_image(path) as source:
        assert source.alpha
        alpha: NDArray[Any] = source.read_extra()[0]
        return alpha


def raw_png(path: Path, *, bits: int, colour_type: int, rows: bytes, size: tuple[int, int]) -> None:
    """A PNG from its own bytes (filter byte and samples of each row), (width, height)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", *size, bits, colour_type, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks))


def test_colour_png_is_read_exactly(tmp_path: Path) -> None:
    pixels = random_pixels(5, 7, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), pixels.transpose(2, 0, 1))
    assert image_size(tmp_path / "a.png") == (5, 7)


def test_grey_stays_one_channel_and_becomes_rgb_on_request(tmp_path: Path) -> None:
    pixels = random_pixels(4, 6)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), pixels[None])
    rgb = read_rgb(tmp_path / "a.png")
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, np.stack([pixels] * 3, axis=-1))


@pytest.mark.parametrize("samples", [2, 4])
def test_alpha_is_dropped_and_found_beside_the_pixels(tmp_path: Path, samples: int) -> None:
    pixels = random_pixels(4, 6, samples)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    colours = pixels[..., :-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), colours)
    np.testing.assert_array_equal(alpha(tmp_path / "a.png"), pixels[..., -1])
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png")[..., 0], pixels[..., 0])


def test_a_transparent_palette_entry_becomes_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", transparency=1)
    assert read_pixels(tmp_path / "a.png")[:, 0, 0].tolist() == [10, 20, 30]
    assert alpha(tmp_path / "a.png").tolist() == [[255, 0]]


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "YCbCr"])
def test_other_modes_are_converted(tmp_path: Path, mode: str) -> None:
    suffix = ".tif" if mode in ("CMYK", "YCbCr") else ".png"
    image = Image.fromarray(random_pixels(8, 8, 3)).convert(mode)
    image.save(tmp_path / f"a{suffix}")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_allclose(read_rgb(tmp_path / f"a{suffix}"), expected, atol=3)


def test_sixteen_bit_grey_keeps_its_bits(tmp_path: Path) -> None:
    pixels = np.array([[0, 255, 256], [1000, 65534, 65535]], np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", pixels, byteorder=">")
    for name in ("a.png", "b.tif"):
        found = read_pixels(tmp_path / name)
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, pixels[None])
        assert read_rgb(tmp_path / name)[..., 1].tolist() == [[0, 0, 1], [3, 255, 255]]


def test_sixteen_bit_colour_keeps_its_bits(tmp_path: Path) -> None:
    samples = bytes([1, 200, 2, 0, 3, 255])  # the upper and lower byte of R, G and B
    raw_png(tmp_path / "a.png", bits=16, colour_type=2, rows=b"\0" + samples, size=(1, 1))
    tifffile.imwrite(tmp_path / "b.tif", np.array([[[456, 512, 1023]]], ">u2"), photometric="rgb")
    for name in ("a.png", "b.tif"):
        assert read_pixels(tmp_path / name)[:, 0, 0].tolist() == [456, 512, 1023]
        assert read_rgb(tmp_path / name).ravel().tolist() == [1, 2, 3]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    pixels = random_pixels(16, 24, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), expected)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.float32))
    with pytest.raises(
        DataError, match=r"a\.tif: expected one image of .* found numbers of the type float32"
    ):
        read_pixels(tmp_path / "a.tif")


def test_several_pages_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", random_pixels(5, 4, 4), photometric="minisblack")
    with pytest.raises(DataError, match=r"a\.tif: expected one image .*, found 5 frames or pages"):
        read_pixels(tmp_path / "a.tif")


Write = Callable[[Path], object]


def tiff(array: NDArray[Any], **options: Any) -> Write:
    return lambda path: tifffile.imwrite(path, array, **options)


GREY, DEEP = random_pixels(12, 10), np.arange(500, 620, dtype=np.uint16).reshape(12, 10) * 97
COLOUR = random_pixels(12, 10, 3)
DEEP_COLOUR = np.stack([DEEP, DEEP[::-1], 65535 - DEEP], axis=-1)
APART = {"photometric": "rgb", "planarconfig": "separate"}
TABLE = (
    (np.arange(3 * 256, dtype=np.uint16).reshape(3, 256) * 81) // 257 * 257
)  # whole 8-bit levels


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        pytest.param(tiff(GREY), GREY[None], id="grey"),
        pytest.param(tiff(DEEP), DEEP[None], id="16-bit grey"),
        pytest.param(tiff(DEEP, byteorder=">"), DEEP[None], id="the other byte order"),
        pytest.param(tiff(255 - GREY, photometric="miniswhite"), GREY[None], id="0 is white"),
        pytest.param(tiff(65535 - DEEP, photometric="miniswhite"), DEEP[None], id="0 is white, 16"),
        pytest.param(
            tiff(65535 - DEEP, photometric="miniswhite", compression="deflate"),
            DEEP[None],
            id="0 is white, 16, compressed",
        ),
        pytest.param(tiff(DEEP, compression="deflate", predictor=True), DEEP[None], id="predictor"),
        pytest.param(tiff(DEEP, tile=(16, 16)), DEEP[None], id="tiles"),
        pytest.param(tiff(DEEP[None]), DEEP[None], id="a stack of one"),
        pytest.param(tiff(COLOUR, photometric="rgb"), COLOUR.transpose(2, 0, 1), id="colour"),
        pytest.param(
            tiff(COLOUR.transpose(2, 0, 1), **APART), COLOUR.transpose(2, 0, 1), id="apart"
        ),
        pytest.param(
            tiff(DEEP_COLOUR, photometric="rgb"),
            DEEP_COLOUR.transpose(2, 0, 1),
            id="16-bit colour",
        ),
        pytest.param(
            tiff(DEEP_COLOUR.transpose(2, 0, 1), compression="deflate", **APART),
            DEEP_COLOUR.transpose(2, 0, 1),
            id="16-bit colour apart, compressed",
        ),
        pytest.param(
            tiff(DEEP_COLOUR.transpose(2, 0, 1), **APART),
            DEEP_COLOUR.transpose(2, 0, 1),
            id="16-bit colour apart",
        ),
        pytest.param(
            tiff(DEEP_COLOUR.transpose(2, 0, 1), tile=(16, 16), **APART),
            DEEP_COLOUR.transpose(2, 0, 1),
            id="16-bit colour apart, tiles",
        ),
        pytest.param(
            tiff(DEEP >> 4, bitspersample=12),
            np.floor((DEEP >> 4) * (65535 / 4095) + 0.5)[None],
            id="12 bits",
        ),
        pytest.param(
            tiff(GREY, photometric="palette", colormap=TABLE), TABLE[:, GREY] >> 8, id="palette"
        ),
        pytest.param(
            tiff(GREY > 99, photometric="minisblack"),
            np.where(GREY > 99, 255, 0)[None],
            id="one bit",
        ),
    ],
)
def test_each_kind_of_tiff_is_read_as_it_was_written(
    tmp_path: Path, write: Write, expected: NDArray[Any]
) -> None:
    write(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (tiff(np.stack([DEEP] * 3), photometric="minisblack"), "found 3 frames or pages"),
        (
            tiff(np.stack([GREY] * 5), ome=True, metadata={"axes": "CYX"}),
            "5 channels that are no colours",
        ),
        (
            tiff(np.stack([GREY] * 5), imagej=True, metadata={"axes": "ZYX"}),
            "found 5 frames or pages",
        ),
        (
            tiff(np.stack([GREY] * 4), photometric="minisblack", volumetric=True),
            "found a volume of 4 slices",
        ),
        (tiff(GREY.astype(np.int8)), "found numbers of the type int8"),
        (tiff(DEEP.astype(np.int16)), "found numbers of the type int16"),
        (tiff(GREY.astype(np.int32)), "found numbers of the type int32"),
        (tiff(GREY.astype(np.float32)), "found numbers of the type float32"),
        (tiff(GREY.astype(np.float64)), "found numbers of the type float64"),
        (
            tiff(random_pixels(12, 10, 5), photometric="rgb", extrasamples=[0, 0]),
            r"found further channels beside the colours \(2\)",
        ),
        (
            tiff(random_pixels(12, 10, 2), photometric="minisblack", planarconfig="contig"),
            "found 2 channels that are no colours",
        ),
    ],
)
def test_kinds_of_tiff_that_would_be_read_wrongly_are_refused(
    tmp_path: Path, write: Write, message: str
) -> None:
    write(tmp_path / "a.tif")
    with pytest.raises(DataError, match=rf"a\.tif: .*{message}"):
        read_pixels(tmp_path / "a.tif")


def test_transparent_level_of_sixteen_bit_grey_becomes_alpha(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "a.png", transparency=int(DEEP[0, 0]))
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), DEEP[None])
    np.testing.assert_array_equal(alpha(tmp_path / "a.png"), np.where(DEEP[0, 0] == DEEP, 0, 65535))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.95])
def test_truncated_image_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(random_pixels(64, 64, 3)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(DataError, match=r"a\.\w+: cannot be read as an? \w+ "):
        read_pixels(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("not an image")
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read as an image"):
        read_pixels(path)
    with pytest.raises(DataError, match=r"b\.png: there is no such file"):
        read_pixels(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"cannot be read as an image \(.*found a folder"):
        read_pixels(tmp_path)


def test_images_are_listed_by_name_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "._a.png", "c.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "d.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG"]


def test_names_that_end_like_images_are_listed_so_that_what_cannot_be_read_is_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "absent")
    (tmp_path / "stack.zarr").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["gone.png", "stack.zarr"]
    with pytest.raises(DataError, match=r"gone\.png: there is no such file"):
        read_pixels(list_images(tmp_path)[0])


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found none directly in it"):
        list_images(tmp_path)
    (tmp_path / "inner").mkdir()
    with pytest.raises(DataError, match=r"It holds folders \('inner'\)"):
        list_images(tmp_path)
    with pytest.raises(DataError, match=r"absent: cannot be listed \(No such file or directory\)"):
        list_images(tmp_path / "absent")
