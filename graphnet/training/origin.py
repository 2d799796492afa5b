"""Origin: where a loss or gradient that is not finite comes from, found by running the same steps again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from graphnet.errors import TrainingError
from graphnet.inspection import first_nonfinite
from graphnet.model import SINGLE, Joined, Program
from graphnet.sdk import Make

_LEAST_SCALE = 2.0**-24  # the initial loss scale, halved 40 times


@dataclass(frozen=True, slots=True)
class Again:
    """A step that runs again.

    Args:
        program: ran the step.
        make: makes the batch from the tensors `given`.
        given: these tensors.
        samples: the index of each sample of the batch in the data.
        where: which batch it is; empty if the data has indices for all samples.
    """

    program: Program
    make: Make
    given: tuple[Tensor, ...]
    samples: Sequence[int] | Tensor
    where: str = ""


class Origin:
    """A copy of the weights before a group of steps, from which the group can run again.

    Args:
        program: the program of the training.
        processes: those that train it together.
    """

    def __init__(self, program: Program, processes: Joined = SINGLE) -> None:
        self.program = program
        self.processes = processes
        self._before: dict[str, Tensor] = {}

    @property
    def _slots(self) -> dict[str, Tensor]:
        return {**self.program.weights.own, **self.program.optimizer_state}

    def remember(self) -> None:
        """Copy the weights before a group of steps."""
        for name, tensor in self._slots.items():
            if name in self._before:
                self._before[name].copy_(tensor)
            else:
                self._before[name] = tensor.clone()

    def check(
        self, mean: float, count: int, *, step: int, again: Callable[[], Iterable[Again]] | None
    ) -> None:
        """Check a group of steps when its losses have been read.

        Args:
            mean: the mean loss of the group.
            count: the number of its steps.
            step: the number of its last step, for messages.
            again: returns the same steps, which then run again one by one; None if they are not kept.

        Raises:
            TrainingError: the loss is not finite, or steps in float16 no longer update the weights. The
                weights are then those before the step that the message names.
        """
        first, lr = step - count + 1, self.program.lr
        if not math.isfinite(mean):
            found = self._find(again, count, first)
            raise TrainingError(
                f"the loss is {mean} within steps {first} to {step} (learning rate {lr:g}). {found} Lower "
                f"the learning rate, or correct the data. The last checkpoint is unchanged."
            )
        if (scale := self.program.loss_scale) is not None and scale < _LEAST_SCALE:
            found = self._find(again, count, first, gradients=True)
            raise TrainingError(
                f"steps up to {step} no longer update the weights: gradients in float16 are not finite, even "
                f"with the loss scale {scale:g}. {found} Correct this, or choose the precision bfloat16 or "
                f"float32. The last checkpoint is unchanged."
            )

    def check_updated(self) -> None:
        """Raise TrainingError if float16 has let no step update the weights."""
        program = self.program
        if program.updates_done == 0:
            raise TrainingError(
                f"none of {program.steps_done} steps has updated the weights: gradients in float16 are "
                f"not finite, even with the loss scale {program.loss_scale:g}, which each such step "
                f"halves. Train longer, or choose the precision bfloat16 or float32."
            )

    def _find(
        self,
        again: Callable[[], Iterable[Again]] | None,
        count: int,
        first: int,
        *,
        gradients: bool = False,
    ) -> str:
        """Run the last `count` steps again, and say what computed the first value that is not finite."""
        program = self.program
        for name, tensor in self._slots.items():
            tensor.copy_(self._before[name])
        program.rewind(program.steps_done - count)
        if again is None:
            return "The batches of these steps are too large to be kept: a smaller log_every finds more."
        for step, one in enumerate(again(), start=first):
            found = first_nonfinite(
                one.program.next_plan,
                one.program.packed_arguments(*one.make(*one.given)),
                registry=program.registry,
                gradients=gradients,
            )
            said = ""
            if found is not None:
                samples = tuple(int(one.samples[i]) for i in found.samples)
                said = str(replace(found, samples=samples))
            where = f", {one.where}" if one.where else ""
            for rank, found_there in enumerate(self.processes.texts(said)):
                if found_there:
                    who = f", process {rank}" if self.processes.count > 1 else ""
                    return f"In step {step}{where}{who}, {found_there}."
            one.program.step_made(one.make, *one.given)
        return "When the same steps run again, they are finite: a layer is not deterministic."
