"""Noise2Void: predict hidden pixels from their surroundings, and compare with the noisy pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import pydantic
from numpy.typing import NDArray
from torch import Tensor

from graphnet.sdk import Shape
from graphnet_denoise.draws import Draws
from graphnet_denoise.supervision.base import Supervision, Views, as_tensor

_Reach = Annotated[int, pydantic.Field(ge=0, le=16)]


class Noise2Void(Supervision):
    """Blind spots (Krull et al. 2019): a few pixels are replaced, and the network predicts them.

    The patch is divided into boxes, and one pixel of each box, at a random position, is replaced (stratified
    sampling). A box has round(1 / sqrt(masked)) pixels on each side, so about the share `masked` of all
    pixels is replaced. The new value is that of another pixel, drawn uniformly from the square of side 2 *
    radius + 1 around it. All channels of a pixel are replaced together. The target is the noisy patch, and
    the loss counts the replaced pixels only: it takes a mask, as masked_mse does. The network learns the
    clean image if the noise is independent from pixel to pixel and has the mean zero.

    Where the noise of neighbouring pixels is correlated, they would tell it. `hidden` [rows, columns] hides
    them too (Broaddus et al. 2020): all pixels up to so many rows above and below, and so many columns to the
    left and right, are replaced by other pixels of the square, and do not count in the loss. [0, 4] is a bar
    along the row, for noise that is correlated along rows.
    """

    single: ClassVar[bool] = True
    masked: Annotated[float, pydantic.Field(gt=0, le=0.25)] = 0.015
    radius: pydantic.PositiveInt = 5
    hidden: Annotated[tuple[_Reach, _Reach], pydantic.Field(strict=False)] = (0, 0)

    def target_shapes(self, shape: Shape) -> Mapping[str, Shape]:
        return {"target": shape, "mask": shape}

    def make(self, views: Views) -> tuple[Tensor, ...]:
        noisy = views.noisy()
        n, height, width, _ = noisy.shape
        draws = views.own()
        rows, columns, there = blind_spots(draws, height, width, round(1 / math.sqrt(self.masked)))
        rows, columns = np.minimum(rows, height - 1), np.minimum(columns, width - 1)
        image = np.broadcast_to(np.arange(n)[:, None], rows.shape)[there]
        spots = image, rows[there], columns[there]
        shown = noisy.copy()
        for down, across in offsets(self.hidden):
            i, j = rows + down, columns + across
            inside = there & (i >= 0) & (i < height) & (j >= 0) & (j < width)
            i, j = np.clip(i, 0, height - 1), np.clip(j, 0, width - 1)
            row, column = neighbors(draws, i, j, (height, width), self.radius + max(self.hidden))
            hidden = np.broadcast_to(np.arange(n)[:, None], rows.shape)[inside]
            shown[hidden, i[inside], j[inside]] = noisy[hidden, row[inside], column[inside]]
        mask = np.zeros_like(noisy)
        mask[spots] = 1
        return views.as_input(shown), as_tensor(noisy), as_tensor(mask)


def offsets(hidden: tuple[int, int]) -> list[tuple[int, int]]:
    """The places that are hidden around a pixel, as (rows down, columns to the right); the pixel is the last.

    >>> offsets((0, 1))
    [(0, -1), (0, 1), (0, 0)]
    """
    rows, columns = hidden
    places = [(i, j) for i in range(-rows, rows + 1) for j in range(-columns, columns + 1)]
    return sorted(places, key=lambda place: place == (0, 0))


def blind_spots(
    draws: Draws, height: int, width: int, box: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Draw a random pixel in each box of box x box: rows, columns, and which are inside: (N, boxes).

    Boxes at the lower and right edges may reach beyond the image, and so may their pixel.
    """
    tops, lefts = (np.arange(0, length, box) for length in (height, width))
    inside = np.minimum(draws.uniform(len(tops), len(lefts), 2) * box, box - 1).astype(np.int64)
    rows = (inside[..., 0] + tops[:, None]).reshape(len(inside), -1)
    columns = (inside[..., 1] + lefts).reshape(len(inside), -1)
    return rows, columns, (rows < height) & (columns < width)


def neighbors(
    draws: Draws,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    shape: tuple[int, int],
    radius: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw another pixel for each one, inside the image, from the square of side 2 * radius + 1 around it."""
    top, left = np.maximum(rows - radius, 0), np.maximum(columns - radius, 0)
    bottom, right = (
        np.minimum(at + radius, n - 1) for at, n in ((rows, shape[0]), (columns, shape[1]))
    )
    wide = right - left + 1
    count = (bottom - top + 1) * wide - 1
    drawn = np.minimum((draws.uniform(rows.shape[1]) * count).astype(np.int64), count - 1)
    own = (rows - top) * wide + columns - left
    drawn += drawn >= own  # the square without its own place
    return top + drawn // wide, left + drawn % wide
