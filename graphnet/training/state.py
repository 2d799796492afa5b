"""State: what a checkpoint says of a training beside its tensors, checked when it is read.

A checkpoint without a field that was added later is read with the field's default.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)

from graphnet.errors import CheckpointError
from graphnet.model import Checkpoint
from graphnet.sdk import first_fault

_CHECKED = ConfigDict(extra="forbid", strict=True, frozen=True)


class Fingerprint(BaseModel):
    """What identifies a data set.

    Attributes:
        pairs: their number.
        shapes: those of one input and its targets; [] for a gallery, whose images differ in size.
        contents: a digest of the data; "" for a torch Dataset, whose samples may be random.
    """

    model_config = _CHECKED
    pairs: NonNegativeInt
    shapes: list[list[NonNegativeInt]]
    contents: str


class GroupState(BaseModel):
    """The steps since the last record of a log, whose losses are in no record yet.

    Attributes:
        loss: the sum of their losses.
        samples: what the sum is divided by for the mean.
        steps: their number.
        reported: the sums of what the program reports by name, each with the number of steps.
    """

    model_config = _CHECKED
    loss: float = 0.0
    samples: NonNegativeInt = 0
    steps: NonNegativeInt = 0
    reported: dict[str, tuple[float, PositiveInt]] = {}


class TrainingState(BaseModel):
    """The state of any training.

    Attributes:
        step: the number of steps that are done.
        epochs_done: the number of epochs whose metrics are measured.
        elapsed_s: the time that the steps have taken.
        config: the training file's fields, or the arguments of `train`.
        kernels: the kernel of each node.
        executor: the executor's choices.
        reporters: the state of each reporter that has one.
        group: the steps since the last record.
        log_bytes: the size of the log when the checkpoint was written.
    """

    model_config = _CHECKED
    step: NonNegativeInt
    epochs_done: NonNegativeInt
    elapsed_s: NonNegativeFloat
    config: dict[str, JsonValue]
    kernels: dict[str, str] = {}
    executor: dict[str, JsonValue] = {}
    reporters: dict[str, dict[str, JsonValue]] = {}
    group: GroupState = GroupState()
    log_bytes: NonNegativeInt | None = None

    @classmethod
    def of(cls, saved: Checkpoint, path: Path | str = "the checkpoint") -> Self:
        """Check what a checkpoint says of its training. Raises CheckpointError, which names the field."""
        try:
            return cls.model_validate_json(json.dumps(saved.training))
        except ValidationError as error:
            raise CheckpointError(
                f"{path}: not a checkpoint of such a training: training.{first_fault(error)}"
            ) from None

    def plain(self) -> dict[str, Any]:
        """The state as plain data, for a checkpoint."""
        return self.model_dump(mode="json")


class TrainerState(TrainingState):
    """The state of a training from a training file.

    Attributes:
        loss_sum: the sum of the losses of the epoch's steps, except those of `group`.
        precision: the precision of the steps, "" if the checkpoint does not say it.
        data: the fingerprints of the data sets, by their names in a training file; None if the checkpoint is
            older than fingerprints.
    """

    loss_sum: float = 0.0
    precision: str = ""
    data: dict[str, Fingerprint] | None = None


class RandomStates(BaseModel):
    """The states of the random generators that torch's own loaders draw from.

    Attributes:
        torch: that of torch, in hexadecimal digits.
        python: that of the module random: its version, its words, and the next normal number.
        loader: that of the loader's own generator; None if it has none.
    """

    model_config = _CHECKED
    torch: str
    python: tuple[int, list[int], float | None]
    loader: str | None = None


class LoaderState(TrainingState):
    """The state of a training on a torch loader.

    Attributes:
        steps_done: the steps of the program, which may have been trained before.
        random: the random states.
    """

    steps_done: NonNegativeInt
    random: RandomStates
