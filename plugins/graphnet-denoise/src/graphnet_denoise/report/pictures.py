"""Pictures: an image before and after, and what was removed, measured and as PNG for a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from graphnet_denoise import metrics

_BINS = 32


@dataclass(frozen=True, slots=True)
class Pictured:
    """An image before and after denoising: float (C, H, W) in 0..1; `target` is what the
    validation compares with, which is clean or noisy; None if there is none. `note` says what was found in
    the image, and which model denoised it."""

    name: str
    noisy: Tensor
    denoised: Tensor
    target: Tensor | None = None
    note: str = ""

    def data(self) -> Mapping[str, Any]:
        """What the page shows: PNG images as addresses that hold them, and numbers."""
        removed = (self.noisy - self.denoised).double().numpy()
        spread = float(removed.std()) or 1.0
        power, rings = spectrum(removed)
        shown = {
            "noisy": _png(self.noisy.numpy()),
            "denoised": _png(self.denoised.numpy()),
            "removed": _png(0.5 + removed / (8 * spread)),
            "spectrum": _png(np.log10(power / power.mean() + 1e-4)[None] / 6 + 4 / 6),
        }
        if self.target is not None:
            shown["target"] = _png(self.target.numpy())
        c, h, w = self.noisy.shape
        numbers = {"removed, standard deviation in 255ths": 255 * float(removed.std())}
        numbers |= {f"correlation with {where}": r for where, r in correlations(removed).items()}
        for name, image in (("noisy", self.noisy), ("denoised", self.denoised)):
            if self.target is not None:
                errors = metrics.squared_error(image[None].float(), self.target[None].float())
                numbers[f"PSNR of the {name} image against the target, dB"] = metrics.mean_psnr(
                    errors
                )
        numbers = {key: value for key, value in numbers.items() if math.isfinite(value)}
        return {
            "name": self.name, "note": self.note, "width": w, "height": h, "channels": c,
            "images": shown, "numbers": numbers, "rings": rings,
        }  # fmt: skip


def correlations(removed: NDArray[np.float64]) -> dict[str, float]:
    """How what was removed (C, H, W) correlates with its neighbours: 0 for noise that pixels do not share.

    >>> rows = np.random.default_rng(0).standard_normal((1, 64, 1)).repeat(64, axis=2)
    >>> found = correlations(rows)
    >>> round(found["the pixel to the right"], 2), abs(found["the pixel below"]) < 0.3
    (1.0, True)
    """
    centred = removed - removed.mean((1, 2), keepdims=True)
    variance = float((centred**2).mean()) or 1.0
    pairs = {
        "the pixel to the right": (centred[:, :, 1:], centred[:, :, :-1]),
        "the pixel below": (centred[:, 1:], centred[:, :-1]),
    }
    return {name: float((a * b).mean()) / variance for name, (a, b) in pairs.items() if a.size}


def spectrum(removed: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[tuple[float, float]]]:
    """The power of what was removed (C, H, W) at each frequency.

    Returns:
        the mean over the channels of |F|^2 with a Hann window, (H, W), the frequency 0 in the middle; and
        pairs of a frequency in cycles a pixel and the mean power there, in parts of the mean of all. Noise
        that is independent from pixel to pixel has 1 everywhere; what is left of the picture stands out.

    >>> _, rings = spectrum(np.random.default_rng(0).standard_normal((3, 128, 128)))
    >>> all(0.8 < power < 1.2 for frequency, power in rings if frequency > 0.1)
    True
    """
    _, h, w = removed.shape
    window = np.hanning(h + 2)[1:-1, None] * np.hanning(w + 2)[None, 1:-1]
    centred = (removed - removed.mean((1, 2), keepdims=True)) * window
    power = (np.abs(np.fft.fft2(centred)) ** 2).mean(0)
    power = np.fft.fftshift(power) + np.finfo(float).tiny
    y = np.fft.fftshift(np.fft.fftfreq(h))[:, None]
    x = np.fft.fftshift(np.fft.fftfreq(w))[None]
    frequency = np.hypot(y, x)
    ring = np.minimum(
        (frequency / 0.5 * _BINS).astype(int), _BINS
    )  # the corners are in none of the rings
    mean = float(power.mean())
    rings = [
        (0.5 * (number + 0.5) / _BINS, float(power[ring == number].mean()) / mean)
        for number in range(_BINS)
        if (ring == number).any()
    ]
    return power, rings


def _png(image: NDArray[Any]) -> str:
    """An image in 0..1, (C, H, W), as an address that holds a PNG; two channels are shown by the first."""
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    colour = levels.transpose(1, 2, 0) if len(levels) == 3 else levels[0]
    buffer = io.BytesIO()
    Image.fromarray(colour).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
