"""Open an image file of any format, and write one like it."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from graphnet.errors import DataError, GraphnetError
from graphnet.system import atomic_folder, atomic_write
from graphnet_denoise.images.families import BUILTIN
from graphnet_denoise.images.faults import reading, writing
from graphnet_denoise.images.file import ImageFile, ImageSink
from graphnet_denoise.images.format import HEAD_BYTES, Format
from graphnet_denoise.images.others import other_kind

KIND = "denoise_formats"
"""The kind for which other distributions register formats."""

_TIFF = next(known for known in BUILTIN if known.name == "tiff")

_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What has a name but no bytes of its own; reading may wait for ever."""


def open_image(path: Path, *, axes: str = "") -> ImageFile:
    """Open an image file and read its header; its first bytes, not its name, decide the format.

    Args:
        path: the file; a folder for zarr.
        axes: what the axes are, such as "TCYX", for a file that does not say it (.npy, plain zarr).

    Raises:
        DataError: the file, which the message names, is missing, damaged, or of no format that can be read.
    """
    source = _opened(path)
    if axes:
        try:
            source.set_axes(axes)
        except GraphnetError:
            source.close()
            raise
    return source


def _opened(path: Path) -> ImageFile:
    with reading(path, "an image"):
        head = b""
        mode = path.stat().st_mode
        if kind := _SPECIAL.get(stat.S_IFMT(mode)):
            raise DataError(f"{path}: expected the file of an image, found {kind}. Give a file.")
        if not stat.S_ISDIR(mode):
            with path.open("rb") as file:
                head = file.read(HEAD_BYTES)
    fitting = (known for known in BUILTIN if known.matches(path, head))
    chosen = next(fitting, None) or next(
        (known for known in _added() if known.matches(path, head)), None
    )
    if chosen is not None:
        with reading(path, chosen.title):
            return chosen.open(path)
    kind = other_kind(head)
    if kind:
        raise DataError(f"{path}: expected an image that can be read, found {kind}.")
    names = ", ".join(candidate.name for candidate in formats())
    found = "a folder" if path.is_dir() else "other data" if head else "an empty file"
    raise DataError(
        f"{path}: cannot be read as an image (expected one of {names}; found {found}). Replace or remove it."
    )


@contextlib.contextmanager
def create_like(target: Path, source: ImageFile, *, history: str = "") -> Iterator[ImageSink]:
    """Give the `with` block a file to write, with the axes, the kind of numbers and the metadata of `source`.

    `result_format` says in which format: that of the ending of `target`, if it has one. In the source's
    format, the result keeps everything; in another one, it keeps what that format can hold. The file appears
    under its name when the block ends, and not at all if the block raises an error.

    Args:
        target: the file to write; it may be the source itself.
        source: the open file whose pixels were changed.
        history: what was done, for formats that keep a history (FITS, MRC).

    Raises:
        DataError: the format cannot hold such pixels.
        WriteError: the file cannot be written; an older file is unchanged.
    """
    chosen = result_format(target, source)
    aside = atomic_folder if chosen.folder else atomic_write
    with aside(target) as temporary:
        with writing(target, chosen.title):
            sink = chosen.create(temporary, source, name=target, history=history)
        try:
            yield sink
            with writing(target, chosen.title):
                sink.finish()
        finally:
            sink.close()


def result_format(target: Path, source: ImageFile) -> Format:
    """The format in which `create_like(target, source)` writes.

    It is the one of the target's ending; the source's, if it has that ending too. A name without an ending,
    or with one of no format that the source's own name has too, gets the source's format, or TIFF if that is
    only read.

    Raises DataError for another name that has the ending of no format.
    """
    ending = target.suffix.lower()
    fitting = [known for known in BUILTIN if ending in known.suffixes]
    if source.format not in {known.name for known in fitting}:
        fitting += [known for known in _added() if ending in known.suffixes]
    if not fitting and ending in ("", source.path.suffix.lower()):
        fitting = [written_as(known) for known in formats() if known.name == source.format]
    if not fitting:
        endings = ", ".join(end for one in formats() if not one.read_only for end in one.suffixes)
        raise DataError(
            f"{target}: expected a name that ends in one of {endings}, found "
            f"{target.suffix or 'no ending'!r}."
        )
    return next((known for known in fitting if known.name == source.format), fitting[0])


def written_as(known: Format) -> Format:
    """The format of results for files of a format, unless another one is asked for: the same, or TIFF."""
    return _TIFF if known.read_only else known


def formats() -> Sequence[Format]:
    """All formats: those of this distribution, then those that other distributions added."""
    return [*BUILTIN, *_added()]


def _added() -> Sequence[Format]:
    """The formats that other distributions added."""
    from graphnet.sdk import default_registry  # imports torch, which takes two seconds

    builtin = {known.name for known in BUILTIN}
    entries = default_registry().of_kind(KIND)
    return [entry.value() for name, entry in entries.items() if name not in builtin]
