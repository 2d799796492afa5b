"""The noise of photographs: made on the values of a sensor, and changed by what a camera does to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from graphnet_denoise.draws import Draws
from graphnet_denoise.images import as_unit
from graphnet_denoise.noise.base import Images, Noise, Range, Scenes
from graphnet_denoise.noise.development import (
    bayer_masks,
    blur,
    colour_matrix,
    demosaic,
    inverse_tone,
    magnified,
    mix_channels,
    smooth_flat_parts,
    through_jpeg,
    to_luma_and_colour,
    tone,
)

Array = NDArray[np.float32]
Settings = Mapping[str, Tensor]
"""A number for each image by the name of the setting, each (N, 1, 1, 1)."""

Share = Annotated[float, pydantic.Field(ge=0, le=1)]

_FULL_WELL = 40_000.0  # electrons of a white pixel at ISO 100, for large pixels
_DEMOSAICED = 0.7  # of the noise's deviation is left by the mean over neighbours
_FEWEST = 15.0  # electrons of a white pixel; a picture of fewer shows nothing


def _between(low: float, high: float) -> Callable[[Array], Array]:
    return lambda u: low + (high - low) * u


def _logarithmic(low: float, high: float) -> Callable[[Array], Array]:
    return lambda u: low * (high / low) ** u


def _often_zero(share: float, low: float, high: float) -> Callable[[Array], Array]:
    """0 for this share of the images, and between `low` and `high` for the others."""
    return lambda u: np.where(u < share, 0, low + (high - low) * (u - share) / (1 - share))


_SETTINGS: Mapping[str, Callable[[Array], Array]] = {
    "pixel": _logarithmic(0.15, 2.0),  # the electrons of a white pixel, relative to _FULL_WELL
    "read": _logarithmic(1.5, 6.0),  # the deviation of the read noise, in electrons
    "row": _often_zero(0.5, 0.05, 0.4),  # the deviation of a row's own noise, relative to `read`
    "red_gain": _between(1.3, 2.6),  # of the white balance
    "blue_gain": _between(1.2, 2.4),
    "saturation": _between(0.1, 0.9),
    "green_weight": _between(0.3, 0.7),
    "gamma": _between(1.9, 2.5),
    "contrast": _between(0.0, 0.7),
    "correction": _between(0.0, 1.0),  # of the demosaicing, as is `direction`
    "direction": _between(0.0, 3.0),
    "luma_blur": _often_zero(0.1, 0.5, 1.8),  # deviations in pixels; the noise of photos is coarse
    "colour_blur": _often_zero(0.15, 1.0, 4.0),
    "smoothing": _often_zero(0.5, 0.2, 1.5),  # of flat parts, relative to the noise
    "sharpening": _often_zero(0.4, 0.1, 1.2),
    "radius": _between(0.5, 1.5),  # of sharpening, in pixels
    "scale": _often_zero(0.7, 1.0, 1.6),  # of magnifying; 0: not at all
    "halved_first": _between(0.0, 1.0),  # from 0.5, a photo is halved before it is developed
    "is_jpeg": _between(0.0, 1.0),
    "columns": _between(
        0.0, 1.0
    ),  # from 0.3, a JPEG has half the columns of colour; from 0.4, half the rows
}
"""How each setting of an image comes from a number that is uniform in 0..1."""


class Camera(Noise):
    """Noise as cameras make it: counts of photons, read noise, and the development of the picture.

    The photo is taken back to the values of a sensor (Brooks et al. 2019): the tone curve, the colour matrix
    and the white balance are inverted, and each pixel keeps one colour of a Bayer filter. These values become
    P / peak + r: P ~ Poisson(peak x), with `peak` the electrons of a white pixel, which fall as the ISO value
    rises, and r the read noise, some of it the same for a whole row. Then the picture is developed:
    demosaicing, white balance, colour matrix, tone curve, noise reduction of the camera, sharpening, and for
    some pictures a change of size; at last it is saved as a JPEG. All steps have settings that are drawn for
    each image.

    The clean picture is what the mean of many such pictures would be, developed with the same settings and
    not saved as a JPEG. That is not the picture without noise, since the tone curve bends and values are
    clipped at black. A network that learns it (noise2clean) keeps the brightness of a photograph.

    Attributes:
        iso: drawn on a logarithmic scale.
        quality: of the JPEG, libjpeg's 1..100.
        jpeg: the share of the images that are saved as a JPEG.
    """

    ranges: ClassVar[tuple[str, ...]] = ("iso", "quality")
    iso: Range = (100.0, 25_600.0)
    quality: Range = (30.0, 100.0)
    jpeg: Share = 0.8

    def block_sides(self, largest: NDArray[np.int64], draws: Draws) -> NDArray[np.int64]:
        """Two for half of the images, if their photos are large enough: these are halved."""
        return np.minimum(1 + draws.below(np.full_like(largest, 2)), largest)

    def strength(self, draws: Draws) -> dict[str, Array]:
        """Draw all settings of each image, (N,) by name."""
        (iso_low, iso_high), (low, high) = self.iso, self.quality
        make = {
            "iso": _logarithmic(max(iso_low, 1.0), max(iso_high, 1.0)),
            "quality": _between(low, high),
            **_SETTINGS,
        }
        uniform = draws.uniform(len(make))
        return {
            name: np.asarray(of(uniform[:, i]), np.float32)
            for i, (name, of) in enumerate(make.items())
        }

    def noisy(self, scenes: Scenes, draws: Draws) -> Images:
        return self._pictures(scenes, draws)

    def clean(self, scenes: Scenes) -> Images:
        """The means of many such pictures, about, before they are saved as a JPEG."""
        return self._pictures(scenes, None)

    def _pictures(self, scenes: Scenes, draws: Draws | None) -> Images:
        """Make all pictures, with noise if there are random numbers for it."""
        halved = np.array([len(crop) > scenes.size[0] for crop in scenes.crops])
        large = halved & (scenes.strength["halved_first"] < 0.5)
        images = np.empty(scenes.shape, np.float32)
        for places in (np.flatnonzero(large), np.flatnonzero(~large)):
            if not len(places):
                continue
            settings = {
                name: torch.from_numpy(values[places]).reshape(-1, 1, 1, 1)
                for name, values in scenes.strength.items()
            }
            if large[places[0]]:  # halved after development, so the noise of neighbours is averaged
                photos = np.stack([as_unit(scenes.crops[place]) for place in places.tolist()])
            else:
                photos = scenes.clean[places]
            own = draws.of(places) if draws else None
            pictures = _developed(_in_colour(photos), settings, own)
            if large[places[0]]:
                side = photos.shape[1] // scenes.size[0]
                pictures = functional.avg_pool2d(pictures, side)
            if scenes.shape[3] == 1:
                pictures, _ = to_luma_and_colour(pictures)
            pictures = pictures.clamp(0, 1)
            if draws is not None:
                self._save(pictures, settings)
            images[places] = pictures.permute(0, 2, 3, 1).numpy()
        return images

    def _save(self, pictures: Tensor, settings: Settings) -> None:
        """Change some of the pictures, (N, C, H, W), into what a JPEG keeps of them."""
        for i, picture in enumerate(pictures):
            if settings["is_jpeg"][i] < self.jpeg:
                columns = float(settings["columns"][i])
                pictures[i] = through_jpeg(
                    picture,
                    quality=round(float(settings["quality"][i])),
                    subsampling=0 if columns < 0.3 else 1 if columns < 0.4 else 2,
                )


def _in_colour(photos: Images) -> Tensor:
    """(N, H, W, C) as (N, 3, H, W); grey photos are repeated."""
    images = torch.from_numpy(photos).permute(0, 3, 1, 2)
    return images.expand(-1, 3, -1, -1).contiguous()


def _developed(photos: Tensor, settings: Settings, draws: Draws | None) -> Tensor:
    """Take photos (N, 3, H, W) back to a sensor's values, add noise if there are draws, and develop them."""
    gamma, contrast = settings["gamma"], settings["contrast"]
    matrix = colour_matrix(settings["saturation"], settings["green_weight"])
    red, blue = settings["red_gain"], settings["blue_gain"]
    gains = torch.cat((red, torch.ones_like(red), blue), dim=1)
    linear = inverse_tone(photos, gamma, contrast)
    sensor = (mix_channels(linear, torch.linalg.inv(matrix)) / gains).clamp_min(0)
    mosaic = (sensor * bayer_masks(*sensor.shape[2:])).sum(1, keepdim=True)
    peak = (_FULL_WELL * settings["pixel"] * 100 / settings["iso"]).clamp_min(_FEWEST)
    if draws is not None:
        mosaic = _exposed(mosaic, peak, settings, draws)
    sensor = demosaic(mosaic, settings["correction"], settings["direction"])
    linear = mix_channels(sensor * gains, matrix)
    if draws is not None:
        picture = tone(linear, gamma, contrast)
    else:  # the mean over the noise, from the values one standard deviation above and below
        variance = _variance(sensor.clamp_min(0), peak, settings) * gains.square()
        deviation = _DEMOSAICED * mix_channels(variance, matrix.square()).sqrt()
        above, below = (tone(linear + side * deviation, gamma, contrast) for side in (1, -1))
        picture = (above + below) / 2
    luma, colour = to_luma_and_colour(picture)
    luma = smooth_flat_parts(luma, settings["smoothing"] * _noise_of_grey(peak, settings))
    luma = blur(luma, settings["luma_blur"])
    luma = luma + settings["sharpening"] * (luma - blur(luma, settings["radius"]))
    picture = luma + blur(colour, settings["colour_blur"])
    larger = settings["scale"].flatten() > 1
    if bool(larger.any()):
        picture[larger] = magnified(picture[larger], settings["scale"][larger])
    return picture


def _exposed(mosaic: Tensor, peak: Tensor, settings: Settings, draws: Draws) -> Tensor:
    """Count photons and add read noise, to a mosaic (N, 1, H, W) of values relative to white."""
    height, width = mosaic.shape[2:]
    counts = torch.from_numpy(draws.poisson((mosaic * peak).numpy()))
    own = torch.from_numpy(draws.normal(1, height, width + 1))
    rows = settings["row"] * own[..., width:]
    return (counts + settings["read"] * (own[..., :width] + rows)) / peak


def _variance(values: Tensor | float, peak: Tensor, settings: Settings) -> Tensor:
    """The variance of a sensor's values, relative to white: of the counted photons and of the read noise."""
    return values / peak + (settings["read"] / peak).square()


def _noise_of_grey(peak: Tensor, settings: Settings) -> Tensor:
    """About the deviation of the developed noise at a medium grey."""
    level = 0.2
    slope = level ** (1 / settings["gamma"] - 1) / settings["gamma"]
    return _DEMOSAICED * slope * _variance(level, peak, settings).sqrt()
