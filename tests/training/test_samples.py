"""A torch Dataset that a plugin's data set returns, in a training file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from graphnet.errors import DataError, LayerError
from graphnet.model import read_checkpoint, write_checkpoint
from graphnet.sdk import DataSet, Decided, Epoch, Pairs, Registry, Stopped, load_registry
from graphnet.training import Trainer
from graphnet.training.samples import Samples
from tests.training.test_trainer import Data, job

INPUTS, TARGETS = torch.rand(2, 40, 3, 8, 8, generator=torch.Generator().manual_seed(3))


class Returned(DataSet):
    """Returns what it is given."""

    what: Any

    def load(self) -> Any:
        return self.what


class Arrays(Dataset[Any]):
    """The same samples as float64 arrays."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return INPUTS[index].double().numpy(), TARGETS[index].numpy()


class Random(Arrays):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return torch.rand(3, 8, 8), TARGETS[index]


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Bad(Arrays):
    def __init__(self, sample: Any) -> None:
        self.sample = sample

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.sample, Exception):
            raise self.sample
        return self.sample if index == 7 else super().__getitem__(index)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Data()], entry_points=False)


Make = Callable[..., Trainer]


@pytest.fixture
def trainer(registry: Registry) -> Make:
    def make(train: Any, validation: Any = None, **settings: Any) -> Trainer:
        made = job(registry)
        made.train = Returned(what=train)
        made.validation = Returned(
            what=Pairs(INPUTS, TARGETS) if validation is None else validation
        )
        return Trainer(made, **settings)

    return make


def weights_after(one: Trainer) -> tuple[list[Epoch], dict[str, Tensor]]:
    epochs = [record for record in one.run() if isinstance(record, Epoch)]
    return epochs, {name: tensor.clone() for name, tensor in one.program.weights.items()}


@pytest.mark.parametrize(
    "data", [TensorDataset(INPUTS, TARGETS), Arrays()], ids=["tensors", "arrays"]
)
def test_samples_train_and_measure_as_pairs_in_memory(trainer: Make, data: Dataset[Any]) -> None:
    expected, weights = weights_after(trainer(Pairs(INPUTS, TARGETS)))
    epochs, found = weights_after(trainer(data, validation=data))
    assert [epoch.metrics for epoch in epochs] == [epoch.metrics for epoch in expected]
    for name, tensor in weights.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_a_resumed_run_has_the_same_order_and_says_what_it_cannot_know(
    trainer: Make, tmp_path: Path
) -> None:
    _, weights = weights_after(trainer(Arrays()))
    first = trainer(Arrays())
    done = iter([False] * 3 + [True])
    assert isinstance([*first.run(lambda: next(done))][-1], Stopped)
    write_checkpoint(tmp_path / "half.safetensors", first.checkpoint())
    second = trainer(Arrays(), resume=read_checkpoint(tmp_path / "half.safetensors"))
    said = next(record for record in second.run() if isinstance(record, Decided))
    assert "torch Dataset (Returned, Arrays)" in said.message
    assert "Random numbers that it draws are others" in said.message
    for _ in second.run():
        pass
    assert all(torch.equal(second.program.weights[name], weights[name]) for name in weights)


def test_a_data_set_with_random_samples_is_resumed(trainer: Make) -> None:
    first = trainer(Random())
    done = iter([False] * 5 + [True])
    assert isinstance([*first.run(lambda: next(done))][-1], Stopped)
    second = trainer(Random(), resume=first.checkpoint())
    assert [record.step for record in second.run() if isinstance(record, Epoch)] == [10]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Endless(), "the data, Returned, Endless: expected a map-style torch Dataset.*gn.train"),
        (TensorDataset(INPUTS[:0], TARGETS[:0]), "Returned, TensorDataset: the data set is empty"),
        (TensorDataset(INPUTS), r"sample 0: expected a pair \(input, target\), found 1 items"),
        ([INPUTS, TARGETS], "Returned.load must return Pairs, .* found a list"),
    ],
)
def test_other_data_is_refused(trainer: Make, data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        trainer(data)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (INPUTS[7], r"Returned, Bad: sample 7: expected a pair .* found <class 'torch.Tensor'>"),
        ((INPUTS[7, :2], TARGETS[7]), "Returned, Bad: batch failed: RuntimeError: stack expects"),
        ((np.array("a"), TARGETS[7]), "Returned, Bad: batch failed: TypeError"),
    ],
)
def test_a_sample_that_does_not_fit_names_the_data_set(
    trainer: Make, sample: Any, message: str
) -> None:
    with pytest.raises((DataError, LayerError), match=message):
        weights_after(trainer(Bad(sample)))
    with pytest.raises((DataError, LayerError), match="Returned, Bad"):
        trainer(TensorDataset(INPUTS, TARGETS), validation=Bad(sample))


def test_an_exception_of_the_first_sample_keeps_its_cause() -> None:
    with pytest.raises(
        LayerError, match="Returned, Bad: sample 0 failed: OSError: no photo"
    ) as caught:
        Samples(Bad(OSError("no photo")), "Returned")
    assert isinstance(caught.value.__cause__, OSError)
