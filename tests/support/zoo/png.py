"""PNG: every depth and kind of colour, interlaced or not, with each kind of metadata; read by zlib alone."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.zoo.metadata import BROKEN_EXIF, XMP, camera_exif, colour_profile
from tests.support.zoo.specimen import HEIGHT, WIDTH, Sight, Specimen, noise

Chunks = list[tuple[bytes, bytes]]
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encoded(
    levels: NDArray[Any],
    kind: int,
    bits: int,
    *,
    chunks: Sequence[tuple[bytes, bytes]] = (),
    interlaced: bool = False,
) -> bytes:
    """A PNG of levels (H, W, S), its rows without a filter."""
    height, width, _ = levels.shape
    parts = [levels[y::dy, x::dx] for y, x, dy, dx in _PASSES] if interlaced else [levels]
    data = b"".join(_rows(part, bits) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, int(interlaced))
    middle = b"".join(chunk(*one) for one in chunks)
    pixels = chunk(b"IDAT", zlib.compress(data))
    return _SIGNATURE + chunk(b"IHDR", header) + middle + pixels + chunk(b"IEND", b"")


def _rows(levels: NDArray[Any], bits: int) -> bytes:
    height = len(levels)
    if bits == 16:
        rows = levels.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        flat = levels.reshape(height, -1).astype(np.uint8)
        digits = (flat[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        rows = np.packbits(digits.astype(np.uint8).reshape(height, -1), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


def chunks_of(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG, those with a wrong checksum left out."""
    data, place = path.read_bytes(), 8
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        content = data[place + 8 : place + 8 + length]
        if data[place + 8 + length : place + 12 + length] == chunk(kind, content)[-4:]:
            yield kind, content
        place += 12 + length


def look(path: Path) -> Sight:
    """Read a PNG that is not interlaced, or is the specimen's own."""
    chunks = list(chunks_of(path))
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", dict(chunks)[b"IHDR"])
    data = zlib.decompress(b"".join(content for name, content in chunks if name == b"IDAT"))
    samples = _SAMPLES[kind]
    levels = np.zeros((height, width, samples), np.uint16 if bits == 16 else np.uint8)
    places = _PASSES if interlaced else ((0, 0, 1, 1),)
    start = 0
    for y, x, dy, dx in places:
        part = levels[y::dy, x::dx]
        if part.size:
            size = len(part) * (1 + (part.shape[1] * samples * bits + 7) // 8)
            part[...] = _unfiltered(data[start : start + size], part.shape, bits)
            start += size
    about = [(name, content) for name, content in chunks if name not in (b"IDAT", b"IHDR")]
    return Sight(levels, {"size": (height, width), "bits": bits, "kind": kind, "chunks": about})


def _unfiltered(data: bytes, shape: tuple[int, ...], bits: int) -> NDArray[Any]:
    height, width, samples = shape
    row = (width * samples * bits + 7) // 8
    step = max(1, samples * bits // 8)
    above = bytearray(row)
    rows = []
    for y in range(height):
        line = data[y * (row + 1) : (y + 1) * (row + 1)]
        kind, current = line[0], bytearray(line[1:])
        for i in range(row if kind else 0):
            a = current[i - step] if i >= step else 0
            b, c = above[i], above[i - step] if i >= step else 0
            guess = min((a, b, c), key=lambda value: abs(a + b - c - value))
            current[i] = (current[i] + (0, a, b, (a + b) // 2, guess)[kind]) & 255
        rows.append(bytes(current))
        above = current
    array = np.frombuffer(b"".join(rows), np.uint8).reshape(height, row)
    if bits == 16:
        return array.view(">u2").reshape(shape)
    digits = np.unpackbits(array, axis=1)[:, : width * samples * bits].reshape(*shape, bits)
    return np.asarray((digits << np.arange(bits - 1, -1, -1)).sum(axis=-1))


def look_through_palette(path: Path) -> Sight:
    """The colours of a PNG, of a palette too, with alpha if there is any; only the size is a fact."""
    sight = look(path)
    chunks = dict(sight.facts["chunks"])
    pixels = sight.pixels
    if sight.facts["kind"] == 3:
        palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
        transparency = np.frombuffer(chunks.get(b"tRNS", b""), np.uint8)
        opacity = np.full(len(palette), 255, np.uint8)
        opacity[: len(transparency)] = transparency
        colours = palette[pixels[..., 0]]
        grey = bool((palette == palette[:, :1]).all())
        pixels = colours[..., :1] if grey else colours
        if b"tRNS" in chunks:
            pixels = np.concatenate((pixels, opacity[sight.pixels]), axis=-1)
    elif b"tRNS" in chunks:
        key = np.frombuffer(chunks[b"tRNS"], ">u2")
        top = np.iinfo(pixels.dtype).max
        opaque = np.where((pixels == key).all(axis=-1, keepdims=True), 0, top)
        pixels = np.concatenate((pixels, opaque.astype(pixels.dtype)), axis=-1)
    return Sight(pixels, {"size": sight.facts["size"]})


def _plain(name: str, kind: int, bits: int, **options: Any) -> Specimen:
    dtype = np.uint16 if bits == 16 else np.uint8
    levels = noise(HEIGHT, WIDTH, _SAMPLES[kind], dtype=dtype) >> ((16 if bits == 16 else 8) - bits)
    data = encoded(levels, kind, bits, **options)
    fixed = 1 if kind in (4, 6) else 0
    peak = 2**bits - 1
    return Specimen(f"{name}.png", lambda path: path.write_bytes(data), look, fixed, peak)


def _indexed(name: str, bits: int, *, grey: bool = False, transparent: bool = False) -> Specimen:
    palette = noise(2**bits, 1 if grey else 3, seed=1).repeat(3 if grey else 1, axis=1)
    chunks: Chunks = [(b"PLTE", palette.tobytes())]
    if transparent:
        chunks.append((b"tRNS", bytes([0, 100])))
    data = encoded(noise(HEIGHT, WIDTH, 1) >> (8 - bits), 3, bits, chunks=chunks)
    return Specimen(
        f"{name}.png", lambda path: path.write_bytes(data), look_through_palette, int(transparent)
    )


def _keyed(name: str, kind: int, bits: int) -> Specimen:
    dtype = np.uint16 if bits == 16 else np.uint8
    levels = noise(HEIGHT, WIDTH, _SAMPLES[kind], dtype=dtype)
    chunks: Chunks = [(b"tRNS", levels[3, 4].astype(">u2").tobytes())]
    data = encoded(levels, kind, bits, chunks=chunks)
    return Specimen(f"{name}.png", lambda path: path.write_bytes(data), look_through_palette, 1)


def _broken() -> Specimen:
    levels = noise(HEIGHT, WIDTH, 3)
    data = encoded(levels, 2, 8, chunks=[(b"iCCP", b"no profile"), (b"eXIf", BROKEN_EXIF)])
    wrong = chunk(b"tEXt", b"Title\0wrong checksum")[:-1] + b"?"
    data = data[:33] + wrong + data[33:]
    return Specimen("broken-metadata.png", lambda path: path.write_bytes(data), look)


def specimens() -> Iterator[Specimen]:
    """All PNGs."""
    for kind, depths, name in (
        (0, (1, 2, 4, 8, 16), "grey"),
        (2, (8, 16), "rgb"),
        (4, (8, 16), "grey-alpha"),
        (6, (8, 16), "rgba"),
    ):
        for bits in depths:
            yield _plain(f"{name}-{bits}", kind, bits)
    for bits in (1, 2, 4, 8):
        yield _indexed(f"palette-{bits}", bits)
    yield _indexed("palette-grey", 4, grey=True)
    yield _indexed("palette-alpha", 4, transparent=True)
    yield _keyed("grey-key", 0, 8)
    yield _keyed("rgb-key", 2, 8)
    yield _keyed("rgb-16-key", 2, 16)
    yield _plain("interlaced", 2, 8, interlaced=True)
    yield _plain("interlaced-16", 0, 16, interlaced=True)
    about = {
        "icc": (b"iCCP", b"sRGB\0\0" + zlib.compress(colour_profile())),
        "exif": (b"eXIf", camera_exif(orientation=6)),
        "xmp": (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        "text": (b"tEXt", b"Author\0A. Person"),
        "packed-text": (b"zTXt", b"Description\0\0" + zlib.compress(b"a long story")),
        "resolution": (b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
        "time": (b"tIME", struct.pack(">HBBBBB", 2024, 5, 6, 7, 8, 9)),
        "gamma": (b"gAMA", struct.pack(">I", 45455)),
        "own": (b"prVt", b"of a program"),
    }
    for name, one in about.items():
        yield _plain(f"with-{name}", 2, 16, chunks=[one])
    yield _broken()
