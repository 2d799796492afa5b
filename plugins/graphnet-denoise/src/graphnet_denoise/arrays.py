"""Arrays: denoise images that are in memory, or that dask will compute, in one line of Python.

    from graphnet_denoise import denoise
    clean = denoise(noisy)                                         # numpy or torch, (Y, X) or (Y, X, colour)
    clean = denoise(movie, axes="TYX", model="run/model.safetensors")

numpy, dask and torch arrays come back as such, with their dtype, shape and range.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

import graphnet
from graphnet.errors import InputError
from graphnet_denoise.axes import Axes
from graphnet_denoise.images import Levels
from graphnet_denoise.models import Kind, Noise
from graphnet_denoise.ranges import Range, find_range, is_known, own_numbers, split_extremes
from graphnet_denoise.restoring import Denoiser, Restorer, Settings
from graphnet_denoise.shipped import Shipped

ArrayT = TypeVar("ArrayT")

_SAMPLE = 512  # the side of the part of an image from which its noise is measured
_NUMBERS = 1 << 20  # so many numbers of an array, at most, decide on its range


@dataclass(frozen=True, slots=True)
class Request:
    """How arrays are denoised: what `denoise` was given, but for the array and its axes."""

    model: Path | Restorer | None  # None chooses one of those that are shipped
    noise: Noise
    noise_level: float | None
    range: Range | None  # None finds it
    settings: Settings

    @property
    def channels(self) -> int | None:
        """How many channels of an image the model takes, None for any."""
        if self.model is None:  # all models that are shipped take the same
            kind: Kind = "gaussian" if self.noise == "auto" else self.noise
            taken = _shipped(self.noise, self.settings).model(kind).input_channels
        else:
            taken = self.restorer().model.input_channels
        return taken - (self.noise_level is not None) if taken else None

    @property
    def takes_numbers(self) -> bool:
        """Whether the model gets the numbers as they are, since it knows the range of its images."""
        return self.model is not None and self.restorer().takes_numbers

    def restorer(self, sample: NDArray[np.float32] | None = None) -> Restorer:
        """The model, loaded once for each file and process; `sample` (C, H, W) is an image to choose for."""
        if self.model is None:
            assert sample is not None
            return _shipped(self.noise, self.settings).choose(torch.from_numpy(sample)).restorer
        if isinstance(self.model, Restorer):
            return self.model
        try:
            changed = self.model.stat().st_mtime_ns
        except (OSError, ValueError):  # loading says why it cannot be read
            changed = 0
        return _loaded(self.model, changed, self.settings)


def denoise(
    array: ArrayT,
    axes: str | None = None,
    *,
    model: str | Path | Denoiser | None = None,
    noise: Noise = "auto",
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
        axes: one letter for each axis: T time, C channels, Z depth, I images of any order, Y rows, X columns,
            S samples of a colour (alpha stays as it is). Channels are denoised together if the model takes as
            many, else one by one. None guesses (Y, X) and (Y, X, 3 or 4 samples).
        model: a file that `graphnet train` or `graphnet learn` wrote, or a graphnet.Model with weights. None
            is one of the included models.
        noise: which of these: the one for noise of a "camera", or for "gaussian" noise, which is independent
            from pixel to pixel. "auto" measures the noise of one image for all.
        strength: how much of the noise to remove, 0..1: array + strength (denoised - array).
        noise_level: the standard deviation of the noise in 255ths of the range from black to white, for a
            model that takes it as an input.
        value_range: the values that are black and white. None finds them from the dtype and the values, for
            all images together: see graphnet_denoise.ranges.find_range.
        self_ensemble: take the mean over 8 flips and turns: somewhat better, in 8 times the time.
        device: where the model runs: "auto" (a GPU if there is one), "cpu" or "cuda".
        memory: a bound on the model's memory; larger images run in tiles, with the same result.

    Returns:
        the denoised images; integers are rounded. NaN and infinity stay where they are. A torch tensor is on
        the device of `array`.

    Raises:
        InputError: the array is of another type, or holds truth values or complex numbers; or the axes or
            another argument do not fit.
        DataError: the model does not fit the images.
        CheckpointError: the model cannot be read, or has no weights.

    >>> noisy = np.random.default_rng(0).integers(90, 110, (2, 24, 32), dtype=np.uint8)
    >>> clean = denoise(noisy, axes="TYX")
    >>> clean.dtype, clean.shape, bool(clean.std() < noisy.std() / 2)
    (dtype('uint8'), (2, 24, 32), True)
    """
    settings = _settings(strength, self_ensemble, device, memory)
    request = Request(_found(model, settings), noise, noise_level, None, settings)
    _check_noise(request)
    if value_range is not None:
        if request.takes_numbers:
            raise InputError(
                "value_range: the model knows the range of its images, as models of `graphnet learn` do. "
                "Leave it out, and give the numbers of the files."
            )
        request = replace(request, range=_given(value_range))
    result: Any
    if _is_dask(array):
        result = _dask(array, axes, request)
    elif isinstance(array, torch.Tensor):
        result = _torch(array, axes, request)
    elif isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray):
        result = _numpy(array, axes, request)
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
            converted to 0..1 or -1..1, as by skimage.util.img_as_float; floats keep their range.
        model: a file with weights, a graphnet.Model, or None for the model that is shipped.
        strength: how much of the noise to remove, 0..1.
        preserve_range: keep the values of integers, and return them as floats.
        channel_axis: the axis of the channels; None for a grey image. The three channels of a colour image
            are denoised together.

    Returns:
        the denoised image, of the same shape: float32 for float16 and float32, else float64. If all values
        before lie in 0..1, or in -1..1, those of the result do too, as skimage's functions expect.

    Raises what `denoise` raises.

    >>> image = np.full((16, 16), 128, np.uint8)
    >>> clean, same_range = denoise_graphnet(image), denoise_graphnet(image, preserve_range=True)
    >>> clean.dtype, round(clean.mean(), 1), round(same_range.mean() / 255, 1)
    (dtype('float64'), np.float64(0.5), np.float64(0.5))
    """
    settings = _settings(strength)
    _check_flag("preserve_range", preserve_range)
    image = np.asarray(_dense(image))
    check_dtype(image.dtype)
    spatial = image.ndim - (channel_axis is not None)
    if not 2 <= spatial <= 4:
        raise InputError(
            f"expected an image of 2 to 4 axes beside channel_axis, found {image.shape} with "
            f"channel_axis={channel_axis!r:.80}."
        )
    if channel_axis is not None and not _is_axis(channel_axis, image.ndim):
        raise InputError(
            f"channel_axis: expected an axis of {image.shape}, which are 0 to {image.ndim - 1}, found "
            f"{channel_axis!r:.80}."
        )
    integers = image.dtype.kind != "f"
    narrow = image.dtype in (np.float16, np.float32)
    values: NDArray[Any] = image.astype(np.float32 if narrow else np.float64)
    axes = "TZYX"[-spatial:]
    if channel_axis is not None:
        values = np.moveaxis(values, channel_axis, 0)
        axes = f"C{axes}"
    own = find_range(_numbers(image), Levels.of(image.dtype))
    request = Request(_found(model, settings), "auto", None, own, settings)
    clean = _numpy(values, axes, request)
    if integers and not preserve_range:
        white = np.iinfo(image.dtype).max
        values, clean = values / white, clean / white
    lowest, highest = (values.min(), values.max()) if values.size else (0, 0)
    if lowest >= -1 and highest <= 1:
        clean = clean.clip(0 if lowest >= 0 else -1, 1)
    return clean if channel_axis is None else np.moveaxis(clean, 0, channel_axis)


def _settings(
    strength: float, self_ensemble: bool = False, device: str = "auto", memory: str = "2GiB"
) -> Settings:
    if not isinstance(strength, Real) or not 0 <= strength <= 1:
        raise InputError(f"strength: expected a number between 0 and 1, found {strength!r:.80}.")
    _check_flag("self_ensemble", self_ensemble)
    options = graphnet.CompileOptions(device=device, memory=memory)
    return Settings(options, self_ensemble, float(strength))


def _check_flag(name: str, value: object) -> None:
    """Raise InputError for anything but True and False."""
    if not isinstance(value, bool):
        raise InputError(f"{name}: expected True or False, found {value!r:.80}.")


def _is_axis(axis: object, count: int) -> bool:
    return isinstance(axis, Integral) and -count <= int(axis) < count


def _dense(array: Any) -> Any:
    """The array. Raises InputError for a sparse torch tensor, which is no image."""
    if isinstance(array, torch.Tensor) and array.layout != torch.strided:
        raise InputError("expected an image, found a sparse tensor. Convert it: image.to_dense().")
    return array


def _check_noise(request: Request) -> None:
    """Raise InputError for a kind of noise that does not exist, or a level that no model takes."""
    kinds = get_args(Noise)[:1] + get_args(Kind)
    if not isinstance(request.noise, str) or request.noise not in kinds:
        raise InputError(f"noise: expected {', '.join(kinds)}, found {request.noise!r:.80}.")
    if request.model is None and request.noise_level is not None:
        raise InputError(
            "noise_level: it is for a model that takes the noise level as an input. The included models do "
            "not need it. Leave it out, or give a model."
        )


def _found(model: str | Path | Denoiser | None, settings: Settings) -> Path | Restorer | None:
    """What Request takes as a model."""
    if model is None:
        return None
    if isinstance(model, str | Path):
        return Path(model)
    if not isinstance(model, Denoiser):
        raise InputError(f"model: expected a file or a graphnet.Model, found {model!r:.80}.")
    return Restorer.of(model, settings)


def _given(value_range: tuple[float, float]) -> Range:
    """The range that a user states. Raises InputError unless black is below white."""
    try:
        black, white = map(float, value_range)
    except (TypeError, ValueError):
        black = white = math.nan
    if not (math.isfinite(black) and math.isfinite(white) and black < white):
        raise InputError(
            f"value_range: expected two numbers, black and a larger white, found {value_range!r}."
        )
    return Range(black, white)


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Raise InputError unless the dtype holds integers or floating-point numbers."""
    if dtype.kind == "b":
        raise InputError(
            "the image is of truth values (bool), which have no noise that a denoiser could remove. Give "
            "the grey values from which it was made, or convert it: image.astype('float32')."
        )
    if dtype.kind not in "iuf":
        raise InputError(
            f"expected an image of integers or floating-point numbers, found {dtype.name}. Convert it first."
        )


def _numpy(array: NDArray[Any], axes: str | None, request: Request) -> NDArray[Any]:
    layout = Axes.of(axes, array.shape)
    check_dtype(array.dtype)
    looks = [
        (_range(part, array.dtype, request), sample)
        for part, sample in _parts(array, layout, request)
    ]
    return _denoised(array, layout, request, looks)


def _torch(tensor: torch.Tensor, axes: str | None, request: Request) -> torch.Tensor:
    host = _dense(tensor).detach().cpu()
    wide = host.float() if tensor.dtype == torch.bfloat16 else host  # numpy has no bfloat16
    found = torch.from_numpy(_numpy(wide.numpy(), axes, request))
    return found.to(device=tensor.device, dtype=tensor.dtype)


def _dask(array: Any, axes: str | None, request: Request) -> Any:
    """A dask array that denoises each chunk of whole images; the model is loaded once."""
    from dask.delayed import delayed

    layout = Axes.of(axes, array.shape)
    check_dtype(array.dtype)
    found = delayed(_range, pure=True)
    looks = [
        (found(part, array.dtype, request), delayed(np.asarray)(sample))
        for part, sample in _parts(array, layout, request)
    ]
    whole = {position: -1 for position, letter in enumerate(layout.letters) if letter in "CSYX"}
    return array.rechunk(whole).map_blocks(
        partial(_denoised, layout=layout, request=request),
        dtype=array.dtype,
        meta=np.empty((0,) * array.ndim, array.dtype),
        looks=looks,
    )


def _parts(array: Any, layout: Axes, request: Request) -> list[tuple[Any, Any]]:
    """What decides on the range and on the model of each group of channels, as numpy's or dask's arrays.

    The first is of some numbers of all images, or empty if the range is known without them; the second is a
    part of one image, or empty if the model is given.
    """
    images = layout.images(array)
    known = request.range is not None or is_known(Levels.of(array.dtype))
    middle = tuple(size // 2 for size in images.shape[:-3]) if array.size else ()
    parts: list[tuple[Any, Any]] = []
    for group in layout.groups(images.shape[-3], request.channels):
        part = images[..., group, :, :]
        numbers = np.zeros(0, array.dtype) if known else _numbers(part)
        chosen_for = request.model is None and array.size > 0
        sample = part[middle][..., :_SAMPLE, :_SAMPLE] if chosen_for else np.zeros((1, 0, 0))
        parts.append((numbers, sample))
    return parts


def _numbers(array: Any) -> Any:
    """Some numbers of an array, at equal distances along each axis: at most about a million."""
    steps = [1] * array.ndim
    while (
        math.prod(-(-size // step) for size, step in zip(array.shape, steps, strict=True))
        > _NUMBERS
    ):
        left = [size // step for size, step in zip(array.shape, steps, strict=True)]
        steps[left.index(max(left))] += 1
    return array[tuple(slice(None, None, step) for step in steps)]


def _range(numbers: NDArray[Any], dtype: np.dtype[Any], request: Request) -> Range:
    """The range of images; a model that knows the range of its images gets the numbers as they are."""
    if request.takes_numbers:
        return own_numbers(numbers)
    return request.range or find_range(numbers, Levels.of(dtype))


def _denoised(
    array: NDArray[Any], layout: Axes, request: Request, looks: list[tuple[Range, NDArray[Any]]]
) -> NDArray[Any]:
    """Denoise all images of an array, one after the other; `looks` has a range and a part of each group."""
    result = array.copy()  # of alpha, this is all
    if request.settings.strength == 0 or array.size == 0:
        return result
    images, found = layout.images(array), layout.images(result)
    groups = layout.groups(images.shape[-3], request.channels)
    kind = Levels.of(array.dtype)
    for group, (own, sample) in zip(groups, looks, strict=True):
        restorer = request.restorer(own.values(sample))
        for index in np.ndindex(images.shape[:-3]):
            pixels = images[(*index, group)]
            values = own.values(pixels)
            seen, beyond = split_extremes(values) if own.bounded else (values, 0)
            image = torch.from_numpy(seen)[None]
            look = replace(restorer.look(image, request.noise_level), eight_bits=kind.eight_bits)
            clean = restorer.restore_part(image, look, request.noise_level)[0]
            clean_values = clean.cpu().numpy() + beyond
            found[(*index, group)] = kind.round(own.pixels(clean_values, pixels))
    return result


@lru_cache(maxsize=4)
def _loaded(path: Path, changed: int, settings: Settings) -> Restorer:
    return Restorer.of(graphnet.load(path), settings)


@lru_cache(maxsize=4)
def _shipped(noise: Noise, settings: Settings) -> Shipped:
    return Shipped(noise, settings)


def _is_dask(array: object) -> TypeGuard[Any]:
    """Whether it is a dask array; dask is not imported for that: without it, there is none."""
    module = sys.modules.get("dask.array")
    return module is not None and isinstance(array, module.Array)
