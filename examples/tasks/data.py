"""The data of the tasks, as a plugin: data sets, and a metric for characters and one for signals."""

from __future__ import annotations

import functools
import math
from pydoc_data.topics import topics
from typing import Any, Literal

import torch
from torch import Tensor

import graphnet as gn

Part = Literal["train", "validation"]
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
OTHER = len(ALPHABET)  # the token of all other characters


@functools.cache
def text(part: Part) -> str:
    """Python's help topics, each paragraph once, since topics repeat others; the last tenth is held out."""
    paragraphs = [p for _, topic in sorted(topics.items()) for p in topic.split("\n\n")]
    whole = "\n\n".join(dict.fromkeys(paragraphs))
    cut = len(whole) * 9 // 10
    return whole[:cut] if part == "train" else whole[cut:]


def tokens(characters: str) -> Tensor:
    """The number of each character: uint8 (T,)."""
    numbers = {character: number for number, character in enumerate(ALPHABET)}
    found = [numbers.get(character, OTHER) for character in characters]
    return torch.tensor(found, dtype=torch.uint8)


class Characters(gn.DataSet):
    """Windows of a text: all characters but the last are the input, all but the first the target."""

    part: Part
    length: int = 64

    def load(self) -> gn.Pairs:
        windows = tokens(text(self.part)).unfold(0, self.length + 1, self.length)
        return gn.Pairs(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())


class Digits(gn.DataSet):
    """The handwritten digits of scikit-learn, 8 x 8 pixels in 0..1; the last 360 of 1,797 are held out."""

    part: Part

    def load(self) -> gn.Pairs:
        from sklearn.datasets import load_digits  # the other tasks do without

        found = load_digits()
        images = torch.from_numpy(found.images).float()[:, None] / 16
        labels = torch.from_numpy(found.target)
        part = slice(None, -360) if self.part == "train" else slice(-360, None)
        return gn.Pairs(images[part], labels[part])


class Noisy(gn.DataSet):
    """Clean signals with noise: pairs of noisy versions to train on, noisy and clean ones to measure."""

    part: Part
    count: int
    noise_std: float = 0.2

    def clean(self, generator: torch.Generator) -> Tensor:
        """Make `count` clean signals, (count, 1, ...)."""
        raise NotImplementedError

    def load(self) -> gn.Pairs:
        generator = torch.Generator().manual_seed(0 if self.part == "train" else 1)
        clean = self.clean(generator)
        one, other = (
            clean + self.noise_std * torch.randn(clean.shape, generator=generator) for _ in range(2)
        )
        return gn.Pairs(one, other if self.part == "train" else clean)


class Heartbeats(Noisy):
    """Electrocardiograms as sums of five waves a beat (McSharry et al. 2003), 256 samples at 125 Hz."""

    # P, Q, R, S, T: the time after the beat's middle in parts of a beat, the height, the width
    waves: tuple[tuple[float, float, float], ...] = (
        (-0.19, 0.15, 0.035),
        (-0.03, -0.12, 0.012),
        (0.0, 1.0, 0.014),
        (0.035, -0.25, 0.013),
        (0.28, 0.30, 0.06),
    )

    def clean(self, generator: torch.Generator) -> Tensor:
        def vary(mean: float, share: float) -> Tensor:
            drawn = torch.rand(self.count, 1, generator=generator)
            return mean * (1 + share * (2 * drawn - 1))

        seconds = torch.arange(256) / 125
        beats = seconds * vary(1.2, 0.3) + torch.rand(self.count, 1, generator=generator)
        total = torch.zeros(self.count, 256)
        for at, height, width in self.waves:
            distance = (beats - vary(at, 0.1) + 0.5).remainder(1.0) - 0.5
            total += vary(height, 0.3) * torch.exp(-0.5 * (distance / vary(width, 0.2)) ** 2)
        return total[:, None]


class Stacks(Noisy):
    """Stacks of 16 images of 24 x 24 pixels: six soft balls of different sizes in each."""

    def clean(self, generator: torch.Generator) -> Tensor:
        sizes = (16, 24, 24)
        z, y, x = torch.meshgrid(*(torch.arange(float(size)) for size in sizes), indexing="ij")
        total = torch.zeros(self.count, *sizes)
        for _ in range(6):
            drawn = torch.rand(self.count, 5, 1, 1, 1, generator=generator).unbind(1)
            distance = sum(
                (axis - size * place) ** 2
                for axis, size, place in zip((z, y, x), sizes, drawn[:3], strict=True)
            )
            radius, height = 2 + 3 * drawn[3], 0.4 + 0.6 * drawn[4]
            total += height * torch.sigmoid(2 * (radius - torch.as_tensor(distance).sqrt()))
        return total[:, None]


def bits(prediction: Tensor, target: Tensor) -> float:
    """The bits that each character costs: the mean of -log2 of its predicted probability."""
    log_p = prediction.double().log_softmax(1)
    return float(-log_p.gather(1, target[:, None]).mean()) / math.log(2)


def snr(prediction: Tensor, target: Tensor) -> float:
    """The power of the target over that of the error, in dB, the mean over the signals."""
    power, error = (t.double().flatten(1).square().sum(1) for t in (target, prediction - target))
    return float((10 * (power / error).log10()).mean())


@gn.hookimpl
def graphnet_datasets(register: Any) -> None:
    register("tasks/characters", Characters)
    register("tasks/digits", Digits)
    register("tasks/heartbeats", Heartbeats)
    register("tasks/stacks", Stacks)


@gn.hookimpl
def graphnet_metrics(register: Any) -> None:
    register("tasks/bits", bits)
    register("tasks/snr", snr)
