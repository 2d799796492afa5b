"""Opened images: a file, the range of its numbers, the blocks it is read in, and its pixels as tensors."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_denoise.images import ImageFile
from graphnet_denoise.jobs.cutting import Block
from graphnet_denoise.jobs.targets import Job
from graphnet_denoise.ranges import (
    NUMBERS,
    Range,
    find_range,
    is_known,
    own_numbers,
    split_extremes,
)
from graphnet_denoise.restoring import Look

_SAMPLE = 1 << 21  # so many numbers decide on the range
_BANDS = 16  # in so many places of a plane
_LOOK_WHOLE = 1 << 22  # the noise of a larger plane is measured in windows
_WINDOW, _WINDOWS = 512, 3  # their side, and how many there are along an axis


@dataclass(frozen=True, slots=True)
class Part:
    """A block of a plane, ready for a model.

    Args:
        image: the image that it belongs to.
        plane: the number of the plane.
        block: where it lies in the plane.
        pixels: (C, h, w), in the file's numbers.
        look: what was found in the whole plane.
    """

    image: OpenedImage
    plane: int
    block: Block
    pixels: NDArray[Any]
    look: Look

    @property
    def size_bytes(self) -> int:
        """The bytes of the pixels."""
        return int(self.pixels.nbytes)


@dataclass(eq=False, slots=True)
class OpenedImage:
    """An image that is being denoised.

    Args:
        job: the files.
        source: the open file.
        together: whether its channels are the colours of one picture; otherwise each is a picture.
        ranges: the range of all channels, or of each.
        blocks: the blocks of each plane.
        stopped: it failed elsewhere, so the rest of it need not be read.
        lock: held while the file is read: one thread reads its parts, another one alpha for the result.
    """

    job: Job
    source: ImageFile
    together: bool
    ranges: Sequence[Range]
    blocks: Sequence[Block]
    stopped: bool = False
    notes: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def parts_count(self) -> int:
        """The number of parts that `parts` yields."""
        return self.source.planes * len(self.blocks)

    def parts(self, find: Callable[[Tensor], Look]) -> Iterator[Part]:
        """Read the image part by part; `find` finds in images (N, C, h, w) what their parts need."""
        eight_bits = self.source.levels.eight_bits
        large = self.source.height * self.source.width > _LOOK_WHOLE
        in_windows = large or len(self.blocks) > 1
        together = 1 if self.together else self.source.channels  # images of a part
        for plane in range(self.source.planes):
            look: Look | None = None
            if in_windows:
                look = summed_up(find(self._windows(plane, large=large)), together)
            for block in self.blocks:
                if self.stopped:
                    return
                pixels = self._read(plane, block.rows, block.columns)
                look = look or find(self.tensor(pixels)[0])
                yield Part(self, plane, block, pixels, replace(look, eight_bits=eight_bits))

    def _windows(self, plane: int, *, large: bool) -> Tensor:
        """The images of a plane, or windows of them if they are large: (N, C, h, w)."""
        if not large:
            return self.tensor(self._read(plane, slice(None), slice(None)))[0]
        windows = [
            self.tensor(self._read(plane, rows, columns))[0]
            for rows in _spread(self.source.height, _WINDOW, _WINDOWS)
            for columns in _spread(self.source.width, _WINDOW, _WINDOWS)
        ]
        sizes = [min(window.shape[axis] for window in windows) for axis in (2, 3)]
        return torch.cat([window[..., : sizes[0], : sizes[1]] for window in windows])

    def _read(self, plane: int, rows: slice, columns: slice) -> NDArray[Any]:
        with self.lock:
            return self.source.read(plane, rows, columns)

    def lock_for_sink(self) -> contextlib.AbstractContextManager[object]:
        """The lock for a sink that writes: it reads alpha and other extra samples from the source."""
        extra = self.source.layout.samples > self.source.channels
        return self.lock if extra else contextlib.nullcontext()

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self.source.close()

    def tensor(self, pixels: NDArray[Any]) -> tuple[Tensor, Tensor | None]:
        """The pixels as a model sees them, float32 (1, C, h, w) or (C, 1, h, w), and what it does not see.

        The second tensor, of the same shape, is to be added to the result; None stands for zeros.
        """
        if len(self.ranges) == 1:
            values = self.ranges[0].values(pixels)
        else:
            pairs = zip(self.ranges, pixels, strict=True)
            values = np.stack([one.values(channel) for one, channel in pairs])
        bounded = any(one.bounded for one in self.ranges)
        values, beyond = split_extremes(values) if bounded else (values, 0)
        axis = 0 if self.together else 1
        rest = None if isinstance(beyond, int) else torch.from_numpy(beyond).unsqueeze(axis)
        return torch.from_numpy(values).unsqueeze(axis), rest

    def pixels(self, values: Tensor, like: NDArray[Any]) -> NDArray[Any]:
        """Turn a result, as `tensor` shapes it, into the file's numbers; `like` are the pixels before."""
        array = values.reshape(like.shape).numpy()
        if len(self.ranges) == 1:
            return self.ranges[0].pixels(array, like)
        triples = zip(self.ranges, array, like, strict=True)
        return np.stack([one.pixels(*channel) for one, *channel in triples])


def ranges_of(source: ImageFile, *, together: bool, takes_numbers: bool = False) -> list[Range]:
    """Decide on the range of a file's numbers, or of each channel's, from numbers of all planes.

    A model that `takes_numbers` gets them as they are.
    """
    if takes_numbers:
        return [own_numbers(_sample(source)) if source.dtype.kind == "f" else NUMBERS]
    if is_known(source.levels):
        return [find_range(np.zeros(0, source.dtype), source.levels)]
    sample = _sample(source)
    if together or len(sample) == 1:
        return [find_range(sample, source.levels)]
    found = [find_range(channel, source.levels) for channel in sample]
    return found[:1] if len(set(found)) == 1 else found


def _sample(source: ImageFile) -> NDArray[Any]:
    """Numbers of all planes, spread evenly: (C, n)."""
    share = max(1, _SAMPLE // (source.planes * source.channels))  # of a plane and channel
    taken = []
    for plane in range(source.planes):
        rows_each = max(1, share // (_BANDS * source.width))
        bands = [slice(0, source.height)]
        if source.by_parts and source.height * source.width > share:
            bands = list(_spread(source.height, rows_each, min(_BANDS, share)))
        for rows in bands:
            numbers = source.read(plane, rows).reshape(source.channels, -1)
            every = max(1, numbers.shape[1] * len(bands) // share)
            taken.append(numbers[:, ::every].copy())
    return np.concatenate(taken, axis=1)


def _spread(length: int, size: int, count: int) -> Iterator[slice]:
    """Parts of an axis, spread evenly over it; one of the whole axis if it is short."""
    if length <= size * count:
        yield slice(0, length)
        return
    for number in range(count):
        first = (length - size) * number // max(1, count - 1)
        yield slice(first, first + size)


def summed_up(look: Look, images: int) -> Look:
    """Make one finding of the windows of each image: grey if all are, with the median of the levels."""
    if len(look.grey) == images:
        return look
    grey = look.grey.reshape(-1, images).all(dim=0)
    level = look.shared_level.reshape(-1, images).median(dim=0).values
    return replace(look, grey=grey, shared_level=torch.where(grey, level, 0.0))
