"""Pairs of images from files: .npz and .npy arrays, and two folders of images with equal names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet.errors import DataError
from graphnet.sdk import DataSet, Pairs
from graphnet_denoise.images import Pixels, as_unit, list_images, read_pixels
from graphnet_denoise.wording import some

NAMES = (("noisy", "clean"), ("input", "target"), ("noisy1", "noisy2"))
"""The names that inputs and targets may have, as keys of an .npz or as folders."""

_SUFFIXES = (".npz", ".npy", ".pkl")
_BRIGHTEST_MEAN = 1.0  # a mean above it cannot belong to images in 0..1, noisy as they may be


class PairFiles(DataSet):
    """Pairs from an .npz or .npy file, or from two folders of images with equal names.

    uint8 stays uint8; uint16 becomes floating point in 0..1. Floating-point arrays must lie in 0..1.

    Attributes:
        path: an .npz with two arrays (N, C, H, W) called noisy and clean, input and target, or noisy1 and
            noisy2; an .npy of shape (N, 2, C, H, W); or a folder with two folders of these names, which hold
            images of one size with equal names.
    """

    path: str

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether the path ends with .npz, .npy (or .pkl, for an error with advice), or has two folders."""
        if path.is_dir():
            return _halves(path) is not None
        return path.suffix.lower() in _SUFFIXES

    def load(self) -> Pairs:
        """Read inputs and targets. Raises DataError, which names the file and what was expected in it."""
        path = Path(self.path)
        if path.is_dir():
            return _read_folders(path)
        match path.suffix.lower():
            case ".npz":
                inputs, targets = _read_npz(path)
            case ".npy":
                inputs, targets = _read_npy(path)
            case ".pkl":
                raise DataError(
                    f"{path}: a pickle can run code, so it is not read as data. Convert it once: "
                    f"graphnet convert-pairs {path} {path.with_suffix('.npz')}"
                )
            case _:
                raise DataError(
                    f"{path}: expected pairs as .npz, .npy or a folder, found {path.suffix!r}."
                )
        return as_pairs(inputs, targets, where=str(path))


def as_pairs(inputs: NDArray[Any], targets: NDArray[Any], *, where: str) -> Pairs:
    """Check two arrays (N, C, H, W) of one shape, and make Pairs of them; messages start with `where`.

    >>> pixels = np.zeros((1, 3, 4, 4), np.uint8)
    >>> as_pairs(pixels, pixels, where="here").inputs.shape
    torch.Size([1, 3, 4, 4])
    """
    first, second = as_images(inputs, f"{where}: inputs"), as_images(targets, f"{where}: targets")
    return _paired(first, second, where)


def _paired(inputs: Tensor, targets: Tensor, where: str) -> Pairs:
    if inputs.shape != targets.shape:
        raise DataError(
            f"{where}: expected inputs and targets of one shape, found {tuple(inputs.shape)} and "
            f"{tuple(targets.shape)} (N, C, H, W). Make them equal."
        )
    if inputs.dtype != targets.dtype:  # one is uint8, the other floating point
        inputs, targets = (
            half if half.is_floating_point() else half.float() / 255 for half in (inputs, targets)
        )
    return Pairs(inputs, targets)


def as_images(array: NDArray[Any], where: str) -> Tensor:
    """Check an array (N, C, H, W), and return it as uint8 or float32 in 0..1; messages start with `where`."""
    if array.ndim != 4 or 0 in array.shape:
        raise DataError(
            f"{where}: expected arrays (N, C, H, W) of at least one pixel, found {array.shape}. "
            f"Grey images need their channel axis: array[:, None]."
        )
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    if array.dtype == np.uint16:
        return torch.from_numpy(as_unit(array))
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise DataError(
            f"{where}: expected uint8, uint16 or floating point, found {array.dtype}. Convert "
            f"them, such as array.astype('uint8')."
        )
    values = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"{where}: expected finite numbers, found NaN or infinity.")
    if (mean := float(values.mean(dtype=np.float64))) > _BRIGHTEST_MEAN:
        raise DataError(
            f"{where}: expected floating point in 0..1, found a mean of {mean:.4g}. Divide by the "
            f"largest value (255 for 8 bits), or store uint8."
        )
    return torch.from_numpy(values)


def _read_npz(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    with opened_arrays(path) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(
                f"{path}: expected a zip of arrays, found a single one. Rename it to .npy."
            )
        for first, second in NAMES:
            if first in archive and second in archive:
                return np.asarray(archive[first]), np.asarray(archive[second])
        raise DataError(
            f"{path}: expected arrays called {_options()}; found "
            f"{', '.join(archive.files) or 'none'}."
        )


def _read_npy(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    with opened_arrays(path) as array:
        if not isinstance(array, np.ndarray):
            raise DataError(
                f"{path}: expected one array, found a zip of several. Rename it to .npz."
            )
        if array.ndim != 5 or array.shape[1] != 2:
            raise DataError(f"{path}: expected an array (N, 2, C, H, W), found {array.shape}.")
        return array[:, 0], array[:, 1]


@contextlib.contextmanager
def opened_arrays(path: Path) -> Iterator[Any]:
    """Open a file with numpy.load; any error of reading it inside the block becomes a DataError."""
    try:
        with open(path, "rb") as file:  # opened here, since numpy leaves the file of a bad zip open
            yield np.load(file, allow_pickle=False)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file.") from error
    except Exception as error:  # damaged headers, zips and sizes raise a dozen kinds
        reason = str(error).split("\n", 1)[0].removesuffix(".") or type(error).__name__
        raise DataError(
            f"{path}: cannot be read as numpy arrays of numbers ({reason}). The file is damaged, "
            f"truncated or of another kind; write it again with numpy.savez or numpy.save."
        ) from error


def _halves(folder: Path) -> tuple[Path, Path] | None:
    for first, second in NAMES:
        if (folder / first).is_dir() and (folder / second).is_dir():
            return folder / first, folder / second
    return None


def _read_folders(folder: Path) -> Pairs:
    halves = _halves(folder)
    if halves is None:
        raise DataError(f"{folder}: expected two folders of images in it, called {_options()}.")
    first, second = (list_images(half) for half in halves)
    alone = sorted({path.name for path in first} ^ {path.name for path in second})
    if alone:
        raise DataError(
            f"{folder}: expected the same names in {halves[0].name} and {halves[1].name}, but "
            f"{len(alone)} are in one only: {some(alone)}. Add or remove them."
        )
    return _paired(_stack(first), _stack(second), str(folder))


def _stack(paths: Sequence[Path]) -> Tensor:
    """Stack images of one size as (N, C, H, W): grey if all are grey, floating point if one has 16 bits."""
    first = read_pixels(paths[0])
    found = [first, *(_fitting(path, first) for path in paths[1:])]
    channels = max(len(pixels) for pixels in found)
    deep = any(pixels.dtype == np.uint16 for pixels in found)
    images = [torch.from_numpy(as_unit(pixels) if deep else pixels) for pixels in found]
    return torch.stack([image.expand(channels, -1, -1) for image in images])


def _fitting(path: Path, first: Pixels) -> Pixels:
    pixels = read_pixels(path)
    if pixels.shape[1:] != first.shape[1:]:
        expected, size = (f"{one.shape[1]} x {one.shape[2]}" for one in (first, pixels))
        raise DataError(
            f"{path}: expected {expected} pixels as in the folder's first image, found {size}. Crop all "
            f"images to one size."
        )
    return pixels


def _options() -> str:
    return ", or ".join(f"{first} and {second}" for first, second in NAMES)
