"""The reference executor: a dictionary of values, one step after the other. Slow, obviously right.

It checks the number, shapes and dtypes of all results against the plan. Before a call overwrites a storage,
it checks that no value lies there which has another storage in the plan. The conformance kit, not this
executor, checks that methods do not write to their arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from graphnet.errors import LayerError, step_failure
from graphnet.graph import Arg, Call, Const, Kind, Slot, positional, storage_of
from graphnet.plan import Plan
from graphnet.sdk import Executor, Run, Spec


class Reference(Executor):
    """A dictionary of values, one step after the other: slow, obviously right."""

    def prepare(self, plan: Plan) -> Interpreter:
        return Interpreter(plan)


class Interpreter(Run):
    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        environment = dict(zip(self.plan.arguments, arguments, strict=True))
        for step in self.plan.steps:
            self.execute(step.call, environment)
            for name in step.frees:
                del environment[name]
        return tuple(environment[name] for name in self.plan.outputs)

    def execute(self, call: Call, environment: dict[str, Tensor]) -> None:
        """Run one call: read its arguments from the environment, put its results there."""
        self.writes_its_own(call, environment)
        try:
            results = positional(
                call.layer, call.function, [_read(arg, environment) for arg in call.args]
            )
        except Exception as error:
            shapes = [str(tuple(environment[name].shape)) for name in call.reads()]
            raise step_failure(
                error,
                node=call.node,
                title=call.title,
                method=call.function,
                where=call.where,
                given=", ".join(shapes),
            ) from error
        if call.kind is Kind.UPDATE:
            environment.update({new: environment[slot] for new, slot in call.writes.items()})
        else:
            self.store(call, results, environment)

    def writes_its_own(self, call: Call, environment: dict[str, Tensor]) -> None:
        """Raise LayerError if a call would overwrite a value that has another storage in the plan.

        The plan's views were observed on meta tensors; with real strides a copy may have become a view.
        """
        for target in call.writes.values():
            written = storage_of(environment[target])
            for name, tensor in environment.items():
                if storage_of(tensor) == written and self.plan.storage(name) != self.plan.storage(
                    target
                ):
                    maker = next((s.call for s in self.plan.steps if name in s.call.makes()), call)
                    raise LayerError(
                        f"node {maker.node!r} ({maker.title}): expected {maker.function} to return "
                        f"{name!r} in a storage of its own, as it did on meta tensors, found it in "
                        f"that of {target!r}, which {call.name!r} overwrites while {name!r} is still "
                        f"needed. Its strides are {tensor.stride()}. Return a copy: clone()."
                    )

    def store(self, call: Call, results: tuple[Any, ...], environment: dict[str, Tensor]) -> None:
        if len(results) != len(call.results):
            raise LayerError(
                f"node {call.node!r} ({call.title}): {call.function} must return {len(call.results)} "
                f"results, returned {len(results)}"
            )
        for slot, result in zip(call.results, results, strict=True):
            self.put(call, slot, result, environment)

    def put(self, call: Call, slot: Slot, result: Any, environment: dict[str, Tensor]) -> None:
        if isinstance(slot, tuple):
            for one, part in zip(slot, result, strict=True):
                self.put(call, one, part, environment)
        elif slot is not None:
            spec = self.plan.values[slot].spec
            found = Spec.of(result)
            if found != spec:
                raise LayerError(
                    f"node {call.node!r} ({call.title}): {call.function} must return {slot!r} as {spec} "
                    f"on {spec.device}, returned {found} on {found.device}"
                )
            target = call.writes.get(slot)
            if target is not None and storage_of(result) != storage_of(environment[target]):
                raise LayerError(
                    f"node {call.node!r} ({call.title}): {call.function} must return {slot!r} in the "
                    f"storage of {target!r}, which it overwrites, returned another tensor"
                )
            environment[slot] = result


def _read(arg: Arg, environment: Mapping[str, Tensor]) -> Any:
    match arg:
        case str():
            return environment[arg]
        case tuple():
            return tuple(environment[name] for name in arg)
        case Const(value=value):
            return value
