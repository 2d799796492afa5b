"""Arrays: denoise images that are in memory, or that dask will compute, in one line of Python.

    from graphnet_denoise import denoise
    clean = denoise(noisy)                                         # numpy or torch, (Y, X) or (Y, X, colour)
    clean = denoise(movie, axes="TYX", model="run/model.safetensors")

numpy, dask and torch arrays come back as such, with their dtype, shape and range.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

import graphnet
from graphnet.errors import InputError
from graphnet_denoise.axes import Axes
from graphnet_denoise.levels import Levels, as_dtype, check_dtype, find_levels, given_levels
from graphnet_denoise.restoring import Denoiser, Restorer
from graphnet_denoise.shipped import BLIND

ArrayT = TypeVar("ArrayT")
Extremes = NDArray[Any]
"""The lowest and the highest value of each group of channels: (groups, 2)."""

_ONE_AT_A_TIME = threading.Lock()  # a prediction uses all processors and the memory that it may use


@dataclass(frozen=True, slots=True)
class Settings:
    """How arrays are denoised: what `denoise` was given, but for the array and its axes."""

    model: Path | Denoiser
    strength: float
    noise_level: float | None
    levels: Levels | None
    self_ensemble: bool
    device: str
    memory: str

    def restorer(self) -> Restorer:
        """The model, loaded once for each file and process."""
        if not isinstance(self.model, Path):
            return _restorer(self.model, self.self_ensemble, self.device, self.memory)
        changed = self.model.stat().st_mtime_ns if self.model.exists() else 0
        return _loaded(self.model, changed, self.self_ensemble, self.device, self.memory)


def denoise(
    array: ArrayT,
    axes: str | None = None,
    *,
    model: str | Path | Denoiser | None = None,
    strength: float = 1.0,
    noise_level: float | None = None,
    value_range: tuple[float, float] | None = None,
    self_ensemble: bool = False,
    device: str = "auto",
    memory: str = "2GiB",
) -> ArrayT:
    """Denoise an array of images, and return one of the same type, dtype and shape.

    Args:
        array: a numpy, dask or torch array of integers or floating-point numbers. A dask array is denoised
            when it is computed, image by image; its images (Y, X and channels) become one chunk each.
        axes: one letter for each axis: T time, C channels, Z depth, Y rows, X columns, S samples of a colour
            (alpha stays as it is). Channels are denoised together if the model takes as many, else one by
            one. None guesses (Y, X) and (Y, X, 3 or 4 samples).
        model: a file that `graphnet train` wrote, or a graphnet.Model with weights. None is the model that
            is shipped with graphnet-denoise, for photos.
        strength: how much of the noise to remove, 0..1: array + strength (denoised - array).
        noise_level: the standard deviation of the noise in 255ths of the range from black to white, for a
            model that takes it as an input.
        value_range: the values that are black and white. None finds them from the dtype and the values, for
            all images together: see graphnet_denoise.levels.find_levels.
        self_ensemble: take the mean over 8 flips and turns: somewhat better, in 8 times the time.
        device: where the model runs: "auto" (a GPU if there is one), "cpu" or "cuda".
        memory: a bound on the model's memory; larger images run in tiles, with the same result.

    Returns:
        the denoised images; integers are rounded. A torch tensor is on the device of `array`.

    Raises:
        InputError: the array is of another type, holds truth values or numbers that are not finite; or the
            axes or another argument do not fit.
        DataError: the model does not fit the images.
        CheckpointError: the model cannot be read, or has no weights.

    >>> noisy = np.random.default_rng(0).integers(90, 110, (2, 24, 32), dtype=np.uint8)
    >>> clean = denoise(noisy, axes="TYX")
    >>> clean.dtype, clean.shape, bool(clean.std() < noisy.std() / 2)
    (dtype('uint8'), (2, 24, 32), True)
    """
    if not 0 <= strength <= 1:
        raise InputError(f"strength: expected a number between 0 and 1, found {strength!r}.")
    settings = Settings(
        model=Path(model) if isinstance(model, str) else BLIND if model is None else model,
        strength=float(strength),
        noise_level=noise_level,
        levels=None if value_range is None else given_levels(value_range),
        self_ensemble=self_ensemble,
        device=device,
        memory=memory,
    )
    result: Any
    if _is_dask(array):
        result = _dask(array, axes, settings)
    elif isinstance(array, torch.Tensor):
        result = _torch(array, axes, settings)
    elif isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray):
        result = _numpy(array, axes, settings)
    else:
        kind = f"{type(array).__module__}.{type(array).__qualname__}"
        raise InputError(
            f"expected a numpy, dask or torch array, found {kind}. Convert it, for example with "
            f"numpy.asarray; a masked array needs values in place of the mask, as .filled(0) gives."
        )
    return cast(ArrayT, result)


def denoise_graphnet(
    image: Any,
    *,
    model: str | Path | Denoiser | None = None,
    strength: float = 1.0,
    preserve_range: bool = False,
    channel_axis: int | None = None,
) -> NDArray[Any]:
    """Denoise an image with a network, by the conventions of skimage.restoration.

    Args:
        image: (Y, X), (Z, Y, X) or (T, Z, Y, X), with one more axis if `channel_axis` is given. Integers are
            converted by skimage.util.img_as_float, to 0..1 or -1..1; floats keep their range.
        model: a file with weights, a graphnet.Model, or None for the model that is shipped.
        strength: how much of the noise to remove, 0..1.
        preserve_range: keep the values of integers, and return them as floats.
        channel_axis: the axis of the channels; None for a grey image. The three channels of a colour image
            are denoised together.

    Returns:
        the denoised image, of the same shape: float32 for float16 and float32, else float64.

    Raises what `denoise` raises.

    >>> image = np.full((16, 16), 128, np.uint8)
    >>> denoise_graphnet(image).dtype, denoise_graphnet(image, preserve_range=True).round().max()
    (dtype('float64'), np.float64(128.0))
    """
    from skimage.util import img_as_float  # it takes a second to import

    image = np.asarray(image)
    values: NDArray[Any]
    check_dtype(image.dtype)
    spatial = image.ndim - (channel_axis is not None)
    if not 2 <= spatial <= 4:
        raise InputError(
            f"expected an image of 2 to 4 axes beside channel_axis, found {image.shape} with "
            f"channel_axis={channel_axis}."
        )
    extremes = find_levels(image.dtype, *_extremes(image)) if image.size else Levels(0, 1)
    value_range = (extremes.black, extremes.white)
    if image.dtype.kind == "f" or preserve_range:
        narrow = image.dtype in (np.float16, np.float32)
        values = image.astype(np.float32 if narrow else np.float64)
    else:
        values = img_as_float(image)  # type: ignore[no-untyped-call]
        scale = float(np.iinfo(image.dtype).max)
        value_range = (extremes.black / scale, extremes.white / scale)
    axes = "TZYX"[-spatial:]
    if channel_axis is not None:
        values = np.moveaxis(values, channel_axis, 0)
        axes = f"C{axes}"
    clean: NDArray[Any] = denoise(
        values, axes, model=model, strength=strength, value_range=value_range
    )
    return clean if channel_axis is None else np.moveaxis(clean, 0, channel_axis)


def blended(noisy: NDArray[Any], clean: NDArray[Any], strength: float) -> NDArray[Any]:
    """Return noisy + strength (clean - noisy): all noise for 0, the denoised image for 1."""
    result: NDArray[Any] = noisy + strength * (clean - noisy)
    return result


def _numpy(array: NDArray[Any], axes: str | None, settings: Settings) -> NDArray[Any]:
    layout = Axes.of(axes, array.shape)
    check_dtype(array.dtype)
    return _denoised(array, layout, settings, _find_extremes(array, layout, settings))


def _torch(tensor: torch.Tensor, axes: str | None, settings: Settings) -> torch.Tensor:
    host = tensor.detach().cpu()
    wide = host.float() if tensor.dtype == torch.bfloat16 else host  # numpy has no bfloat16
    found = torch.from_numpy(_numpy(wide.numpy(), axes, settings))
    return found.to(device=tensor.device, dtype=tensor.dtype)


def _dask(array: Any, axes: str | None, settings: Settings) -> Any:
    """A dask array that denoises each chunk of whole images; the model is loaded now, and once."""
    from dask.delayed import delayed

    layout = Axes.of(axes, array.shape)
    check_dtype(array.dtype)
    extremes = _find_extremes(array, layout, settings)
    whole = {position: -1 for position, letter in enumerate(layout.letters) if letter in "CSYX"}
    chunk = partial(_denoised, layout=layout, settings=settings)
    kept = extremes if isinstance(extremes, np.ndarray) else delayed(np.asarray)(extremes)
    return array.rechunk(whole).map_blocks(
        chunk, dtype=array.dtype, meta=np.empty((0,) * array.ndim, array.dtype), extremes=kept
    )


def _find_extremes(array: Any, layout: Axes, settings: Settings) -> Any:
    """The Extremes of a numpy array, or those that dask will compute; where nobody reads them, zeros."""
    images = layout.images(array)
    groups = layout.groups(images.shape[-3], _taken(settings))
    if settings.levels is not None or array.dtype == np.uint8 or array.size == 0:
        return np.zeros((len(groups), 2))
    pairs = [_extremes(images[..., group, :, :]) for group in groups]
    if isinstance(array, np.ndarray):
        return np.array(pairs)
    from dask.array import stack

    stacked: Any = stack
    return stacked([stacked(pair) for pair in pairs])


def _extremes(array: Any) -> tuple[Any, Any]:
    return array.min(), array.max()


def _taken(settings: Settings) -> int | None:
    """How many channels of an image the model takes, None for any."""
    taken = settings.restorer().model.input_channels
    return taken - (settings.noise_level is not None) if taken else None


def _denoised(
    array: NDArray[Any], layout: Axes, settings: Settings, extremes: Extremes
) -> NDArray[Any]:
    """Denoise all images of an array, one after the other."""
    result = array.copy()  # of alpha, this is all
    images, found = layout.images(array), layout.images(result)
    groups = layout.groups(images.shape[-3], _taken(settings))
    restorer = settings.restorer()
    for group, pair in zip(groups, extremes, strict=True):
        levels = settings.levels or _own_levels(restorer, array, pair)
        for index in np.ndindex(images.shape[:-3]):
            pixels = images[(*index, group)]
            if pixels.size:
                found[(*index, group)] = _restored(pixels, restorer, settings, levels)
    return result


def _own_levels(restorer: Restorer, array: NDArray[Any], extremes: Extremes) -> Levels:
    """The levels of an array; a model that knows its range gets the values as they are."""
    if restorer.takes_numbers:
        return Levels(0.0, 1.0)
    return find_levels(array.dtype, *extremes.tolist())


def _restored(
    pixels: NDArray[Any], restorer: Restorer, settings: Settings, levels: Levels
) -> NDArray[Any]:
    """Denoise one image (C, Y, X)."""
    image = torch.from_numpy(levels.to_unit(pixels))
    with _ONE_AT_A_TIME:
        clean = restorer.restore(image[None], noise_level=settings.noise_level)[0].cpu().numpy()
    values = levels.from_unit(clean, pixels.dtype)
    return as_dtype(blended(pixels.astype(values.dtype), values, settings.strength), pixels.dtype)


@lru_cache(maxsize=4)
def _loaded(path: Path, changed: int, self_ensemble: bool, device: str, memory: str) -> Restorer:
    return _restorer(graphnet.load(path), self_ensemble, device, memory)


def _restorer(model: Denoiser, self_ensemble: bool, device: str, memory: str) -> Restorer:
    options = graphnet.CompileOptions(device=device, memory=memory)
    return Restorer.of(model, options=options, self_ensemble=self_ensemble)


def _is_dask(array: object) -> TypeGuard[Any]:
    """Whether it is a dask array; dask is not imported for that: without it, there is none."""
    module = sys.modules.get("dask.array")
    return module is not None and isinstance(array, module.Array)
