"""Executor and Run: what an executor must define, and what a plan that is ready to run offers.

    class Loud(Executor):
        \"""Eager, and says so.\"""

        def prepare(self, plan: Plan) -> Run:
            run = Eager().prepare(plan)
            ...

An executor is a Definition: its fields are its configuration, as in `executor: {auto: {switch_after: 40}}`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from graphnet.errors import ContractError
from graphnet.sdk.definition import Definition

Make = Callable[..., tuple[Tensor, ...]]
"""Makes a plan's inputs of other tensors: of a data set's, by index."""

OneStep = Callable[["Run", Sequence[Tensor], Sequence[Tensor]], tuple[Tensor, ...]]
"""Runs one step of several, `one_step(run, given, rest)`: it calls `run.on` and returns its outputs.

It also sets the learning rate and counts the step, in tensors of `rest`.
"""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a run decided.

    Attributes:
        kind: the decision in one word, such as "switched".
        message: the decision in a sentence, for people.

    >>> event = Event("stayed", "stays on eager: there is no C++ compiler")
    >>> event.kind, event.message
    ('stayed', 'stays on eager: there is no C++ compiler')
    """

    kind: str
    message: str


class Run(ABC):
    """A plan that is ready to run: call it with the plan's arguments, in order, for the plan's outputs.

    Slots are written in place: their storage stays the same. If a Run decides something while it runs,
    `events` returns the decision, and `record` has what a resumed run needs to continue in the same way.

    >>> class Double(Run):
    ...     def __call__(self, *arguments):
    ...         return tuple(2 * x for x in arguments)
    >>> Double()(torch.ones(1))
    (tensor([2.]),)
    >>> Double().events()
    []
    """

    @abstractmethod
    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Run all steps once."""

    def on(self, make: Make, given: Sequence[Tensor], rest: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run all steps once on inputs that `make` makes from other tensors.

        Args:
            make: makes the plan's inputs. It depends on the values of `given` alone and never waits for the
                device: an executor that captures what a step launches may capture it too.
            given: the tensors that `make` takes.
            rest: the plan's other arguments.

        >>> class Sum(Run):
        ...     def __call__(self, *arguments):
        ...         return (sum(arguments),)
        >>> data = torch.tensor([1.0, 2.0, 4.0])
        >>> Sum().on(lambda data: (data[1:].sum(),), [data], [torch.tensor(1.0)])
        (tensor(7.),)
        """
        return self(*make(*given), *rest)

    @property
    def steps_at_once(self) -> int:
        """The number of steps that are fastest in one call of `on_each`; 1 if they are not faster together.

        >>> class Same(Run):
        ...     def __call__(self, *arguments):
        ...         return arguments
        >>> Same().steps_at_once
        1
        """
        return 1

    def on_each(
        self, one_step: OneStep, given: Sequence[Sequence[Tensor]], rest: Sequence[Tensor]
    ) -> list[tuple[Tensor, ...]]:
        """Run several steps, one after the other, and return the outputs of each.

        Args:
            one_step: runs a step with the run that it gets. It depends on the values of its tensors alone and
                never waits for the device: an executor may capture several steps together.
            given: the tensors that each step takes.
            rest: the plan's arguments that are not inputs.

        >>> class Double(Run):
        ...     def __call__(self, *arguments):
        ...         return tuple(2 * x for x in arguments)
        >>> def one_step(run, given, rest):
        ...     return run.on(as_given, given, rest)
        >>> Double().on_each(one_step, [[torch.tensor(1.0)], [torch.tensor(3.0)]], [])
        [(tensor(2.),), (tensor(6.),)]
        """
        return [one_step(self, tensors, rest) for tensors in given]

    def events(self) -> list[Event]:
        """What was decided since the last call of this method."""
        return []

    def record(self) -> dict[str, Any]:
        """Plain data for the log and the checkpoint: what was chosen."""
        return {}

    def restore(self, record: Mapping[str, Any]) -> None:
        """Continue as the run that wrote this record did. It is called only before the first step.

        >>> class Chosen(Run):
        ...     threads = 1
        ...
        ...     def __call__(self, *arguments):
        ...         return arguments
        ...
        ...     def record(self):
        ...         return {"threads": self.threads}
        ...
        ...     def restore(self, record):
        ...         self.threads = record["threads"]
        >>> run = Chosen()
        >>> run.restore({"threads": 2})
        >>> run.record()
        {'threads': 2}
        """
        del record  # nothing was chosen


def as_given(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the given tensors: the `make` for inputs that need no change.

    >>> as_given(torch.ones(1))
    (tensor([1.]),)
    """
    return tensors


class Executor(Definition):
    """A way to run plans; a subclass defines `prepare`.

    Attributes:
        switches: whether a run goes over to other code between two steps, when that is ready. Several
            processes would do so at different steps, so they refuse such an executor.

    >>> from graphnet.sdk import default_registry
    >>> class Loud(Executor):
    ...     switches = False
    ...
    ...     def prepare(self, plan):
    ...         print(f"a plan of {len(plan.steps)} step")
    ...         return default_registry().make("executors", "eager").prepare(plan)
    >>> from graphnet import Model
    >>> Model({"layers": ["relu"]}).predict(torch.tensor([[-1.0, 2.0]]), executor=Loud())
    a plan of 1 step
    tensor([[0., 2.]])
    """

    switches: ClassVar[bool] = False

    def prepare(self, plan: Any) -> Run:
        """Make a plan ready to run.

        Args:
            plan: a graphnet.plan.Plan. It has `steps`, the calls in order with the values that each frees,
                `values` by name, the names of `inputs`, `outputs`, `slots` and of all `arguments`.

        Returns:
            The run, which takes the plan's arguments.

        Raises:
            CompileError: the executor cannot work on this machine.
        """
        raise ContractError(f"{type(self).__name__} defines no prepare(plan)")
