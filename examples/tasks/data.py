"""The data of the tasks, as a plugin: data sets, and a metric of characters."""

from __future__ import annotations

import functools
import math
from pydoc_data.topics import topics
from typing import Literal

import torch
from torch import Tensor

import graphnet as gn

Part = Literal["train", "validation"]
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
OTHER = len(ALPHABET)  # the token of all other characters


@functools.cache
def text(part: Part) -> str:
    """Python's help topics. The topics repeat each other: each paragraph is taken once, the last tenth held out."""
    paragraphs = dict.fromkeys(p for _, topic in sorted(topics.items()) for p in topic.split("\n\n"))
    whole = "\n\n".join(paragraphs)
    cut = len(whole) * 9 // 10
    return whole[:cut] if part == "train" else whole[cut:]


def tokens(characters: str) -> Tensor:
    """The number of each character: uint8 (T,)."""
    numbers = {character: number for number, character in enumerate(ALPHABET)}
    found = [numbers.get(character, OTHER) for character in characters]
    return torch.tensor(found, dtype=torch.uint8)


class Characters(gn.DataSet):
    """Windows of a text: the input is all characters of a window but the last, the target all but the first."""

    part: Part
    length: int = 64

    def load(self) -> gn.Pairs:
        whole = tokens(text(self.part))
        windows = whole.unfold(0, self.length + 1, self.length)
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


def bits(prediction: Tensor, target: Tensor) -> float:
    """The bits that each character costs: the mean of -log2 of its predicted probability."""
    log_p = prediction.double().log_softmax(1)
    return float(-log_p.gather(1, target[:, None]).mean()) / math.log(2)


@gn.hookimpl
def graphnet_datasets(register):
    register("tasks/characters", Characters)
    register("tasks/digits", Digits)


@gn.hookimpl
def graphnet_metrics(register):
    register("tasks/bits", bits)
