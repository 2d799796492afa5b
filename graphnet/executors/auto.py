"""The auto executor: training starts on eager and goes on with the compiled plan once that agrees.

The plan is compiled in another process meanwhile. At the first step after it is there, both run that step -
the compiled one on copies of the slots - and the loss and every slot are compared. Eager's result counts; if
the two agree, the compiled plan runs from the next step on, else eager stays, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from graphnet.errors import CacheError, CompileError, LayerError
from graphnet.executors.background_compile import Compilation
from graphnet.executors.compare import agrees, disagreement
from graphnet.executors.eager import Eager, Function
from graphnet.executors.inductor_compile import (
    Compiled,
    Problem,
    compile_problem,
    load,
    pose,
    require_compiler,
)
from graphnet.graph import Kind
from graphnet.passes import skipped
from graphnet.plan import Plan
from graphnet.sdk import Event, Executor, Run
from graphnet.system import Hit, open_cache


class Auto(Executor):
    """Starts on eager, goes on with the compiled plan once it is there and agrees on a real step.

    switch_after: the number of steps to run on eager before the switch, as an earlier run recorded it. That
    step then waits for the compiler, so that the run gives the same bits as the earlier one.
    A plan without updates, which only predicts, runs on eager.
    """

    switch_after: Annotated[int, Field(ge=1)] | None = None

    def prepare(self, plan: Plan) -> Run:
        if not any(step.call.kind is Kind.UPDATE for step in plan.steps):
            return Eager().prepare(plan)
        return _Run(plan, self.switch_after)


class _Run(Run):
    """`compiled` is None until the switch; `stayed` says why there is none to come."""

    def __init__(self, plan: Plan, switch_after: int | None) -> None:
        self.plan = plan
        self.switch_after = switch_after
        self.eager: Function = Eager().prepare(plan)
        self.news: list[Event] = []
        self.steps = 0
        self.switched_after: int | None = None
        self.stayed: str | None = None
        self.compiled: Compiled | None = None
        self.waiting: Compilation | None = None
        self.cached: tuple[Problem, Hit] | None = None
        self.loaded: Compiled | None = None  # until it has been compared

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        self.steps += 1
        if self.compiled is not None:
            return self.compiled(*arguments)
        if self.stayed is not None:
            return self.eager(*arguments)
        resumed = self.switched_after is not None
        due = resumed or (self.switch_after is not None and self.steps >= self.switch_after)
        begun = (self.waiting, self.cached, self.loaded) != (None, None, None)
        if not begun and not due:  # the first step starts at once
            outputs = self.eager(*arguments)
            self._begin(arguments)
            return outputs
        ready = due or (self.switch_after is None and self._ready())
        compiled = self.loaded or (self._take(arguments) if ready else None)
        if compiled is None:
            return self.eager(*arguments)
        if resumed:  # the two agreed in the run that is resumed
            self.compiled = compiled
            self._say("compiled", f"goes on with the compiled plan, which was {compiled.how}")
            return compiled(*arguments)
        return self._compare(compiled, arguments)

    def events(self) -> list[Event]:
        news, self.news = self.news, []
        return news

    def record(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "switched_after": self.switched_after,
            "stayed": self.stayed,
            "compiled": self.compiled.how if self.compiled else None,
        }

    def restore(self, record: Mapping[str, Any]) -> None:
        self.steps = record["steps"]
        self.switched_after = record["switched_after"]
        self.stayed = record["stayed"]

    def _begin(self, arguments: Sequence[Tensor]) -> None:
        """Look into the cache, and have the plan compiled if it is not there."""
        try:
            problem, cache = pose(self.plan, arguments), open_cache()
            found = cache.find(problem.key)
            if isinstance(found, Hit):
                self.cached = problem, found
            else:
                require_compiler(arguments[0].device)
                modules = sorted({type(step.call.layer).__module__ for step in self.plan.steps})
                self.waiting = Compilation(problem, cache, modules=tuple(modules))
                self._say("compiling", f"compiling the plan meanwhile: {found.reason}")
        except (CompileError, CacheError, LayerError) as error:
            self._stay(str(error))

    def _ready(self) -> bool:
        return self.cached is not None or (self.waiting is not None and self.waiting.ready())

    def _take(self, arguments: Sequence[Tensor]) -> Compiled | None:
        """The compiled plan, waiting for it if need be; None, with the reason said, if there is none."""
        try:
            if self.waiting is not None:
                problem, hit = self.waiting.problem, self.waiting.finish()
                origin = "compiled meanwhile and loaded"
            elif self.cached is not None:
                problem, hit = self.cached
                origin = "taken from the cache"
            else:
                return compile_problem(pose(self.plan, arguments))
            self.waiting = self.cached = None
            loaded = load(open_cache(), problem, hit, origin)
            if isinstance(loaded, Compiled):
                return loaded
            self._say("damaged", f"{loaded.reason}; it is compiled anew")
            self._begin(arguments)
        except (CompileError, CacheError, LayerError) as error:
            self._stay(str(error))
        return None

    def _compare(self, compiled: Compiled, arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run one step by both: eager on the slots themselves, the compiled plan on copies."""
        slots = set(self.plan.slots)
        named = dict(zip(self.plan.arguments, arguments, strict=True))
        copies = {name: named[name].clone() for name in slots}
        before = {name: named[name].clone() for name in slots}
        found = compiled(*(copies.get(name, tensor) for name, tensor in named.items()))
        outputs = self.eager(*arguments)
        if skipped(before, named):
            self.loaded = compiled  # the next step is compared
            return outputs
        problem = disagreement(self.plan, before, expected=(outputs, named), found=(found, copies))
        if problem is not None:
            self._stay(f"the compiled plan does not agree with eager: {problem}")
            return outputs
        self.compiled, self.switched_after, self.loaded = compiled, self.steps, None
        self._say(
            "switched",
            f"goes on with the compiled plan, which was {compiled.how}, and {agrees(self.plan)}",
        )
        return outputs

    def _stay(self, reason: str) -> None:
        self.stayed = reason
        self.waiting = self.cached = self.loaded = None
        self._say("stayed", f"stays on eager: {reason}")

    def _say(self, kind: str, message: str) -> None:
        self.news.append(Event(kind, message))
