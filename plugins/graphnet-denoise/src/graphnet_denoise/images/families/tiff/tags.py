"""Which tags of a TIFF describe how its pixels are stored, and which ones say something of them."""

from __future__ import annotations

import contextlib
import io
import struct

from graphnet_denoise.images.families.tiff.directory import (
    ASCII,
    BYTES,
    RATIONAL,
    SHORT,
    Directory,
    Entry,
    Form,
    form_of,
)
from graphnet_denoise.images.metadata import Metadata

_NUMBERS = (
    "254-259 262-266 273 277-279 284 288-289 292-293 317 320 322-325 327-328 330 332 334 336-339 342 347 "
    "512-515 517-521 529-532 559 32997-32998 50674"
)
STORAGE = frozenset(
    tag
    for part in _NUMBERS.split()
    for tag in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)
)
"""They say how pixels are stored: the result gets its own."""

STALE = frozenset((37724,))
"""Layers of Photoshop, which hold the pixels once more: programs would show these."""

_DESCRIPTION, _X, _Y, _UNIT, _XMP, _ICC = 270, 282, 283, 296, 700, 34675
_LARGEST = 2**32 - 1
_SCALES = (
    10_000,
    100,
    1,
)  # the lower part of a ratio: the largest for which the upper one has 32 bits
_INCHES = {2: 1.0, 3: 2.54}
_OF_CAMERA = (
    271,
    272,
    274,
    305,
    306,
    315,
    33432,
    34665,
    34853,
)  # what EXIF data keeps of the first directory
_ORIENTATION = 274


def metadata_of(directory: Directory, form: Form) -> Metadata:
    """The metadata of a page, in the form that other formats can take."""
    entries = directory.entries
    resolution = None
    with contextlib.suppress(KeyError, struct.error, ZeroDivisionError):
        unit = form.number(entries[_UNIT]) if _UNIT in entries else 2
        x, y = (_ratio(entries[tag], form) for tag in (_X, _Y))
        resolution = (x * _INCHES[unit], y * _INCHES[unit])
    text = {}
    if _DESCRIPTION in entries:
        text["Description"] = entries[_DESCRIPTION].data.rstrip(b"\0").decode("utf-8", "replace")
    icc, xmp = (entries[tag].data if tag in entries else None for tag in (_ICC, _XMP))
    return Metadata(icc, _exif(directory.only(*_OF_CAMERA), form), xmp, resolution, text)


def directory_of(metadata: Metadata) -> tuple[Directory, Form]:
    """The entries of a page for the metadata of another format, and the byte order that they need."""
    directory, form = Directory(), Form("<", False)
    if metadata.exif:
        with contextlib.suppress(ValueError, struct.error):
            file = io.BytesIO(metadata.exif)
            form = form_of(file)
            (start,) = struct.unpack_from(f"{form.order}I", metadata.exif, 4)
            directory = form.read(file, start)[0].without(STORAGE)
    entries: dict[int, Entry] = {}
    if metadata.icc:
        entries[_ICC] = Entry(BYTES, len(metadata.icc), metadata.icc)
    if metadata.xmp:
        entries[_XMP] = Entry(1, len(metadata.xmp), metadata.xmp)
    for scale in _SCALES:
        ratio = metadata.resolution_times(scale, most=_LARGEST)
        if ratio is None:
            continue
        for tag, value in zip((_X, _Y), ratio, strict=True):
            entries[tag] = Entry(RATIONAL, 1, struct.pack(f"{form.order}II", value, scale))
        entries[_UNIT] = Entry(SHORT, 1, struct.pack(f"{form.order}H", 2))
        break
    if metadata.text and _DESCRIPTION not in directory.entries:
        text = "\n".join(metadata.text.values()).encode() + b"\0"
        entries[_DESCRIPTION] = Entry(ASCII, len(text), text)
    return Directory(entries).joined(directory), form


def _exif(directory: Directory, form: Form) -> bytes | None:
    """EXIF data with these entries, or None if there is nothing to say."""
    if not directory.children and not set(directory.entries) - {_ORIENTATION, 305, 306}:
        entry = directory.entries.get(_ORIENTATION)
        if entry is None or form.number(entry) == 1:
            return None
    plain = Form(form.order, False)
    mark, number = (b"II", b"*\0") if form.order == "<" else (b"MM", b"\0*")
    return mark + number + struct.pack(f"{form.order}I", 8) + plain.encoded(directory, 8)


def _ratio(entry: Entry, form: Form) -> float:
    upper, lower = struct.unpack(f"{form.order}II", entry.data[:8])
    return float(upper / lower)
