"""PBM, PGM and PPM: grey and colour of 1 to 16 bits, as text or as bytes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphnet.errors import DataError
from graphnet_denoise.images.families.depths import refuse, shape_for
from graphnet_denoise.images.faults import unsupported
from graphnet_denoise.images.file import DecodedFile, EncodedSink, ImageFile
from graphnet_denoise.images.flat import FlatFile, FlatSink, Place
from graphnet_denoise.images.format import Format
from graphnet_denoise.images.layout import Samples
from graphnet_denoise.images.levels import Levels

_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([^\s#]+)")
_BITS, _COLOURS = (b"P1", b"P4"), (b"P3", b"P6")
_HEAD_BYTES = 1 << 16
_TITLES = {".pbm": "a PBM", ".pgm": "a PGM"}


class _Header:
    """What every such file says first: its kind, its size and its highest level."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            data = file.read(_HEAD_BYTES)
        self.kind = data[:2]
        numbers, place = [], 2
        for _ in range(2 if self.kind in _BITS else 3):
            token = _TOKEN.match(data, place)
            if token is None:
                raise ValueError("its header is cut short")
            numbers.append(int(token[1]))
            place = token.end()
        self.end = place + 1  # one white space
        self.width, self.height, self.peak = (*numbers, 1)[:3]
        if self.width < 1 or self.height < 1 or not 0 < self.peak < 65536:
            raise ValueError("its header is wrong")
        self.samples = 3 if self.kind in _COLOURS else 1
        dtype = np.dtype(np.uint8 if self.peak < 256 else np.uint16)
        bits = self.peak.bit_length()
        self.levels = Levels(dtype, bits, 0 if self.peak == 2**bits - 1 else self.peak)


def _describe(source: ImageFile, path: Path, header: _Header) -> None:
    source.path = path
    source.levels = header.levels
    source.channels = header.samples
    source.colour = "rgb" if header.samples == 3 else "grey"
    source.layout = shape_for(header.height, header.width, header.samples)


class FlatPnm(FlatFile):
    """An open PGM or PPM whose levels are bytes (P5, P6)."""

    format = "pnm"
    title = "a PGM or PPM"

    def __init__(self, path: Path, header: _Header) -> None:
        _describe(self, path, header)
        stored = np.dtype(np.uint8 if header.peak < 256 else ">u2")
        self.place = Place(header.end, stored, self.shape)
        self.check_size()


class PackedPnm(DecodedFile):
    """An open file whose levels are text (P1, P2, P3) or bits (P4)."""

    format = "pnm"
    title = "a PBM, PGM or PPM"

    def __init__(self, path: Path, header: _Header) -> None:
        _describe(self, path, header)
        self.header = header
        self.kind = header.kind

    def _decode(self) -> Samples:
        header = self.header
        data = self.path.read_bytes()[header.end - 1 :]
        count = header.height * header.width * header.samples
        if self.kind == b"P4":
            row = (header.width + 7) // 8
            packed = np.frombuffer(data, np.uint8, header.height * row, 1)
            levels = np.unpackbits(packed.reshape(header.height, row), axis=1)[:, : header.width]
        else:
            text = re.sub(rb"#[^\r\n]*", b"", data)
            digits = (
                (b" ".join(text[i : i + 1] for i in range(len(text))))
                if self.kind == b"P1"
                else text
            )
            levels = np.array(digits.split()[:count], np.int64)
            if len(levels) < count or levels.min() < 0 or levels.max() > header.peak:
                raise ValueError(f"it has {len(levels)} of {count} levels, or wrong ones")
        if self.kind in _BITS:
            levels = 1 - levels  # 1 is black
        shape = (header.height, header.width, header.samples)
        return levels.astype(self.dtype).reshape(shape).transpose(2, 0, 1)


class PackedSink(EncodedSink):
    """A file of text or bits that is being written."""

    kind: bytes

    def _encode(self, samples: Samples) -> bytes:
        _, height, width = samples.shape
        if self.kind in _BITS:
            samples = 1 - samples
        head = b"%s\n%d %d\n" % (self.kind, width, height)
        if self.kind == b"P4":
            return head + np.packbits(samples[0], axis=1).tobytes()
        if self.kind != b"P1":
            head += b"%d\n" % self.levels.high
        rows: NDArray[np.int64] = samples.transpose(1, 2, 0).reshape(height, -1).astype(np.int64)
        return head + b"".join(" ".join(map(str, row)).encode() + b"\n" for row in rows.tolist())


class Pnm(Format):
    """PBM, PGM and PPM files."""

    name = "pnm"
    title = "a PBM, PGM or PPM"
    suffixes = (".ppm", ".pgm", ".pnm", ".pbm")

    def matches(self, path: Path, head: bytes) -> bool:
        return head[:1] == b"P" and head[1:2] in b"1234567" and head[2:3].isspace()

    def open(self, path: Path) -> ImageFile:
        with path.open("rb") as file:
            if file.read(2) == b"P7":
                raise unsupported(path, "a PBM, PGM or PPM", "a PAM", "Convert it to a PNG.")
        header = _Header(path)
        return (FlatPnm if header.kind in (b"P5", b"P6") else PackedPnm)(path, header)

    def writes_parts(self, source: ImageFile) -> bool:
        return not isinstance(source, PackedPnm) and source.levels.high > 1

    def create(
        self, target: Path, source: ImageFile, *, name: Path, history: str
    ) -> FlatSink | PackedSink:
        refuse(name, self.title, source, colours=("grey", "rgb"), alpha=False)
        ending = name.suffix.lower()
        _check_ending(name, ending, source)
        layout = shape_for(source.height, source.width, source.channels)
        if isinstance(source, PackedPnm) or ending == ".pbm":
            packed = PackedSink(target, source, layout, source.levels)
            packed.kind = source.kind if isinstance(source, PackedPnm) else b"P4"
            return packed
        if isinstance(source, FlatPnm):
            place, head = source.place, [source.head()]
            return FlatSink(target, source, layout, source.levels, place=place, head=head)
        kind = b"P6" if source.channels == 3 else b"P5"
        header = b"%s\n%d %d\n%d\n" % (kind, source.width, source.height, source.levels.high)
        stored = np.dtype(np.uint8 if source.levels.high < 256 else ">u2")
        place = Place(len(header), stored, layout.shape)
        return FlatSink(target, source, layout, source.levels, place=place, head=[header])


def _check_ending(name: Path, ending: str, source: ImageFile) -> None:
    """Raise DataError for an ending that promises less than the image holds.

    Programs that read .ppm also read what a .pgm may hold, and those also what a .pbm may, but not the other
    way round.
    """
    found = ""
    if ending in (".pbm", ".pgm") and source.channels > 1:
        found, other = "colours", ".ppm"
    elif ending == ".pbm" and source.levels.high > 1:
        found, other = f"{source.levels.high + 1} greys", ".pgm"
    if found:
        raise DataError(
            f"{name}: {_TITLES[ending]} cannot hold the {found} of {source.path}. Give a name that ends in "
            f"{other}"
        )
