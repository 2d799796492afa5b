"""Pairs made while steps run: the same whatever is made ahead, resumed to the bit, and measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet.errors import DataError, LayerError
from graphnet.model import read_checkpoint, write_checkpoint
from graphnet.model.slots import packed
from graphnet.sdk import (
    DataSet,
    Gallery,
    Pairs,
    Register,
    Registry,
    Shape,
    Stream,
    hookimpl,
    load_registry,
)
from graphnet.training import Epoch, Stopped, Trainer
from graphnet.training.batches import MemoryBatches, PrefetchedBatches
from graphnet.training.evaluate import score
from graphnet.training.fingerprint import difference, fingerprint
from tests.training.test_trainer import Data, Error, job

COUNT = 40


class Made(Stream):
    """Pairs in memory, handed out as a stream; in other epochs with other targets."""

    def __init__(self, *, fails: str = "") -> None:
        generator = torch.Generator().manual_seed(3)
        self.pixels = torch.rand(2, COUNT, 3, 8, 8, generator=generator)
        self.fails = fails
        self.progress: list[float] = []

    def __len__(self) -> int:
        return COUNT

    @property
    def input_shape(self) -> Shape:
        return (3, 8, 8)

    @property
    def target_shapes(self) -> Mapping[str, Shape]:
        return {"target": (3, 4, 8) if self.fails == "targets" else (3, 8, 8)}

    def batch(self, seed: int, epoch: int, indices: Sequence[int]) -> tuple[Tensor, ...]:
        if self.fails == "batch":
            raise ValueError("no more photos")
        if self.fails == "shapes":
            return self.pixels[0][indices, :, :4], self.pixels[1][indices]
        return self.pixels[0][indices], self.pixels[1][indices] / (1 + epoch + seed)


class Guided(Made):
    """Targets are what the model itself makes of the inputs, so that there is nothing to learn."""

    def finish(
        self, batch: tuple[Tensor, ...], predict: Callable[[Tensor], Tensor], progress: float
    ) -> tuple[Tensor, ...]:
        self.progress.append(progress)
        return batch[0], predict(batch[0])


class Bytes(Made):
    """The same in 255 steps."""

    def batch(self, seed: int, epoch: int, indices: Sequence[int]) -> tuple[Tensor, ...]:
        return tuple((255 * x).round().byte() for x in super().batch(seed, epoch, indices))


class Masked(Made):
    """A mask that counts every pixel, as an argument of the loss."""

    @property
    def target_shapes(self) -> Mapping[str, Shape]:
        return {"target": (3, 8, 8), "mask": (3, 8, 8)}

    def batch(self, seed: int, epoch: int, indices: Sequence[int]) -> tuple[Tensor, ...]:
        inputs, targets = super().batch(seed, epoch, indices)
        return inputs, targets, torch.ones_like(targets)


class Sizes(Gallery):
    """Three images of two sizes, none a multiple of 4; input and target differ by 0.1, 0.2, 0.3."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        target = torch.full((3, 7, 5 + index % 2), 0.5)
        return target + 0.1 * (index + 1), target


class MadeSet(DataSet):
    fails: str = ""

    def load(self) -> Stream:
        kind = {"guided": Guided, "masked": Masked, "bytes": Bytes}.get(self.fails, Made)
        return kind(fails=self.fails)


class SizesSet(DataSet):
    def load(self) -> Gallery:
        return Sizes()


class Streams(Data):
    @hookimpl
    def graphnet_datasets(self, register: Register) -> None:
        super().graphnet_datasets(register)
        register("test/made", MadeSet)
        register("test/sizes", SizesSet)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Streams()], entry_points=False)


def trainer(registry: Registry, *, resume: Any = None, fails: str = "", **changes: Any) -> Trainer:
    data = {"train": {"test/made": {"fails": fails}}}
    return Trainer(job(registry, **{"data": data, "metrics": [], **changes}), resume=resume)


def test_bytes_are_0_to_1_as_in_memory(registry: Registry) -> None:
    feed = trainer(registry, fails="bytes", without=["block_layout"]).feed
    _, index = feed.samples(0)
    made = Bytes().batch(0, 0, index.tolist())
    for found, pixels in zip(feed.made(*feed.given(0)), made, strict=True):
        assert torch.equal(found, pixels.float() / 255)


@pytest.mark.parametrize("without", [[], ["block_layout"]])
def test_batches_do_not_depend_on_prefetching(registry: Registry, without: list[str]) -> None:
    """Any order of steps gives what the stream makes of that step's samples."""
    feed = trainer(registry, without=without).feed
    assert isinstance(feed, PrefetchedBatches)
    for step in (0, 1, 2, 9, 4, 5, 5, 3, 9):
        epoch, index = feed.samples(step)
        assert epoch == step // 5
        inputs, targets = Made().batch(0, epoch, index.tolist())
        found = feed.made(*feed.given(step))
        for tensor, value, expected in zip(found, feed.values, (inputs, targets), strict=True):
            assert torch.equal(tensor, packed(expected, value))
            assert (value.layout is None) == bool(without)
    assert sorted(torch.cat([feed.samples(step)[1] for step in range(5)])) == list(range(COUNT))


def test_each_seed_and_epoch_has_an_order_of_its_own(registry: Registry) -> None:
    orders = [
        tuple(trainer(registry, seed=seed).feed.order(epoch).tolist())
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    assert len(set(orders)) == 4


def test_a_stream_trains_like_the_same_pairs_in_memory(registry: Registry) -> None:
    ahead = trainer(registry, epochs=1)
    memory = trainer(registry, epochs=1)
    memory.feed = MemoryBatches(Pairs(*Made().pixels), memory.program.plan, seed=0)
    records = [record for record in ahead.run() if isinstance(record, Epoch)]
    expected = [record for record in memory.run() if isinstance(record, Epoch)]
    assert records[0].loss == expected[0].loss
    for name, weight in memory.program.weights.items():
        assert torch.equal(weight, ahead.program.weights[name]), name
    assert 0 < records[0].waiting <= 1
    assert expected[0].waiting == 0


@pytest.mark.parametrize("stop_after", [1, 5, 7])
def test_a_resumed_run_sees_the_same_pairs(
    registry: Registry, stop_after: int, tmp_path: Path
) -> None:
    whole = trainer(registry)
    list(whole.run())
    count = itertools.count()
    first = trainer(registry)
    assert list(first.run(lambda: next(count) >= stop_after))[-1] == Stopped(
        stop_after // 5 + 1, stop_after
    )
    write_checkpoint(tmp_path / "c.safetensors", first.checkpoint())
    second = trainer(registry, resume=read_checkpoint(tmp_path / "c.safetensors"))
    list(second.run())
    for name, weight in whole.program.weights.items():
        assert torch.equal(weight, second.program.weights[name]), name


def test_finish_receives_the_current_model_and_the_progress(registry: Registry) -> None:
    guided = trainer(registry, fails="guided")
    before = {name: weight.clone() for name, weight in guided.program.weights.items()}
    (first, second) = (record for record in guided.run() if isinstance(record, Epoch))
    assert first.loss < 1e-12  # prediction equals prediction, but for the last bit
    assert second.loss < 1e-12
    for name, weight in guided.program.weights.items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-6)
    assert isinstance(guided.pairs, Guided)
    assert guided.pairs.progress == [step / 10 for step in range(10)]


def test_a_loss_may_take_a_mask_from_the_data(registry: Registry) -> None:
    plain, masked = trainer(registry), trainer(registry, fails="masked", loss="masked_mse")
    (expected, found) = ([r.loss for r in t.run() if isinstance(r, Epoch)] for t in (plain, masked))
    assert found == pytest.approx(expected, rel=1e-5)
    message = (
        "the data gives a loss target and mask, but 'mse' takes target. "
        "Losses that take the same: masked_mse."
    )
    with pytest.raises(DataError, match=message):
        trainer(registry, fails="masked")
    message = "gives a loss target, but 'masked_mse' takes target and mask. .* same: mse"
    with pytest.raises(DataError, match=message):
        trainer(registry, loss="masked_mse")


def test_error_of_a_data_set_names_it(registry: Registry) -> None:
    with pytest.raises(
        LayerError, match="the data, Made: batch failed: ValueError: no more photos"
    ):
        list(trainer(registry, fails="batch").run())
    with pytest.raises(DataError, match=r"Made: expected batches of .* got \[\(3, 4, 8\), "):
        list(trainer(registry, fails="shapes").run())
    with pytest.raises(DataError, match=r"the loss takes a target \(3, 8, 8\), .* is \(3, 4, 8"):
        trainer(registry, fails="targets")
    with pytest.raises(DataError, match="batch_size is 64, but the data set has 40 pairs"):
        trainer(registry, batch_size=64)


class Gone(Made):
    """The same length and shapes, over other images."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = 1 - self.pixels


def test_another_stream_or_gallery_has_another_fingerprint() -> None:
    assert fingerprint(Made(), seed=1) == fingerprint(Made(), seed=1)
    assert fingerprint(Sizes(), seed=1) == fingerprint(Sizes(), seed=1)
    now = fingerprint(Gone(), seed=1)
    assert (
        difference(fingerprint(Made(), seed=1), now)
        == "it still has 40 pairs, but their contents differ"
    )
    found = difference(fingerprint(Sizes(), seed=1), now)
    assert found == "it had 3 pairs, now it has 40 pairs of 3x8x8 and 3x8x8"


def test_changing_data_is_refused_for_validation_and_whole_images_for_training(
    registry: Registry,
) -> None:
    with pytest.raises(
        DataError, match="MadeSet makes other pairs in each epoch; give data.valida"
    ):
        trainer(registry, data={"train": {"test/made": {}}, "validation": {"test/made": {}}})
    with pytest.raises(DataError, match="SizesSet holds whole images .* give data.train"):
        trainer(registry, data={"train": {"test/sizes": {}}})


def test_images_of_any_size_are_padded_and_measured_one_by_one(registry: Registry) -> None:
    sizes: list[tuple[int, ...]] = []

    def predict(x: Tensor) -> Tensor:
        sizes.append(tuple(x.shape))
        return x

    found = score(
        Sizes(),
        predict,
        {"error": Error()},
        device=torch.device("cpu"),
        dtype=torch.float32,
        target_dtype=torch.float32,
        divisor=4,
    )
    assert found == {"error": pytest.approx((0.1 + 0.2 + 0.3) / 3)}
    assert sizes == [(1, 3, 8, 8)] * 3
    data = {"train": {"test/made": {}}, "validation": {"test/sizes": {}}}
    made = trainer(registry, data=data, metrics=["test/error"])
    (*_, record) = made.run()
    assert isinstance(record, Epoch)
    assert 0 < record.metrics["test/error"] < 0.5
