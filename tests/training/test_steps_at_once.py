"""A training of which several steps run at once: the same bits, records, stops and checkpoints."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from graphnet.sdk import Record, Register, Registry, hookimpl, load_registry
from graphnet.training import Decided, Epoch, Steps, Stopped, Trainer
from tests.support.recordings import OnTheCPU
from tests.training.test_trainer import Data, job

AT_ONCE = 4


class Recorded(Data):
    @hookimpl
    def graphnet_executors(self, register: Register) -> None:
        register("test/recorded", OnTheCPU)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Recorded()], entry_points=False)


SETTINGS: dict[str, Any] = {
    "data": {
        "train": {"test/noise": {"count": 104}},  # 13 steps in an epoch
        "validation": {"test/noise": {"count": 5}},
    },
    "schedule": "cosine",
    "optimizer": {"adam": {"lr": 0.01}},
    "ema": 0.9,
    "epochs": 3,
    "log_every": 6,
}


def trained(registry: Registry, executor: object, **settings: Any) -> Trainer:
    return Trainer(job(registry, **SETTINGS, executor=executor), **settings)


def plain(record: Record) -> Record:
    """A record without times."""
    if isinstance(record, Steps):
        return replace(record, steps_per_s=0.0)
    return replace(record, elapsed_s=0.0, waiting=0.0) if isinstance(record, Epoch) else record


def told(records: list[Record]) -> list[Record]:
    return [plain(record) for record in records if not isinstance(record, Decided)]


def check_same(mine: Trainer, theirs: Trainer) -> None:
    found, expected = (
        {**one.checkpoint().weights, **one.checkpoint().training_state} for one in (mine, theirs)
    )
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_training_in_groups_of_steps_has_the_bits_and_records_of_single_steps(
    registry: Registry,
) -> None:
    recorded = {"test/recorded": {"steps": AT_ONCE}}
    mine, theirs = trained(registry, recorded), trained(registry, "eager")
    at_once: list[int] = []
    one_call = mine.program.steps_made
    mine.program.steps_made = lambda make, given, *, lrs: (  # type: ignore[method-assign]
        at_once.append(len(given)) or one_call(make, given, lrs=lrs)
    )
    found = list(mine.run())
    assert told(found) == told(list(theirs.run()))
    check_same(mine, theirs)
    epoch = [4, 1, 1, 4, 1, 1, 1]  # up to a record after each 6 steps, and the epoch's end after 13
    assert at_once == epoch * 3
    events = [record.message for record in found if isinstance(record, Decided)]
    assert any("4 steps were captured as one" in message for message in events)


@pytest.mark.parametrize("stop", [0, 1, 2, 5])
def test_a_training_stops_between_groups_and_is_resumed_to_the_bit(
    registry: Registry, stop: int
) -> None:
    recorded = {"test/recorded": {"steps": AT_ONCE}}
    whole = trained(registry, "eager")
    list(whole.run())
    first, asked = trained(registry, recorded), itertools.count()
    *_, last = first.run(should_stop=lambda: next(asked) == stop)
    assert isinstance(last, Stopped)
    assert last.step == [0, 4, 5, 11][[0, 1, 2, 5].index(stop)]
    second = trained(registry, recorded, resume=first.checkpoint())
    list(second.run())
    check_same(second, whole)


def test_data_that_is_made_while_training_runs_step_by_step(registry: Registry) -> None:
    recorded = {"test/recorded": {"steps": AT_ONCE}}
    mine = trained(registry, recorded)
    assert mine.feed.in_memory
    mine.feed.in_memory = False  # type: ignore[misc]
    records = list(mine.run())
    assert not any("as one" in one.message for one in records if isinstance(one, Decided))
