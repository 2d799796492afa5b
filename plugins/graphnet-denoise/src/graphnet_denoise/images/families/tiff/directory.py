"""Directories of a TIFF, entry by entry and byte by byte (TIFF 6.0, section 2; EXIF data has the same form).

Values are copied as the bytes that they are, so that a tag that nobody here understands is kept too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

Order = Literal["<", ">"]
"""The order of the bytes of a number, as struct writes it."""

SHORT, LONG, LONG8, ASCII, RATIONAL, BYTES = 3, 4, 16, 2, 5, 7
_IFD, _IFD8 = 13, 18
# The bytes of a value by its type, in the order of TIFF 6.0, then IFD and the three types of BigTIFF.
_SIZES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1)) | {16: 8, 17: 8, 18: 8}
CHILDREN = (34665, 34853, 40965)
"""The tags that lead to directories of their own: EXIF, GPS and interoperability."""

_MOST_ENTRIES = 4096
_MOST_BYTES = 1 << 28  # of one value that is kept


class Entry(NamedTuple):
    """One entry: its type, the number of its values, and their bytes in the file's byte order."""

    kind: int
    values: int
    data: bytes


@dataclass(frozen=True)
class Directory:
    """Entries by their tag, and the directories that some tags lead to."""

    entries: Mapping[int, Entry] = field(default_factory=dict)
    children: Mapping[int, Directory] = field(default_factory=dict)

    def only(self, *tags: int) -> Directory:
        """The part with these tags."""
        return Directory(
            {tag: entry for tag, entry in self.entries.items() if tag in tags},
            {tag: child for tag, child in self.children.items() if tag in tags},
        )

    def without(self, tags: frozenset[int]) -> Directory:
        """The part without these tags."""
        return Directory(
            {tag: entry for tag, entry in self.entries.items() if tag not in tags}, self.children
        )

    def joined(self, other: Directory) -> Directory:
        """Both; of a tag that both have, the entry of this one."""
        return Directory({**other.entries, **self.entries}, {**other.children, **self.children})


class Form(NamedTuple):
    """How numbers are written: `order` is "<" or ">", `big` says BigTIFF."""

    order: Order
    big: bool

    @property
    def offset(self) -> str:
        """The format of an offset, for struct."""
        return f"{self.order}{'Q' if self.big else 'I'}"

    @property
    def first(self) -> int:
        """Where the offset of the first directory stands."""
        return 8 if self.big else 4

    @property
    def _count(self) -> str:
        return f"{self.order}{'Q' if self.big else 'H'}"

    @property
    def _inline(self) -> int:
        return 8 if self.big else 4

    def encoded(self, directory: Directory, place: int, following: int = 0) -> bytes:
        """The bytes of a directory that stands at `place`, its values and children behind it."""
        tags = sorted({*directory.entries, *directory.children})
        length = struct.calcsize(self._count) + len(tags) * (12 + 8 * self.big) + self._inline
        head, tail = [struct.pack(self._count, len(tags))], bytearray()
        for tag in tags:
            if len(tail) % 2:
                tail += b"\0"
            end = place + length + len(tail)
            if tag in directory.children:
                entry = Entry(LONG8 if self.big else LONG, 1, struct.pack(self.offset, end))
                tail += self.encoded(directory.children[tag], end)
            else:
                entry = directory.entries[tag]
            value = entry.data
            if len(value) > self._inline:
                tail += value
                value = struct.pack(self.offset, end)
            head.append(
                struct.pack(
                    f"{self.order}HH{self._count[1:].replace('H', 'I')}",
                    tag,
                    entry.kind,
                    entry.values,
                )
            )
            head.append(value.ljust(self._inline, b"\0"))
        return b"".join(head) + struct.pack(self.offset, following) + bytes(tail)

    def read(self, file: BinaryIO, place: int, *, depth: int = 0) -> tuple[Directory, int]:
        """Read the directory at `place`; returns it and the place of the next one, 0 if there is none.

        Entries that point outside the file are left out.
        """
        entries: dict[int, Entry] = {}
        children: dict[int, Directory] = {}
        file.seek(place)
        (count,) = self._unpacked(file, self._count)
        if count > _MOST_ENTRIES:
            raise ValueError(f"a directory of {count} entries")
        size = 12 + 8 * self.big
        head = file.read(count * size)
        following = file.read(self._inline)
        for i in range(len(head) // size):
            tag, kind, number = struct.unpack_from(
                f"{self.order}HH{'Q' if self.big else 'I'}", head, i * size
            )
            stored = head[(i + 1) * size - self._inline : (i + 1) * size]
            length = number * _SIZES.get(kind, 0)
            if not 0 < length <= _MOST_BYTES:
                continue
            if length > self._inline:
                file.seek(struct.unpack(self.offset, stored)[0])
                data = file.read(length)
            else:
                data = stored[:length]
            if len(data) != length:
                continue
            if tag in CHILDREN and kind in (LONG, _IFD, LONG8, _IFD8) and number == 1 and depth < 2:
                child = self._child(file, data, depth)
                if child is not None:
                    children[tag] = child
            elif tag not in CHILDREN:
                entries[tag] = Entry(kind, number, data)
        last = struct.unpack(self.offset, following)[0] if len(following) == self._inline else 0
        return Directory(entries, children), int(last)

    def check_chain(self, file: BinaryIO) -> None:
        """Raise ValueError if a directory states as the next one itself or one before it.

        The check ends where the chain leaves the file or breaks off; the reader reports such a chain later.
        If a directory is cut off, its last bytes count as the place of the next one, as in tifffile.
        """
        seen: set[int] = set()
        file.seek(self.first)
        stored = file.read(self._inline)
        while len(stored) == self._inline:
            (place,) = struct.unpack(self.offset, stored)
            if place in seen:
                raise ValueError("its directories form a loop")
            seen.add(place)
            file.seek(place)
            size = struct.calcsize(self._count)
            if place == 0 or len(head := file.read(size)) < size:
                return
            (count,) = struct.unpack(self._count, head)
            if count > _MOST_ENTRIES:
                return
            stored = file.read(count * (12 + 8 * self.big) + self._inline)[-self._inline :]

    def _child(self, file: BinaryIO, data: bytes, depth: int) -> Directory | None:
        place = int.from_bytes(data, "little" if self.order == "<" else "big")
        try:
            return self.read(file, place, depth=depth + 1)[0]
        except (struct.error, ValueError):
            return None

    @staticmethod
    def _unpacked(file: BinaryIO, form: str) -> tuple[int, ...]:
        return struct.unpack(form, file.read(struct.calcsize(form)))

    def number(self, entry: Entry) -> int:
        """The first value of a SHORT or LONG."""
        size = _SIZES[entry.kind]
        return int.from_bytes(entry.data[:size], "little" if self.order == "<" else "big")


def form_of(file: BinaryIO) -> Form:
    """The form of the numbers of a TIFF or of EXIF data."""
    file.seek(0)
    head = file.read(4)
    orders: dict[bytes, Order] = {b"II": "<", b"MM": ">"}
    order = orders.get(head[:2])
    if order is None or len(head) < 4:
        raise ValueError("it does not begin as a TIFF does")
    return Form(order, struct.unpack(f"{order}H", head[2:])[0] == 43)


def replace_directories(
    path: Path, directories: Iterable[Directory], *, keep: frozenset[int]
) -> None:
    """Replace the directories of a TIFF that was written, one after the other, but for the tags `keep`.

    The new directories stand at the end of the file.
    """
    with path.open("rb+") as file:
        form = form_of(file)
        link = form.first
        file.seek(link)
        (place,) = form._unpacked(file, form.offset)
        for added in directories:
            whole, following = form.read(file, place)
            own = whole.only(*keep)
            end = file.seek(0, 2)
            end += end % 2
            data = form.encoded(added.joined(own), end, following)
            file.seek(end)
            file.write(data)
            file.seek(link)
            file.write(struct.pack(form.offset, end))
            count = len({*own.entries, *own.children, *added.entries, *added.children})
            link = end + struct.calcsize(form._count) + count * (12 + 8 * form.big)
            place = following
