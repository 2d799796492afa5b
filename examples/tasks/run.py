"""Train a network for each of four tasks, and print its result beside those of baselines: `make examples`.

python examples/tasks/run.py [NAME ...]
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import graphnet as gn
from graphnet.sdk import load_registry
from graphnet.training import Epoch, Trainer, read_job

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import data  # noqa: E402


def trainer(name: str, *settings: str) -> Trainer:
    """The training of a task, by its training file."""
    registry = load_registry(plugins=[data])
    return Trainer(read_job(HERE / f"{name}-train.yaml", settings=settings, registry=registry))


def ngram_bits(order: int) -> float:
    """Bits for each held-out character, by counts of the training text.

    Witten & Bell 1991: the prediction after `order` characters is mixed with the one after fewer, by how many
    different characters have followed.
    """
    known, held_out = (data.tokens(data.text(part)).tolist() for part in ("train", "validation"))
    pairs: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
    contexts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
    kinds: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
    for length in range(order + 1):
        for end in range(length, len(known)):
            context = tuple(known[end - length : end])
            pair = (*context, known[end])
            kinds[length][context] += pair not in pairs[length]
            pairs[length][pair] += 1
            contexts[length][context] += 1
    total = 0.0
    for end in range(order, len(held_out)):
        p = 1 / (data.OTHER + 1)
        for length in range(order + 1):
            context = tuple(held_out[end - length : end])
            if count := contexts[length][context]:
                new = kinds[length][context]
                p = (pairs[length][*context, held_out[end]] + new * p) / (count + new)
        total -= math.log2(p)
    return total / (len(held_out) - order)


def characters() -> Iterator[tuple[str, float]]:
    """Bits for each character, by counting which characters follow each other."""
    for order in (2, 5):
        yield f"the {order} characters before, counted", ngram_bits(order)


def digits() -> Iterator[tuple[str, float]]:
    """The accuracy of two classifiers of scikit-learn, on the same images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    train, test = (data.Digits(part=part).load() for part in ("train", "validation"))
    for title, model in (
        ("logistic regression", LogisticRegression(max_iter=1000)),
        ("3 nearest neighbours", KNeighborsClassifier(3)),
    ):
        model.fit(train.inputs.flatten(1), train.targets)
        yield title, float(model.score(test.inputs.flatten(1), test.targets))


def heartbeats() -> Iterator[tuple[str, float]]:
    """The signal-to-noise ratio of two filters, at the settings that suit these signals best."""
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import savgol_filter

    found = data.Heartbeats(part="validation", count=128).load()
    noisy = found.inputs.numpy()
    yield "the noisy signal", data.snr(found.inputs, found.targets)
    widths = range(3, 16, 2)
    yield "moving average", best(found, [uniform_filter1d(noisy, width) for width in widths])
    orders = ((width, order) for width in range(5, 32, 2) for order in (2, 3, 4) if order < width)
    yield (
        "Savitzky-Golay filter",
        best(found, [savgol_filter(noisy, width, order) for width, order in orders]),
    )


def stacks() -> Iterator[tuple[str, float]]:
    """The signal-to-noise ratio of two filters, at the settings that suit these stacks best."""
    from scipy.ndimage import gaussian_filter, median_filter

    found = data.Stacks(part="validation", count=16).load()
    noisy = found.inputs.numpy()
    yield "the noisy stack", data.snr(found.inputs, found.targets)
    sigmas = (0.5 + 0.1 * i for i in range(11))
    axes = (2, 3, 4)
    yield "Gaussian filter", best(found, [gaussian_filter(noisy, s, axes=axes) for s in sigmas])
    yield "median filter", best(found, [median_filter(noisy, size=3, axes=axes)])


def best(found: gn.Pairs, filtered: Iterable[NDArray[np.float32]]) -> float:
    """The largest signal-to-noise ratio among results of a filter."""
    return max(data.snr(torch.from_numpy(one), found.targets) for one in filtered)


BASELINES: dict[str, Callable[[], Iterator[tuple[str, float]]]] = {
    "characters": characters,
    "digits": digits,
    "heartbeats": heartbeats,
    "stacks": stacks,
}


def run(name: str) -> None:
    """Train one task, and print the result and the baselines."""
    print(f"{name}", flush=True)
    started = time.perf_counter()
    training = trainer(name)
    for record in training.run():
        if isinstance(record, Epoch):
            metrics = "  ".join(f"{key} {value:.4f}" for key, value in record.metrics.items())
            last = f"{metrics}  ({training.program.steps_done} steps, {{:.1f}} s)"
    weights = sum(weight.numel() for weight in training.program.weights.values())
    print(f"  {last.format(time.perf_counter() - started)}, {weights:,} weights", flush=True)
    for title, value in BASELINES[name]():
        print(f"  {value:.4f}  {title}", flush=True)


if __name__ == "__main__":
    for given in sys.argv[1:] or BASELINES:
        run(given)
