"""Zarr and OME-Zarr: the array of full resolution; attributes, labels and the storage of chunks are kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from graphnet.errors import DataError
from graphnet_denoise.images.families.npy import describe, levels_of, told
from graphnet_denoise.images.faults import load, unsupported
from graphnet_denoise.images.file import ImageFile, ImageSink
from graphnet_denoise.images.format import Format
from graphnet_denoise.images.layout import Layout, Samples, guessed

_ABOUT = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_CONSOLIDATED = ".zmetadata"  # repeats what lies beside the arrays, the lower resolutions included


class ZarrImage(ImageFile):
    """An open zarr array, or the full resolution of an OME-Zarr image.

    Attributes:
        array: zarr's array.
        inner: its path in the folder, "" if the folder is the array.
    """

    format = "zarr"
    title = "a zarr image"
    by_parts = True

    def __init__(self, path: Path) -> None:
        self.path = path
        zarr = load("zarr", extra="zarr", path=path)
        opened = zarr.open(path, mode="r")
        axes = ""
        self.inner = ""
        if isinstance(opened, zarr.Group):
            scales = _scales(dict(opened.attrs))
            if len(scales) != 1:
                raise unsupported(
                    path,
                    "an array, or an OME-Zarr with one image",
                    f"a group with {len(scales)} images ({', '.join(map(str, opened.keys()))})",
                    "Give the folder of an image or array inside it.",
                )
            self.inner = scales[0]["datasets"][0]["path"]
            axes = "".join(_letter(axis) for axis in scales[0].get("axes", "tczyx"))
            opened = opened[self.inner]
        elif opened.metadata.zarr_format == 3 and all(opened.metadata.dimension_names or [""]):
            axes = "".join(_letter(name) for name in opened.metadata.dimension_names)
        self.array = opened
        if self.array.dtype.kind not in "buif":
            raise unsupported(
                path, "an array of numbers", f"the type {self.array.dtype}", "Convert it."
            )
        if self.array.ndim < 2 or 0 in self.array.shape:
            raise unsupported(
                path, "an image (Y, X) or more", f"the shape {self.array.shape}", "Reshape it."
            )
        self.levels = levels_of(self.array.dtype)
        shape = tuple(int(size) for size in self.array.shape)
        known = len(axes) == len(set(axes)) == len(shape) and {"Y", "X"} <= set(axes)
        self.stated = known
        self.layout = Layout(axes, shape) if known else guessed(shape)
        describe(self)

    def set_axes(self, axes: str) -> None:
        """Say what the axes are, if the file does not."""
        if self.stated:
            super().set_axes(axes)
        self.layout = told(self.path, axes, self.shape)
        describe(self)

    def _samples(self, plane: int, rows: slice, columns: slice) -> Samples:
        return np.asarray(self.layout.read(self.array, plane, rows, columns), self.dtype)


class ZarrSink(ImageSink):
    """A zarr folder that is being written: chunks go to the disk at once."""

    def __init__(self, target: Path, source: ImageFile, array: Any) -> None:
        super().__init__(source, source.layout, source.levels)
        self._array = array

    def _put(self, plane: int, rows: slice, columns: slice, samples: Samples) -> None:
        self.layout.write(self._array, plane, rows, columns, samples)

    def _finish(self) -> None:
        pass


class Zarr(Format):
    """Folders of zarr, versions 2 and 3."""

    name = "zarr"
    title = "a zarr image"
    suffixes = (".zarr",)
    folder = True

    def matches(self, path: Path, head: bytes) -> bool:
        return path.is_dir() and any((path / name).is_file() for name in _ABOUT[:3])

    def open(self, path: Path) -> ImageFile:
        return ZarrImage(path)

    def writes_parts(self, source: ImageFile) -> bool:
        return True

    def create(self, target: Path, source: ImageFile, *, name: Path, history: str) -> ZarrSink:
        zarr = load("zarr", extra="zarr", path=name)
        if isinstance(source, ZarrImage):
            _copy_about(source, target)
            return ZarrSink(target, source, zarr.open_array(target / source.inner, mode="r+"))
        if source.alpha:
            raise DataError(
                f"{name}: a zarr image cannot hold alpha. Give a name that ends in .tif"
            )
        layout = source.layout
        inner = {"Y": 512, "X": 512, "C": layout.samples}
        chunks = tuple(min(inner.get(axis, 1), layout.size(axis)) for axis in layout.axes)
        array = zarr.create_array(
            store=str(target),
            shape=layout.shape,
            dtype=source.dtype,
            chunks=chunks,
            dimension_names=[axis.lower() for axis in layout.axes],
            overwrite=True,
        )
        return ZarrSink(target, source, array)


def _scales(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    """The images of an OME-Zarr group, of version 0.5 or older."""
    found = attributes.get("ome", attributes)
    scales = found.get("multiscales", []) if isinstance(found, dict) else []
    return scales if isinstance(scales, list) else []


def _letter(axis: object) -> str:
    name = axis.get("name", "") if isinstance(axis, dict) else axis
    return str(name)[:1].upper()


def _copy_about(source: ZarrImage, target: Path) -> None:
    """Copy everything but chunks of the image itself and its lower resolutions."""
    root = source.path
    if not source.inner:
        for name in _ABOUT:
            if (root / name).is_file():
                shutil.copyfile(root / name, target / name)
        return
    group = json.loads((root / "zarr.json").read_text()) if (root / "zarr.json").is_file() else {}
    levels = _level_paths(root, group)
    for entry in root.iterdir():
        if entry.name in levels or entry.name == _CONSOLIDATED:
            continue
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name)
        else:
            shutil.copyfile(entry, target / entry.name)
    array = target / source.inner
    array.mkdir(parents=True, exist_ok=True)
    for name in _ABOUT:
        if (root / source.inner / name).is_file():
            shutil.copyfile(root / source.inner / name, array / name)
    for name in ("zarr.json", ".zattrs"):
        if (target / name).is_file():
            about = json.loads((target / name).read_text())
            about.pop("consolidated_metadata", None)
            for scale in _scales(about.get("attributes", about)):
                scale["datasets"] = scale["datasets"][:1]
            (target / name).write_text(json.dumps(about, indent=2))


def _level_paths(root: Path, group: dict[str, Any]) -> set[str]:
    """The first parts of the paths of all resolutions."""
    attributes = group.get("attributes", {})
    if (root / ".zattrs").is_file():
        attributes = json.loads((root / ".zattrs").read_text())
    return {
        str(level["path"]).partition("/")[0]
        for scale in _scales(attributes)
        for level in scale["datasets"]
    }
