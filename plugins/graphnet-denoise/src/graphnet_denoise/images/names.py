"""Names: which names are those of images, and which of them are results of earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from graphnet_denoise.images.opening import formats, written_as

DENOISED = "-denoised"
"""The name of a result is that of its image with this behind it."""


@dataclass(frozen=True, slots=True)
class Names:
    """The endings of image files, in lower case.

    Args:
        endings: all of them.
        folders: those of images that are folders, such as .zarr.
        results: the ending of an image -> that of its result, for formats that are only read.
    """

    endings: tuple[str, ...]
    folders: tuple[str, ...] = ()
    results: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def known(cls) -> Self:
        """The endings of all formats; those that are only read come last."""
        known = sorted(formats(), key=lambda one: one.read_only)
        endings = dict.fromkeys(suffix for one in known for suffix in one.suffixes)
        folders = tuple(suffix for one in known if one.folder for suffix in one.suffixes)
        only_read = [one for one in known if one.read_only]
        results = {s: written_as(one).suffixes[0] for one in only_read for s in one.suffixes}
        return cls(tuple(endings), folders, results)

    def split(self, name: str) -> tuple[str, str]:
        """Split a name into its stem and its ending, both as they are written.

        >>> Names((".tif", ".png")).split("cells.OME.tif"), Names((".tif",)).split("notes.txt")
        (('cells', '.OME.tif'), ('notes', '.txt'))
        """
        lower = name.lower()
        known = max((e for e in self.endings if lower.endswith(e)), key=len, default=None)
        length = len(Path(name).suffix if known is None else known)
        stem, ending = name[: len(name) - length], name[len(name) - length :]
        if known is not None and stem.lower().endswith(".ome") and len(stem) > len(".ome"):
            stem, ending = stem[:-4], stem[-4:] + ending
        return stem, ending

    @property
    def some(self) -> str:
        """Some endings, for messages."""
        usual = [ending for ending in (".png", ".jpg", ".tif") if ending in self.endings]
        return f"{', '.join(usual or self.endings[:3])} or others"

    def is_image(self, name: str, *, folder: bool = False) -> bool:
        """Whether the name of a file, or of a folder, is that of an image.

        >>> names = Names((".tif", ".zarr"), (".zarr",))
        >>> names.is_image("a.TIF"), names.is_image("a.tif", folder=True)
        (True, False)
        """
        return name.lower().endswith(self.folders if folder else self.endings)


def earlier_results(paths: Sequence[Path], names: Names) -> set[Path]:
    """Those of the files that are results of earlier runs, whose images are among the files too.

    >>> files = [Path("a.tif"), Path("a-denoised.tif"), Path("b-denoised.tif")]
    >>> [str(file) for file in earlier_results(files, Names((".tif",)))]
    ['a-denoised.tif']
    """
    stems = {path: names.split(path.name)[0] for path in paths}
    known = {(path.parent, stem) for path, stem in stems.items()}
    return {
        path
        for path, stem in stems.items()
        if stem.endswith(DENOISED) and (path.parent, stem.removesuffix(DENOISED)) in known
    }
