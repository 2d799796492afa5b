"""Image files that are opened lazily, read and written by parts, and turned into other formats."""

from __future__ import annotations

import errno
import itertools
import os
import re
import resource
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from astropy.io import fits
from graphnet_denoise.images import (
    Format,
    ImageFile,
    Names,
    bands,
    create_like,
    open_image,
    result_format,
)
from graphnet_denoise.images.disk import reserve
from graphnet_denoise.images.families.depths import shape_for
from graphnet_denoise.images.families.pillow import WebpFile
from graphnet_denoise.images.faults import reading, writing
from graphnet_denoise.images.file import DecodedFile
from graphnet_denoise.images.levels import Levels
from numpy.typing import NDArray
from PIL import Image

from graphnet.errors import DataError, GraphnetWarning, InputError, WriteError
from graphnet.sdk import Register, hookimpl, load_registry
from tests.support.zoo.metadata import camera_exif, colour_profile
from tests.support.zoo.specimen import noise, slope

WHOLE = slice(None)


def copied(path: Path, target: Path, *, history: str = "") -> None:
    with open_image(path) as source, create_like(target, source, history=history) as sink:
        for plane in range(source.planes):
            sink.write(plane, WHOLE, WHOLE, source.read(plane))


def test_header_tells_what_a_file_is_before_pixels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    stack = noise(5, 2, 7, 16, 24, dtype="u2")
    tifffile.imwrite(path, stack, ome=True, metadata={"axes": "TCZYX"}, photometric="minisblack")
    with open_image(path) as source:
        assert (source.format, source.axes, source.shape) == ("tiff", "TCZYX", (5, 2, 7, 16, 24))
        assert (source.bits, source.planes, source.channels) == (16, 35, 2)
        assert source.dtype == np.uint16
        assert source.colour == "independent"
        np.testing.assert_array_equal(source.read(8), stack[1, :, 1])
        region = source.read(8, slice(3, 9), slice(20, None))
        np.testing.assert_array_equal(region, stack[1, :, 1, 3:9, 20:])


@pytest.mark.parametrize(
    "options",
    [{}, {"tile": (16, 16)}, {"rowsperstrip": 3}, {"tile": (32, 16), "compression": "zstd"}],
    ids=["plain", "tiles", "strips", "packed tiles"],
)
@pytest.mark.parametrize("apart", [False, True])
def test_any_region_of_a_tiff_is_read(tmp_path: Path, options: dict[str, Any], apart: bool) -> None:
    picture = noise(50, 70, 3, dtype="u2")
    stored = picture.transpose(2, 0, 1) if apart else picture
    planar = "separate" if apart else "contig"
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, **options)
    rng = np.random.default_rng(0)
    with open_image(tmp_path / "a.tif") as source:
        for _ in range(20):
            top, end = sorted(rng.integers(0, 51, 2))
            left, right = sorted(rng.integers(0, 71, 2))
            region = source.read(0, slice(top, end), slice(left, right))
            np.testing.assert_array_equal(region, picture[top:end, left:right].transpose(2, 0, 1))


def test_regions_are_written_in_any_order(tmp_path: Path) -> None:
    picture = noise(40, 60, dtype="u2")
    tifffile.imwrite(tmp_path / "a.tif", picture, tile=(16, 16), compression="deflate")
    parts = [(slice(y, y + 9), slice(x, x + 13)) for y in range(0, 40, 9) for x in range(0, 60, 13)]
    np.random.default_rng(0).shuffle(parts)
    with (
        open_image(tmp_path / "a.tif") as source,
        create_like(tmp_path / "b.tif", source) as sink,
    ):
        for rows, columns in parts:
            sink.write(0, rows, columns, source.read(0, rows, columns))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), picture)


def test_floats_are_rounded_and_clipped_to_the_levels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((1, 6), np.int16))
    values = np.array([[[-1e9, -2.5, -0.5, 0.49, 7.5, 1e9]]])
    with open_image(tmp_path / "a.tif") as source, create_like(tmp_path / "b.tif", source) as sink:
        sink.write(0, WHOLE, WHOLE, values)
    assert tifffile.imread(tmp_path / "b.tif").ravel().tolist() == [-32768, -2, 0, 0, 8, 32767]


def test_result_may_replace_its_source(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(9, 9))
    before = tifffile.imread(path)
    with open_image(path) as source, create_like(path, source) as sink:
        for rows in bands(9, 4):
            sink.write(0, rows, WHOLE, 255 - source.read(0, rows))
    np.testing.assert_array_equal(tifffile.imread(path), 255 - before)
    assert list(tmp_path.iterdir()) == [path]


def first_rows_copied(path: Path, target: Path, error: Exception | None = None) -> None:
    with open_image(path) as source, create_like(target, source) as sink:
        sink.write(0, slice(0, 3), WHOLE, source.read(0, slice(0, 3)) * 0)
        if error is not None:
            raise error


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.zarr"])
def test_error_while_writing_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    source_path = tmp_path / "source.tif"
    tifffile.imwrite(source_path, noise(9, 9))
    copied(source_path, tmp_path / name)
    before = sorted(entry.name for entry in tmp_path.rglob("*"))
    with pytest.raises(InputError, match="54 pixels"):
        first_rows_copied(source_path, tmp_path / name)
    with pytest.raises(RuntimeError, match="stopped"):
        first_rows_copied(source_path, tmp_path / name, RuntimeError("stopped"))
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == before
    with open_image(tmp_path / name) as again, open_image(source_path) as source:
        np.testing.assert_array_equal(again.read(), source.read())


def test_folder_that_does_not_exist_is_a_write_error(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(9, 9))
    for name in ("b.tif", "b.zarr"):
        with pytest.raises(WriteError, match=rf"none/{name}: cannot be written"):
            copied(tmp_path / "a.tif", tmp_path / "none" / name)


def test_what_is_in_the_way_of_a_file_is_a_write_error_and_stays(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(9, 9))
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.png").mkdir()
    for name in ("file/b.png", "folder.png"):
        with pytest.raises(WriteError, match=rf"{name}: cannot be written"):
            copied(tmp_path / "a.tif", tmp_path / name)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.tif", "file", "folder.png"]


def test_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(9, 9))
    copied(tmp_path / "a.tif", tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_mode == (tmp_path / "a.tif").stat().st_mode


def test_picture_over_ninety_megapixels_is_read(tmp_path: Path) -> None:
    picture = np.zeros((9_500, 9_500), np.uint8)
    picture[9_000:, 9_400:] = 200
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(picture, level=1))
    with open_image(tmp_path / "a.png") as source:
        part = source.read(0, slice(8_998, 9_002), slice(9_399, 9_401))
    assert part[0].tolist() == [[0, 0], [0, 0], [0, 200], [0, 200]]


def test_small_file_that_claims_many_pixels_is_refused_before_they_are_allocated(
    tmp_path: Path,
) -> None:
    header = struct.pack(">IIBBBBB", 200_000, 200_000, 16, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")
    data = b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with (
        open_image(tmp_path / "a.png") as source,
        pytest.raises(DataError, match=r"a\.png: .*cannot hold 200000 x 200000|more memory"),
    ):
        source.read()


@pytest.mark.skipif(
    sys.platform != "linux", reason="the sparse file and the count of memory are Linux's"
)
@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_file_larger_than_its_budget_is_copied_by_parts(tmp_path: Path, kind: str) -> None:
    """200 MB of pixels, of which the file holds few; the process may grow by a fifth of that."""
    side = 10_000
    path, target = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    if kind == "tif":
        array: NDArray[Any] = tifffile.memmap(path, shape=(side, side), dtype=np.uint16)
    else:
        array = np.lib.format.open_memmap(path, "w+", np.uint16, (side, side))
    array[side - 2, side - 3] = 777
    del array
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_image(path) as source, create_like(target, source) as sink:
        assert source.by_parts
        for rows in bands(side, side - 100):
            for columns in bands(side, 1000):
                if rows.start == 0 or columns.stop < side:  # zeros are there already
                    sink._missing -= (rows.stop - rows.start) * (columns.stop - columns.start)
                else:
                    sink.write(0, rows, columns, source.read(0, rows, columns))
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 40_000
    with open_image(target) as again:
        assert again.read(0, slice(side - 2, side - 1), slice(side - 3, side - 2)).item() == 777


_READS_A_REGION = """
import re, sys
from pathlib import Path
from graphnet_denoise.images import open_image

def peak_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

with open_image(Path(sys.argv[1])) as source:
    source.read(0, slice(0, 1), slice(0, 1))
    before = peak_kib()
    region = source.read(0, slice(None), slice(4000, 4500))
print(peak_kib() - before - region.nbytes // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux maps more than what is read")
@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_narrow_region_of_a_wide_image_takes_its_own_memory(tmp_path: Path, kind: str) -> None:
    """80 MB of rows, of which 2 MB are read."""
    path, shape = tmp_path / f"a.{kind}", (2000, 20_000)
    if kind == "tif":
        tifffile.imwrite(path, np.ones(shape, np.uint16))
    else:
        np.save(path, np.ones(shape, np.uint16))
    done = subprocess.run(
        [sys.executable, "-c", _READS_A_REGION, path], capture_output=True, check=True
    )
    assert int(done.stdout) < 8_000


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [
        ("L", (37, 23), np.uint8),
        ("I;16", (37, 23), np.uint16),
        ("LA", (37, 23, 2), np.uint8),
        ("RGB", (37, 1, 3), np.uint8),
        ("RGBA", (1, 23, 4), np.uint8),
        ("1", (37, 23), np.bool_),
    ],
)
def test_png_of_many_bands_is_one_picture_for_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, shape: Any, dtype: Any
) -> None:
    """Bands of a few rows: the filter of the first one looks at the row above, in another band."""
    monkeypatch.setattr("graphnet_denoise.images.families.png._BAND_BYTES", 100)
    monkeypatch.setattr("graphnet_denoise.images.scratch.IN_MEMORY_BYTES", 100)
    pixels = (40 * (np.random.default_rng(0).random(shape) < 0.1)).astype(dtype)
    if mode != "1":
        for left, right in itertools.pairwise(range(shape[1])):  # the filter "average" fits best
            pixels[:, right] += pixels[:, left] // 2
    Image.fromarray(pixels).save(tmp_path / "a.png")
    copied(tmp_path / "a.png", tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as found:
        assert found.mode == mode
        np.testing.assert_array_equal(np.asarray(found), pixels)


def test_png_larger_than_its_budget_is_written_by_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32 MB of pixels that lie in a file until they are encoded; a band of them is 1 MB."""
    monkeypatch.setattr("graphnet_denoise.images.scratch.IN_MEMORY_BYTES", 1000)
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint16, (4000, 4000))
    array[3999, 3998] = 777
    del array
    tracemalloc.start()
    with (
        open_image(tmp_path / "a.npy") as source,
        create_like(tmp_path / "b.png", source) as sink,
    ):
        for rows in bands(4000, 100):
            sink.write(0, rows, slice(None), source.read(0, rows))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16_000_000
    with Image.open(tmp_path / "b.png") as found:
        assert found.getpixel((3998, 3999)) == 777


@pytest.mark.skipif(sys.platform != "linux", reason="other systems get zeros written")
@pytest.mark.parametrize(
    "name",
    ["a.tif", "a.png", "a-packed.tif", "a-stack.tif", "a.npy", "a.fits", "a.mrc", "a.pgm", "a.bmp"],
)
def test_full_disk_is_a_write_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A disk that takes the first 8,000 bytes of a file, and has no room for more."""
    allocate = os.posix_fallocate
    path, folder = tmp_path / name, tmp_path / "full"
    write_plain(path, noise(100, 90))
    folder.mkdir()

    def full(file: int, start: int, size: int) -> None:
        if start + size > 8_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(file, start, size)

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr("graphnet_denoise.images.scratch.IN_MEMORY_BYTES", 1000)
    with pytest.raises(WriteError, match=f"{name}: cannot be written .No space left on device"):
        copied(path, folder / name)
    assert list(folder.iterdir()) == []


def write_plain(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a file of the kind that its name says, whose pixels are not compressed."""
    import mrcfile

    if path.suffix == ".tif":
        stack = np.stack([picture] * 3) if "stack" in path.name else picture
        compression = "deflate" if "packed" in path.name else None
        metadata = {"axes": "ZYX"} if "stack" in path.name else None
        tifffile.imwrite(
            path, stack, photometric="minisblack", compression=compression, metadata=metadata
        )
    elif path.suffix == ".npy":
        np.save(path, picture)
    elif path.suffix == ".fits":
        fits.PrimaryHDU(picture).writeto(path)
    elif path.suffix == ".mrc":
        mrcfile.write(path, picture.astype(np.int8))
    else:
        Image.fromarray(picture).save(path)


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_every_byte_of_a_reserved_file_has_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    with (tmp_path / "a").open("wb+") as file:
        file.write(b"begun")
        file.truncate(3_000_000)
        reserve(file, 5_000_000)
    status = (tmp_path / "a").stat()
    assert (status.st_size, status.st_blocks * 512 >= 5_000_000) == (5_000_000, True)
    assert (tmp_path / "a").read_bytes() == b"begun" + bytes(4_999_995)


def test_what_lies_beside_a_flat_image_is_not_read_into_memory(tmp_path: Path) -> None:
    """8 MB of a table on both sides of the image."""
    table = fits.BinTableHDU.from_columns([fits.Column("x", "E", array=np.arange(2e6, dtype="f4"))])
    units = [fits.PrimaryHDU(), table, fits.ImageHDU(noise(9, 9)), table]
    fits.HDUList(units).writeto(tmp_path / "a.fits")
    del table, units
    tracemalloc.start()
    copied(tmp_path / "a.fits", tmp_path / "b.fits")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000
    with fits.open(tmp_path / "a.fits") as before, fits.open(tmp_path / "b.fits") as after:
        np.testing.assert_array_equal(before[2].data, after[2].data)
        for unit in (1, 3):
            np.testing.assert_array_equal(before[unit].data["x"], after[unit].data["x"])


def test_strips_too_large_to_be_decoded_for_each_region_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = noise(2, 40, 60, dtype="u2")
    options: dict[str, Any] = {"compression": "deflate", "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "one.tif", stack, rowsperstrip=40, **options)
    tifffile.imwrite(tmp_path / "many.tif", stack, rowsperstrip=4, **options)
    monkeypatch.setattr(
        "graphnet_denoise.images.families.tiff.reading.LARGE_SEGMENT_BYTES", 4 * 60 * 2
    )
    decoded: list[Path] = []
    read = tifffile.FileHandle.read_segments

    def counted(handle: tifffile.FileHandle, *given: Any, **options: Any) -> Any:
        decoded.append(Path(handle.path))
        return read(handle, *given, **options)

    monkeypatch.setattr(tifffile.FileHandle, "read_segments", counted)
    for name, by_parts in (("one.tif", False), ("many.tif", True)):
        with open_image(tmp_path / name) as source:
            assert source.by_parts is by_parts
            for plane in range(2):
                for rows in bands(40, 10):
                    for columns in bands(60, 25):
                        region = source.read(plane, rows, columns)
                        np.testing.assert_array_equal(region[0], stack[plane, rows, columns])
                        region[:] = 0  # is the caller's own
    assert decoded.count(tmp_path / "one.tif") == 2  # of two pages


def test_uncompressed_strip_of_any_size_is_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphnet_denoise.images.families.tiff.reading.LARGE_SEGMENT_BYTES", 100)
    tifffile.imwrite(tmp_path / "a.tif", noise(40, 60), rowsperstrip=40)
    with open_image(tmp_path / "a.tif") as source:
        assert source.by_parts


@pytest.mark.parametrize("per_metre", [12_345, 40_000_000, 2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize("name", ["b.tif", "b.jpg", "b.bmp"])
def test_any_resolution_is_kept_or_left_out(tmp_path: Path, name: str, per_metre: int) -> None:
    Image.fromarray(noise(9, 9)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    numbers = struct.pack(">IIB", per_metre, per_metre, 1)
    (tmp_path / "a.png").write_bytes(data[:33] + png_chunk(b"pHYs", numbers) + data[33:])
    with open_image(tmp_path / "a.png") as source:
        assert source.metadata.resolution == pytest.approx((per_metre * 0.0254,) * 2)
    copied(tmp_path / "a.png", tmp_path / name)
    with open_image(tmp_path / name) as result:
        found = result.metadata.resolution
    if name == "b.tif" or (name == "b.bmp" and per_metre < 2**31):
        assert found == pytest.approx((per_metre * 0.0254,) * 2, rel=1e-5)
    elif per_metre > 12_345:
        assert found is None


def test_largest_resolution_of_a_tiff_is_left_out_of_a_png(tmp_path: Path) -> None:
    most = ((2**32 - 1, 1), (2**32 - 1, 1))
    tifffile.imwrite(tmp_path / "a.tif", noise(9, 9), resolution=most, resolutionunit=2)
    for name in ("b.png", "b.bmp"):
        copied(tmp_path / "a.tif", tmp_path / name)
        with open_image(tmp_path / name) as result:
            assert result.metadata.resolution is None
            np.testing.assert_array_equal(result.read()[0], noise(9, 9))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


@pytest.mark.parametrize(
    ("kind", "whole"),
    [
        (b"iTXt", b"Title\0\1\0en\0Titel\0" + zlib.compress(b"Zellen")),
        (b"zTXt", b"Title\0\0" + zlib.compress(b"cells")),
        (b"tEXt", b"Title\0cells"),
        (b"iCCP", b"name\0\0" + zlib.compress(b"a profile")),
        (b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
        (b"eXIf", camera_exif(orientation=6)[:60]),
    ],
)
def test_metadata_that_is_cut_short_does_not_spoil_the_pixels_of_a_png(
    tmp_path: Path, kind: bytes, whole: bytes
) -> None:
    Image.fromarray(noise(9, 9)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    for length in range(len(whole) + 1):
        (tmp_path / "b.png").write_bytes(data[:33] + png_chunk(kind, whole[:length]) + data[33:])
        with open_image(tmp_path / "b.png") as source:
            assert source.metadata.orientation in range(1, 9)
            np.testing.assert_array_equal(source.read()[0], noise(9, 9))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ESTALE])
def test_file_that_the_system_does_not_give_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    Image.fromarray(noise(9, 9)).save(tmp_path / "a.png")

    def refused(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(DataError) as error:
        open_image(tmp_path / "a.png")
    assert f"a.png: cannot be read ({os.strerror(number)}). " in str(error.value)
    assert "damaged" not in str(error.value)


def test_place_that_is_in_no_file_is_damage() -> None:
    def read() -> None:
        with reading(Path("a.tif"), "a TIFF"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    with pytest.raises(DataError, match="cannot be read as a TIFF .Invalid argument.* damaged"):
        read()


def test_error_while_writing_does_not_speak_of_a_file_that_ends(tmp_path: Path) -> None:
    def write() -> None:
        with writing(Path("b.tif"), "a TIFF"):
            raise struct.error("int too large to convert")

    expected = (
        r"b\.tif: cannot be written as a TIFF \(int too large to convert\)\. .* such as \.png$"
    )
    with pytest.raises(WriteError, match=expected):
        write()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=r"a\.png: expected the file of an image, found a named pipe"
    ):
        open_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"null: .* found a device"):
        open_image(Path(os.devnull))


def test_name_of_a_portable_map_never_promises_less_than_the_file_holds(tmp_path: Path) -> None:
    Image.fromarray(noise(9, 11)).save(tmp_path / "grey.png")
    Image.fromarray(noise(9, 11, 3)).save(tmp_path / "colour.png")
    Image.fromarray(noise(9, 11) > 99).save(tmp_path / "bits.png")
    refused = (
        ("grey.png", "b.pbm", r"b\.pbm: a PBM cannot hold the 256 greys of .*ends in \.pgm"),
        ("colour.png", "b.pbm", r"b\.pbm: a PBM cannot hold the colours of .*ends in \.ppm"),
        ("colour.png", "b.pgm", r"b\.pgm: a PGM cannot hold the colours of .*ends in \.ppm"),
    )
    for name in ("grey", "colour"):
        copied(tmp_path / f"{name}.png", tmp_path / f"{name}.pnm")
    for source, target, message in refused:
        for name in (source, source.replace(".png", ".pnm")):
            with pytest.raises(DataError, match=message):
                copied(tmp_path / name, tmp_path / target)
    copied(tmp_path / "bits.png", tmp_path / "b.pbm")
    assert (tmp_path / "b.pbm").read_bytes()[:8] == b"P4\n11 9\n"
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.pbm")), noise(9, 11) > 99)


def test_only_a_lossless_webp_is_written_without_loss(tmp_path: Path) -> None:
    picture = Image.fromarray(slope())
    picture.save(tmp_path / "lossless.webp", lossless=True, exact=True)
    packet = b"<x:xmpmeta>VP8L</x:xmpmeta>"
    picture.save(tmp_path / "lossy.webp", quality=80, xmp=packet)
    for name, lossless in (("lossless.webp", True), ("lossy.webp", False)):
        with open_image(tmp_path / name) as source:
            assert isinstance(source, WebpFile)
            assert source.lossless is lossless


def test_name_without_an_ending_gets_the_format_of_the_source(tmp_path: Path) -> None:
    Image.fromarray(noise(9, 9)).save(tmp_path / "a", "PNG")
    Image.fromarray(noise(9, 9)).save(tmp_path / "scan.001", "BMP")
    for source, target, starts in (
        ("a", "b", b"\x89PNG"),
        ("scan.001", "scan-denoised.001", b"BM"),
        ("a", "b.tif", b"II*\0"),
        ("scan.001", "b", b"BM"),
    ):
        copied(tmp_path / source, tmp_path / target)
        assert (tmp_path / target).read_bytes().startswith(starts)
    with open_image(tmp_path / "a") as opened:
        assert result_format(Path("b"), opened).suffixes[0] == ".png"
        assert result_format(Path("b.jpg"), opened).name == "jpeg"
        with pytest.raises(DataError, match=r"b\.pgn: expected a name that ends in one of"):
            result_format(Path("b.pgn"), opened)


def test_name_without_an_ending_is_a_tiff_where_the_format_is_only_read(tmp_path: Path) -> None:
    Image.fromarray(noise(9, 9)).save(tmp_path / "a.png")
    with open_image(tmp_path / "a.png") as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(source), "format", "raw")
        assert result_format(Path("b"), source).name == "tiff"


def test_formats_say_whether_results_are_written_in_parts(tmp_path: Path) -> None:
    Image.fromarray(noise(9, 9)).save(tmp_path / "a.png")
    Image.fromarray(noise(9, 9, 3)).save(tmp_path / "a.bmp")
    by_parts = ("b.tif", "b.npy", "b.zarr", "b.pgm", "b.png", "b")
    with open_image(tmp_path / "a.png") as source:
        for name in by_parts:
            assert result_format(Path(name), source).writes_parts(source), name
        for name in ("b.jpg", "b.webp", "b.jp2", "b.bmp"):
            assert not result_format(Path(name), source).writes_parts(source), name
    with open_image(tmp_path / "a.bmp") as source:
        assert result_format(Path("b.bmp"), source).writes_parts(source)


def test_tiff_whose_strips_do_not_cover_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(40, 30), rowsperstrip=10)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags["StripByteCounts"].overwrite([300, 300, 0, 300])
    with (
        open_image(path) as source,
        pytest.raises(DataError, match="3 of the 4 strips that cover it"),
    ):
        source.read()


def test_tiff_whose_directories_form_a_loop_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.tif"
    tifffile.imwrite(path, np.zeros((3, 5, 7), np.uint8), photometric="minisblack", metadata=None)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        first, last = tiff.pages[0].offset, tiff.pages[-1].offset
    (entries,) = struct.unpack_from("<H", data, last)
    struct.pack_into("<I", data, last + 2 + 12 * entries, first)  # the next one after the last
    path.write_bytes(data)
    with pytest.raises(DataError, match="directories form a loop"):
        open_image(path)


def test_tiff_of_many_pages_is_no_loop(tmp_path: Path) -> None:
    path = tmp_path / "many.tif"
    tifffile.imwrite(path, np.zeros((300, 2, 2), np.uint8), photometric="minisblack", bigtiff=True)
    with open_image(path) as source:
        assert source.planes == 300


def test_file_too_small_for_its_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gif"
    Image.new("L", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<HH", data, 6, 32_000, 32_000)
    path.write_bytes(data)
    with pytest.raises(DataError, match="bytes cannot hold an image"):
        open_image(path)


def test_jpeg_in_a_tiff_that_is_larger_than_its_strip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(40, 30), compression="jpeg", rowsperstrip=40)
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0") + 5  # the frame's height and width
    struct.pack_into(">HH", data, at, 65_000, 65_000)
    path.write_bytes(data)
    with open_image(path) as source, pytest.raises(DataError, match="holds 65000 x 65000 pixels"):
        source.read()


def test_tiff_whose_height_is_no_whole_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    tifffile.imwrite(path, np.zeros((5, 7), np.uint8), photometric="minisblack", metadata=None)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages.first.tags["ImageLength"]
        at = tag.offset
    struct.pack_into("<HHIf", data, at, 257, 11, 1, 5.0)  # of the type FLOAT
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        open_image(path)


@pytest.mark.parametrize(
    ("array", "options", "found"),
    [
        (noise(9, 9, dtype="f4").astype("c8"), {}, "samples of 64 bits"),
        (noise(4, 9, 9), {"photometric": "minisblack", "volumetric": True}, "a volume of 4 slices"),
        (noise(9, 9, dtype="u2"), {"photometric": "cfa"}, "pixels of the kind CFA"),
    ],
)
def test_healthy_tiff_of_an_unsupported_kind_is_not_called_damaged(
    tmp_path: Path, array: NDArray[Any], options: dict[str, Any], found: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    with pytest.raises(DataError, match=found) as error:
        open_image(tmp_path / "a.tif")
    assert "damaged" not in str(error.value)


def test_animations_and_deep_jpegs_are_refused_in_words(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(9, 9, seed=seed)) for seed in range(3)]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(DataError, match=rf"{name}: expected a still \w+, found an animation"):
            open_image(tmp_path / name)
    deep = imagecodecs.jpeg8_encode(noise(16, 16, dtype="u2") >> 4, bitspersample=12)
    (tmp_path / "a.jpg").write_bytes(deep)
    with pytest.raises(DataError, match="found 12 bits"):
        open_image(tmp_path / "a.jpg")
    (tmp_path / "a.avif").write_bytes(
        imagecodecs.avif_encode(noise(16, 16, 3, dtype="u2") >> 6, bitspersample=10)
    )
    with pytest.raises(DataError, match="expected an AVIF of 8 bits, found 10 bits"):
        open_image(tmp_path / "a.avif")


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic", "a HEIC. Convert it"),
        ("a.psd", b"8BPS\0\1", "a Photoshop document"),
        ("a.fits.gz", b"\x1f\x8b\x08\0", "a gzip archive. Unpack it first"),
        ("a.npz", b"PK\3\4", "a zip archive"),
        ("a.czi", b"ZISRAWFILE", "a Zeiss CZI. Export its images"),
    ],
)
def test_files_of_known_other_kinds_are_named(
    tmp_path: Path, name: str, data: bytes, found: str
) -> None:
    (tmp_path / name).write_bytes(data + bytes(100))
    with pytest.raises(DataError, match=f"found {found}") as error:
        open_image(tmp_path / name)
    assert "damaged" not in str(error.value)


def test_tiff_of_a_maker_becomes_a_plain_one_with_its_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = noise(3, 2, 20, 30, dtype="u2")
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata={"axes": "ZCYX"})
    monkeypatch.setattr("graphnet_denoise.images.families.tiff.writing._MAKERS", ("shaped",))
    copied(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        series = tiff.series[0]
        assert (series.axes, int(tiff.pages.first.compression)) == ("ZYXS", 8)  # Deflate
        np.testing.assert_array_equal(series.asarray(), stack.transpose(0, 2, 3, 1))


def test_layers_of_photoshop_are_left_out(tmp_path: Path) -> None:
    layers = b"Adobe Photoshop Document Data Block\0"
    tag = (37724, 7, len(layers), layers, True)
    tifffile.imwrite(tmp_path / "a.tif", noise(9, 9), extratags=[tag], metadata=None)
    copied(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        assert 37724 not in tiff.pages.first.tags


def test_threads_read_one_file_at_the_same_time(tmp_path: Path) -> None:
    stack = noise(4, 128, 96, dtype="u2")
    options: dict[str, Any] = {"tile": (16, 16), "compression": "deflate"}
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", **options)
    filters = list(warnings.filters)
    with open_image(tmp_path / "a.tif") as source, ThreadPoolExecutor(4) as pool:
        parts = [(plane, rows) for plane in range(4) for rows in bands(128, 10)]
        found = list(pool.map(lambda part: source.read(*part), parts))
    for (plane, rows), pixels in zip(parts, found, strict=True):
        np.testing.assert_array_equal(pixels[0], stack[plane, rows])
    assert warnings.filters == filters


def test_warnings_of_others_are_heard_while_a_file_is_read() -> None:
    with reading(Path("a.tif"), "a TIFF"), pytest.warns(GraphnetWarning, match="slow"):
        warnings.warn("slow", GraphnetWarning, stacklevel=1)


def test_files_of_no_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("not an image")
    (tmp_path / "empty.tif").touch()
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read as an image .*found other data"):
        open_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"empty\.tif: .*found an empty file"):
        open_image(tmp_path / "empty.tif")
    with pytest.raises(DataError, match=r"none\.png: there is no such file"):
        open_image(tmp_path / "none.png")


@pytest.mark.parametrize(
    "name",
    ["b.png", "b.jpg", "b.tif", "b.webp", "b.gif", "b.bmp", "b.jp2", "b.avif", "b.npy", "b.zarr"],
)
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (9, 1, 3), (1, 1)])
def test_images_of_one_row_or_column_are_written(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    picture = np.full(shape, 100, np.uint8)
    photometric = "rgb" if len(shape) == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric=photometric)
    copied(tmp_path / "a.tif", tmp_path / name)
    with open_image(tmp_path / name) as result:
        assert (result.height, result.width) == shape[:2]
        assert abs(result.read().astype(int) - 100).max() <= 2


def test_image_that_is_too_wide_for_a_format_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 70_000), np.uint8))
    for name in ("b.webp", "b.jpg", "b.gif"):
        with pytest.raises(DataError, match=rf"{name}: a \w+ cannot hold the 1 x 70000 pixels"):
            copied(tmp_path / "a.npy", tmp_path / name)


def test_error_of_an_encoder_is_a_write_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(*_: object, **__: object) -> None:
        raise RuntimeError("no such level")

    tifffile.imwrite(tmp_path / "a.tif", noise(9, 9))
    monkeypatch.setattr(imagecodecs, "png_encode", failed)
    with pytest.raises(WriteError, match=r"b\.png: cannot be written as a PNG \(no such level\)"):
        copied(tmp_path / "a.tif", tmp_path / "b.png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tif"]


def test_example_of_the_readme_halves_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (code,) = re.findall(r"```python\n((?:(?!```).)*?create_like.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    stack = noise(3, 40, 30) // 2 * 2
    tifffile.imwrite("in.tif", stack, photometric="minisblack")
    exec(compile(code, "README.md", "exec"), {})
    np.testing.assert_array_equal(tifffile.imread("out.tif"), stack // 2)


def test_first_bytes_not_the_name_decide_the_format(tmp_path: Path) -> None:
    Image.fromarray(noise(9, 9)).save(tmp_path / "a.jpg", "PNG")
    with open_image(tmp_path / "a.jpg") as source:
        assert source.format == "png"


def test_missing_library_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits.PrimaryHDU(noise(9, 9)).writeto(tmp_path / "a.fits")
    monkeypatch.setitem(sys.modules, "astropy.io.fits", None)
    with pytest.raises(DataError, match=r"a\.fits: .* pip install 'graphnet-denoise\[fits\]'"):
        open_image(tmp_path / "a.fits")


@pytest.mark.parametrize("name", ["b.tif", "b.png", "b.jpg", "b.webp", "b.jp2", "b.avif"])
def test_another_format_gets_profile_and_camera_data(tmp_path: Path, name: str) -> None:
    exif = b"Exif\0\0" + camera_exif(orientation=6)
    picture = Image.fromarray(slope())
    picture.save(
        tmp_path / "a.jpg", exif=exif, icc_profile=colour_profile(), quality=95, dpi=(300, 300)
    )
    copied(tmp_path / "a.jpg", tmp_path / name)
    with open_image(tmp_path / name) as source:
        assert (source.height, source.width) == slope().shape[:2]
        assert source.metadata.exif is not None
        assert source.metadata.orientation == 6
        found = Image.Exif()
        found.load(source.metadata.exif)
        assert found.get_ifd(0x8769)[0xA434] == "50mm f/1.8"
        assert found.get_ifd(0x8825)[1] == "N"
        if name != "b.jp2":
            assert source.metadata.icc == colour_profile()
        if name in ("b.tif", "b.png"):
            assert source.metadata.resolution == pytest.approx((300, 300), abs=0.02)


def test_sixteen_bits_are_scaled_for_a_jpeg_and_floats_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", slope(1, top=65535, dtype=np.uint16))
    copied(tmp_path / "a.tif", tmp_path / "b.jpg")
    difference = np.asarray(Image.open(tmp_path / "b.jpg")).astype(int) - slope(1)
    assert abs(difference).max() <= 4
    tifffile.imwrite(tmp_path / "c.tif", noise(9, 9, dtype="f4"))
    with pytest.raises(
        DataError, match=r"d\.png: a PNG cannot hold the numbers of the type float32"
    ):
        copied(tmp_path / "c.tif", tmp_path / "d.png")
    Image.fromarray(noise(9, 9, 4)).save(tmp_path / "e.png")
    with pytest.raises(DataError, match=r"f\.jpg: a JPEG cannot hold the alpha of .*e\.png"):
        copied(tmp_path / "e.png", tmp_path / "f.jpg")
    with pytest.raises(DataError, match=r"expected a name that ends in one of \.png"):
        copied(tmp_path / "e.png", tmp_path / "f.txt")


@pytest.mark.parametrize("name", ["b.npy", "b.zarr", "b.tif"])
def test_stack_of_floats_goes_into_arrays_and_tiff(tmp_path: Path, name: str) -> None:
    stack = noise(5, 20, 30, dtype="f4")
    np.save(tmp_path / "a.npy", stack)
    copied(tmp_path / "a.npy", tmp_path / name)
    with open_image(tmp_path / name) as source:
        assert source.shape == (5, 20, 30)
        np.testing.assert_array_equal(np.concatenate([source.read(i) for i in range(5)]), stack)


def test_axes_of_a_plain_array_can_be_told(tmp_path: Path) -> None:
    array = noise(4, 2, 20, 30, dtype="u2")
    np.save(tmp_path / "a.npy", array)
    with open_image(tmp_path / "a.npy", axes="TCYX") as source:
        assert (source.axes, source.planes, source.channels) == ("TCYX", 4, 2)
        np.testing.assert_array_equal(source.read(3), array[3])
    with pytest.raises(DataError, match="axes 'TYX'"):
        open_image(tmp_path / "a.npy", axes="TYX")
    Image.fromarray(noise(9, 9)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="expected the axes YX, which the file states"):
        open_image(tmp_path / "a.png", axes="ZYX")


def test_fits_gets_a_line_of_history_and_mrc_a_label(tmp_path: Path) -> None:
    import mrcfile

    fits.PrimaryHDU(noise(9, 9, dtype="f4")).writeto(tmp_path / "a.fits")
    copied(tmp_path / "a.fits", tmp_path / "b.fits", history="denoised by graphnet")
    assert list(fits.getheader(tmp_path / "b.fits")["HISTORY"]) == ["denoised by graphnet"]
    array = noise(9, 9, dtype="f4")
    mrcfile.write(tmp_path / "a.mrc", array)
    copied(tmp_path / "a.mrc", tmp_path / "b.mrc", history="denoised by graphnet")
    with mrcfile.open(tmp_path / "b.mrc") as opened:
        assert opened.get_labels()[-1] == "denoised by graphnet"
        assert float(opened.header.dmax) == array.max()
        assert float(opened.header.rms) == pytest.approx(array.std(), rel=1e-5)


def test_scaled_fits_is_read_in_its_physical_unit(tmp_path: Path) -> None:
    unit = fits.PrimaryHDU(np.array([[0, 10, -32768]], np.int16))
    unit.header.update({"BSCALE": 0.5, "BZERO": 100.0, "BLANK": -32768})
    fits.HDUList([unit]).writeto(tmp_path / "a.fits")
    with (
        open_image(tmp_path / "a.fits") as source,
        create_like(tmp_path / "b.fits", source) as sink,
    ):
        physical = source.read()
        assert physical[0, 0, :2].tolist() == [100.0, 105.0]
        assert np.isnan(physical[0, 0, 2])
        sink.write(0, WHOLE, WHOLE, physical + 2)
    stored = fits.getdata(tmp_path / "b.fits", do_not_scale_image_data=True)
    assert stored.tolist() == [[4, 14, -32768]]


def test_raw_file_is_read_linear_and_written_as_tiff(tmp_path: Path) -> None:
    mosaic = np.full((64, 96), 1000, np.uint16)
    identity = [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]
    tags = [
        (33421, 3, 2, (2, 2), True),  # the pattern of the colour filters, and which they are
        (33422, 1, 4, bytes([0, 1, 1, 2]), True),
        (50706, 1, 4, bytes([1, 4, 0, 0]), True),  # the version of DNG
        (50708, 2, 0, "Model 7", True),
        (50717, 4, 1, 4095, True),  # the level of white
        (50721, 10, 9, identity, True),
        (50728, 5, 3, (1, 1, 1, 1, 1, 1), True),
        (50778, 3, 1, 21, True),
        (271, 2, 0, "Maker", True),
        (274, 3, 1, 6, True),
    ]
    path = tmp_path / "a.dng"
    tifffile.imwrite(path, mosaic, photometric="cfa", extratags=tags, metadata=None, subfiletype=0)
    brighter = tmp_path / "b.dng"
    tifffile.imwrite(
        brighter, mosaic * 2, photometric="cfa", extratags=tags, metadata=None, subfiletype=0
    )
    with open_image(path) as source, open_image(brighter) as other:
        assert (source.shape, source.metadata.orientation) == ((64, 96, 3), 6)
        assert source.dtype == np.uint16
        pixels = source.read().astype(np.float64)
        assert 0 < pixels[1].mean() < 65535
        assert other.read()[1].mean() == pytest.approx(2 * pixels[1].mean(), rel=0.01)
    copied(path, tmp_path / "c.tif")
    with open_image(tmp_path / "c.tif") as result:
        assert (result.shape, result.metadata.orientation) == ((64, 96, 3), 6)
    with pytest.raises(DataError, match="can be read, but not written"):
        copied(path, tmp_path / "c.dng")


class DotsFile(DecodedFile):
    """A row of dots and dashes."""

    format = "dots"
    title = "a file of dots"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.levels, self.channels, self.colour = Levels(np.dtype(np.uint8), 1), 1, "grey"
        self.layout = shape_for(1, len(path.read_text()) - 5, 1)

    def _decode(self) -> NDArray[Any]:
        return np.array([[[mark == "." for mark in self.path.read_text()[5:]]]], np.uint8)


class Dots(Format):
    """Files of dots and dashes."""

    name = "dots"
    title = "a file of dots"
    suffixes = (".dots",)

    def matches(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"DOTS:")

    def open(self, path: Path) -> ImageFile:
        return DotsFile(path)


def test_other_distributions_add_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphnet_denoise import plugin

    class Other:
        @hookimpl
        def graphnet_denoise_formats(self, register: Register) -> None:
            register("other/dots", Dots)

    registry = load_registry(plugins=[plugin, Other()], entry_points=False)
    monkeypatch.setattr("graphnet.sdk.default_registry", lambda: registry)
    (tmp_path / "a.dots").write_text("DOTS:..-.")
    with open_image(tmp_path / "a.dots") as source:
        assert source.read().tolist() == [[[1, 1, 0, 1]]]
    assert ".dots" in Names.known().endings


@pytest.mark.parametrize("order", ["<", ">"])
def test_mrc_whose_header_is_longer_than_the_file_takes_no_memory(
    tmp_path: Path, order: str
) -> None:
    import mrcfile

    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as made:
        made.set_data(np.zeros((4, 4), f"{order}i2"))
    header = bytearray(path.read_bytes())
    struct.pack_into(f"{order}i", header, 92, 1 << 30)  # the bytes of its extended header
    path.write_bytes(header)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="extended header has 1,073,741,824 bytes, more than"):
            open_image(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_damaged_fits_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(b"SIMPLE  =                    T".ljust(2880))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError):
            open_image(path)
