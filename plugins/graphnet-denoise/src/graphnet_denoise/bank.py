"""Bank: all images of a folder or file, decoded once and held in memory, to cut patches from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet.errors import DataError
from graphnet_denoise.images import list_images, read_pixels
from graphnet_denoise.pairs import as_images, opened_arrays

Pixels = NDArray[Any]
"""(H, W, C): uint8, uint16, or float32 in 0..1."""

CLEAN = ("clean", "target")
NOISY = ("noisy", "input", "noisy1")
"""The names that single images may have in an .npz; the first that exists is taken."""

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in the luma (ITU-R BT.601), as in a JPEG and in Pillow."""


def read_bank(
    paths: Sequence[Path], *, keys: Sequence[str], channels: int | None, side: int
) -> list[Pixels]:
    """Read the images at `paths`, each a folder, or an .npz or .npy of (N, C, H, W), with equal channels.

    `keys` are the possible names of the array in an .npz. `channels` 1 or 3 makes all images grey or colour;
    None leaves grey images grey if there are no others. Images smaller than `side` are left out. Raises
    DataError if no image is left, for a damaged file, and for images that do not fit into the memory.
    """
    where = ", ".join(map(str, paths))
    try:
        images = [image for path in paths for image in _images(path, keys)]
        large = [image for image in images if min(image.shape[:2]) >= side]
        if not large:
            h, w, _ = max(images, key=lambda image: min(image.shape[:2])).shape
            raise DataError(
                f"{where}: expected images of at least {side} x {side} pixels, but the largest of "
                f"{len(images)} is {h} x {w}. Give larger images, or a smaller size."
            )
        wanted = channels or max(image.shape[2] for image in large)
        return [_with_channels(image, wanted, where) for image in large]
    except MemoryError as error:
        raise DataError(
            f"{where}: the images do not fit into the memory. Give fewer or smaller ones."
        ) from error


def in_grey(image: Pixels) -> Pixels:
    """Return the luma of an image (H, W, 3) as (H, W, 1); an image of one channel stays as it is."""
    if image.shape[2] == 1:
        return image
    grey = image @ np.array(LUMA, np.float32)
    return (grey if image.dtype == np.float32 else np.rint(grey)).astype(image.dtype)[..., None]


def _images(path: Path, keys: Sequence[str]) -> list[Pixels]:
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder. Give a folder of images, an .npz or an .npy that exists."
        )
    if path.is_dir():
        return [_as_hwc(read_pixels(file)) for file in list_images(path)]
    return [_as_hwc(image) for image in as_images(_array(path, keys), str(path)).numpy()]


def _as_hwc(image: NDArray[Any]) -> Pixels:
    return np.ascontiguousarray(image.transpose(1, 2, 0))


def _with_channels(image: Pixels, wanted: int, where: str) -> Pixels:
    found = image.shape[2]
    if found == wanted:
        return image
    if found == 1:
        return np.repeat(image, wanted, axis=2)
    if (found, wanted) == (3, 1):
        return in_grey(image)
    raise DataError(f"{where}: expected images of {wanted} channels or of 1, found {found}.")


def _array(path: Path, keys: Sequence[str]) -> NDArray[Any]:
    if path.suffix.lower() not in (".npz", ".npy"):
        raise DataError(
            f"{path}: expected a folder of images, an .npz or an .npy, found {path.suffix or path.name!r}."
        )
    with opened_arrays(path) as found:
        if isinstance(found, np.ndarray):
            return found
        for key in keys:
            if key in found:
                return np.asarray(found[key])
        raise DataError(
            f"{path}: expected an array called {' or '.join(keys)}; found "
            f"{', '.join(found.files) or 'none'}."
        )
