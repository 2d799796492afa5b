"""Origin: where a loss or gradient that is not finite comes from, found by running the same steps again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from graphnet.inspection import first_nonfinite
from graphnet.model import Program
from graphnet.sdk import Registry
from graphnet.training.batches import BatchSource


class Origin:
    """A copy of the weights before a group of steps, from which the group can run again.

    Args:
        program: the program of the training.
        feed: gives the batches.
        next_step: sets the learning rate of the next step, and returns what its batch is made from.
        registry: has the names of the layers and their plugins.
    """

    def __init__(
        self,
        program: Program,
        feed: BatchSource,
        next_step: Callable[[], tuple[Tensor, ...]],
        registry: Registry,
    ) -> None:
        self.program = program
        self.feed = feed
        self.next_step = next_step
        self.registry = registry
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

    def find(self, count: int, *, gradients: bool = False) -> str:
        """Run the last `count` steps again, and say what computed the first value that is not finite."""
        program = self.program
        for name, tensor in self._slots.items():
            tensor.copy_(self._before[name])
        program.rewind(program.steps_done - count)
        for _ in range(count):
            _, index = self.feed.samples(program.steps_done)
            given = self.next_step()
            found = first_nonfinite(
                program.next_plan,
                program.packed_arguments(*self.feed.made(*given)),
                registry=self.registry,
                gradients=gradients,
            )
            if found is not None:
                pairs = tuple(int(index[i]) for i in found.samples)
                return f"In step {program.steps_done + 1}, {replace(found, samples=pairs)}."
            program.step_made(self.feed.made, *given)
        return "When the same steps run again, they are finite: a layer is not deterministic."
