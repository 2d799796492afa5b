"""Arrays as image files, so that they are learned from as the images of a folder are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from graphnet.errors import InputError
from graphnet.system import atomic_folder
from graphnet_denoise.arrays import check_dtype
from graphnet_denoise.axes import Axes


def write_arrays(folder: Path, arrays: Sequence[Any], axes: str | None) -> None:
    """Write arrays as TIFF files, in place of all that is in the folder; of alpha, nothing is learned.

    Args:
        folder: the folder.
        arrays: numpy, dask or torch arrays. The images of a dask array are computed one by one.
        axes: one letter for each of their axes, as for `denoise`; the files state them.

    Raises:
        InputError: an array is of another type or dtype, or the axes do not fit.
        WriteError: the files cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as aside:
        for number, array in enumerate(arrays, 1):
            _write(aside / f"{number:04}.tif", array, axes)


def _write(path: Path, given: Any, axes: str | None) -> None:
    array = _array(given)
    layout = Axes.of(axes, array.shape)
    check_dtype(array.dtype)
    letters = layout.letters
    outer = [letter for letter in letters if letter not in "YXS"]
    inner = [letter for letter in "YXS" if letter in letters]
    ordered = array.transpose([letters.index(letter) for letter in (*outer, *inner)])
    if "S" in letters:
        ordered = ordered[..., layout.groups(ordered.shape[-1], None)[0]]
        if ordered.shape[-1] == 1:
            ordered, inner = ordered[..., 0], ["Y", "X"]
    tifffile.imwrite(
        path,
        _pages(ordered, len(outer)),
        shape=ordered.shape,
        dtype=ordered.dtype,
        photometric="rgb" if "S" in inner else "minisblack",
        metadata={"axes": "".join((*outer, *inner))},
    )


def _array(given: Any) -> Any:
    """A numpy or dask array."""
    if isinstance(given, torch.Tensor):
        host = given.detach().cpu()
        return (host.float() if given.dtype == torch.bfloat16 else host).numpy()
    if isinstance(given, np.ndarray) or type(given).__module__.startswith("dask.array"):
        return given
    raise InputError(
        f"expected a folder, an image file, or arrays of numpy, dask or torch, found {type(given).__name__}."
    )


def _pages(array: Any, outer: int) -> Iterator[NDArray[Any]]:
    for index in np.ndindex(array.shape[:outer]):
        yield np.ascontiguousarray(array[index])
