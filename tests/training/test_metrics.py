"""Metrics: rows of all batches make one number; their fields and their errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphnet.errors import ContractError, DescriptionError, LayerError, PluginError
from graphnet.sdk import Gallery, Metric, Pairs, Register, Registry, hookimpl, load_registry
from graphnet.training import Epoch, Trainer
from graphnet.training.evaluate import score
from tests.training.test_trainer import Data, Error, job


class Spread(Metric):
    """The largest less the smallest value of all predictions."""

    higher_is_better = False

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        flat = prediction.flatten(1)
        return torch.stack((flat.amin(1), flat.amax(1)), 1)

    def combine(self, rows: Tensor) -> float:
        return float(rows[:, 1].max() - rows[:, 0].min())


class Whole(Gallery):
    """Images of growing width with the values 0, 0.1, 0.2, ..."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.full((1, 4, 4 + index), index / 10)
        return image, image


def measured(validation: Pairs | Gallery, **metrics: Metric) -> dict[str, float]:
    return score(
        validation, lambda x: x, metrics, device=torch.device("cpu"), dtype=torch.float32, divisor=1
    )


def test_a_metric_over_batches_and_images_is_that_of_all_samples() -> None:
    images = torch.rand(300, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = measured(Pairs(images, images), spread=Spread())
    assert found["spread"] == pytest.approx(float(images.max() - images.min()))
    assert measured(Whole(), spread=Spread())["spread"] == pytest.approx(0.4)


def test_fields_of_a_metric_stand_in_the_training_file_and_in_the_record() -> None:
    registry = load_registry(plugins=[Data()], entry_points=False)
    forms = ["test/error", {"test/error": {"power": 2.0}}]
    made = job(registry, metrics=forms, epochs=1)
    assert made.metrics == {"test/error": Error(), "test/error(power=2.0)": Error(power=2.0)}
    (*_, record) = Trainer(made).run()
    assert isinstance(record, Epoch)
    absolute, squared = record.metrics.values()
    assert 0 < squared < absolute < 1
    with pytest.raises(DescriptionError, match=r"metrics\[0\].*powr: unknown field"):
        job(registry, metrics=[{"test/error": {"powr": 2.0}}])


def test_wrong_metrics_are_named() -> None:
    with pytest.raises(ContractError, match="must take prediction and target, takes x"):
        type("Wrong", (Metric,), {"higher_is_better": True, "measure": lambda self, x: x})
    with pytest.raises(ContractError, match="Mute must say `higher_is_better = True` or False"):
        type("Mute", (Metric,), {"measure": lambda self, prediction, target: prediction})

    class Whole(Metric):
        higher_is_better = True

        def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
            return prediction.mean()

    pairs = Pairs(torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2))
    message = (
        r"metric 'whole': Whole.measure must return a row for each of the 3 .* found shape \(\)"
    )
    with pytest.raises(ContractError, match=message):
        measured(pairs, whole=Whole())

    class Fails(Metric):
        higher_is_better = True

        def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
            raise KeyError("x")

    with pytest.raises(LayerError, match="metric 'fails': measure failed: KeyError: 'x'"):
        measured(pairs, fails=Fails())


def test_a_function_is_refused_with_the_class_to_write() -> None:
    class Old:
        @hookimpl
        def graphnet_metrics(self, register: Register) -> None:
            register("error", lambda prediction, target: 0.0)

    def load() -> Registry:
        return load_registry(plugins=[Old()], entry_points=False)

    with pytest.raises(PluginError, match="must be a subclass of graphnet.Metric, found <function"):
        load()
    with pytest.raises(
        PluginError, match=r"Write: class Error\(graphnet.Metric\): higher_is_better"
    ):
        load()
