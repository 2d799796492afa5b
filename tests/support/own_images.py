"""Folders of synthetic noisy images, as people have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float64]
SIDE = 160
STD = 0.08


def smoothed(plane: Plane, radius: float) -> Plane:
    """Blur by a Gaussian, in the frequency domain; the borders join."""
    rows, columns = (np.fft.fftfreq(side)[:, None] for side in plane.shape)
    bell = np.exp(-2 * (np.pi * radius) ** 2 * (rows**2 + columns.T**2))
    blurred: Plane = np.fft.ifft2(np.fft.fft2(plane) * bell).real
    return blurred


def scene(number: int, side: int = SIDE) -> Plane:
    """A picture with structure of several sizes, in 0.2..0.8."""
    draws = np.random.default_rng(100 + number)
    layers = [smoothed(draws.normal(size=(side, side)), radius) * radius for radius in (2, 4, 10)]
    picture: Plane = np.sum(layers, axis=0)
    low, high = float(picture.min()), float(picture.max())
    scaled: Plane = 0.2 + 0.6 * (picture - low) / (high - low)
    return scaled


def coloured(picture: Plane) -> Plane:
    return np.stack((0.8 * picture, picture, picture**1.5), axis=-1)


class Writer:
    """Writes noisy images of scenes into a folder; each has its own noise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.draws = np.random.default_rng(7)

    def noisy(self, picture: Plane, std: float = STD) -> Plane:
        return picture + self.draws.normal(0, std, picture.shape)

    def png(self, name: str, picture: Plane) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)).save(path)

    def tiff(self, name: str, picture: Plane, **options: Any) -> None:
        """12 bits in 16."""
        self.folder.mkdir(parents=True, exist_ok=True)
        levels = (np.clip(picture, 0, 1) * 4095 + 0.5).astype(np.uint16)
        tifffile.imwrite(self.folder / name, levels, **options)


def pairs_by_name(to: Writer) -> None:
    for k in range(4):
        for end in ("a", "b"):
            to.png(f"cell{k:02}_{end}.png", to.noisy(scene(k)))


def pairs_by_folder(to: Writer) -> None:
    for k in range(4):
        for folder in ("first", "second"):
            to.png(f"{folder}/x{k}.png", to.noisy(coloured(scene(k))))


def noisy_and_clean(to: Writer) -> None:
    for k in range(4):
        to.png(f"gt/x{k}.png", scene(k))
        to.png(f"lq/x{k}.png", to.noisy(scene(k)))


def bursts(to: Writer) -> None:
    """Names that tell nothing, as a camera gives them."""
    for k in range(4):
        for i in range(4):
            to.png(f"IMG_{1000 + 4 * k + i}.png", to.noisy(coloured(scene(k))))


def bursts_by_folder(to: Writer) -> None:
    for k in range(3):
        for i in range(4):
            to.png(f"scene{k}/{i:03}.png", to.noisy(scene(k)))


def grey_16_bits(to: Writer) -> None:
    for k in range(4):
        to.tiff(f"im_{k}.tif", to.noisy(scene(k)))


def single_colour(to: Writer) -> None:
    for k in range(4):
        to.png(f"im_{k}.png", to.noisy(coloured(scene(k))))


def stack(to: Writer) -> None:
    slices = np.stack([to.noisy(scene(k)) for k in range(8)])
    to.tiff("volume.tif", slices, imagej=True, metadata={"axes": "ZYX"})


def movie_that_stands_still(to: Writer) -> None:
    movie(to, [scene(3)] * 12)


def long_burst(to: Writer) -> None:
    """More exposures than a burst usually has, with cosmic rays."""
    for k in range(12):
        exposure = to.noisy(scene(3))
        exposure[to.draws.random(exposure.shape) < 0.001] = 1
        to.tiff(f"m51_{k}.tif", exposure)


def movie(to: Writer, frames: Sequence[Plane]) -> None:
    noisy = np.stack([to.noisy(frame) for frame in frames])
    to.tiff("movie.tif", noisy, imagej=True, metadata={"axes": "TYX"})


def movie_that_flickers(to: Writer) -> None:
    movie(to, [light * scene(3) for light in to.draws.normal(1, 0.01, 12)])


def movie_that_drifts(to: Writer) -> None:
    """By a fifth of a pixel from one frame to the next."""
    fine = np.kron(scene(5, SIDE + 8), np.ones((10, 10)))
    shifted = [fine[:, 2 * t : 2 * t + 10 * SIDE] for t in range(16)]
    movie(to, [s.reshape(SIDE + 8, 10, SIDE, 10).mean(axis=(1, 3)) for s in shifted])


def movie_that_bleaches(to: Writer) -> None:
    movie(to, [0.98**t * scene(3) for t in range(12)])


def movie_of_one_thing_that_moves(to: Writer) -> None:
    rows, columns = np.indices((SIDE, SIDE))
    paths = [np.hypot(rows - 80, columns - 20 - 8 * t) for t in range(12)]
    movie(to, [scene(3) + 0.3 * np.exp(-(path**2) / 40) for path in paths])


def scenes_with_hot_pixels(to: Writer) -> None:
    """The same pixels are hot in all images."""
    hot = np.random.default_rng(1).random((SIDE, SIDE)) < 0.002
    for k in range(4):
        to.tiff(f"im_{k}.tif", np.where(hot, 1, to.noisy(scene(k)) / 16))


def movie_that_moves(to: Writer) -> None:
    wide = scene(5, SIDE + 40)
    movie(to, [wide[3 * t : 3 * t + SIDE, 2 * t : 2 * t + SIDE] for t in range(12)])


def row_noise(to: Writer) -> None:
    """Each pixel shares its noise with the next two of its row."""
    for k in range(4):
        noise = to.draws.normal(0, STD, (SIDE, SIDE))
        noise = (noise + np.roll(noise, 1, 1) + np.roll(noise, 2, 1)) / np.sqrt(3)
        to.tiff(f"im_{k}.tif", scene(k) + noise)


def blurred_noise(to: Writer, radius: float) -> None:
    for k in range(4):
        noise = smoothed(to.draws.normal(size=(SIDE, SIDE)), radius)
        to.tiff(f"im_{k}.tif", scene(k) + STD * noise / noise.std())


def pixel_noise(to: Writer) -> None:
    blurred_noise(to, 0.55)


def far_pixel_noise(to: Writer) -> None:
    blurred_noise(to, 2.0)


def stripes(to: Writer) -> None:
    """Each row has an offset of its own."""
    for k in range(4):
        offsets = to.draws.normal(0, STD, (SIDE, 1))
        to.tiff(f"im_{k}.tif", to.noisy(scene(k), 0.02) + offsets)


def write(folder: Path, images: Callable[[Writer], None]) -> Path:
    """Write the images into a folder of their name."""
    to = Writer(folder / images.__name__)
    images(to)
    return to.folder
