"""The auto executor: training starts on eager and switches to the compiled plan when the two agree.

Another process compiles the plan while eager runs the first steps. When the compiled plan is ready, eager
and the compiled plan both run the next step, the compiled plan on copies of the slots, and the loss and
every slot are compared. That step returns eager's result. If the results agree, the compiled plan runs all
following steps; otherwise eager does, and an event says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from graphnet.errors import CacheError, CompileError, LayerError
from graphnet.executors.background_compile import Compilation
from graphnet.executors.compare import agreement, disagreement
from graphnet.executors.eager import Eager, Function
from graphnet.executors.inductor_compile import (
    Compiled,
    CompileJob,
    compile_job,
    load,
    make_job,
    require_compiler,
)
from graphnet.graph import Kind
from graphnet.passes import skipped
from graphnet.plan import Plan
from graphnet.sdk import Event, Executor, Run
from graphnet.system import Hit, open_cache


class Auto(Executor):
    """Starts on eager and switches to the compiled plan when the two agree on a step of the training.

    A plan without updates, which only predicts, always runs on eager.

    Args:
        switch_after: the step at which an earlier run compared and switched, from that run's log. The run
            then waits for the compiler at that step, so that it gives the same bits as the earlier run.
    """

    switches: ClassVar[bool] = True
    switch_after: Annotated[int, Field(ge=1)] | None = None

    def prepare(self, plan: Plan) -> Run:
        if not any(step.call.kind is Kind.UPDATE for step in plan.steps):
            return Eager().prepare(plan)
        return _Run(plan, self.switch_after)


class _Run(Run):
    """`compiled` is None until the switch; `stayed` is the reason if eager runs all steps."""

    def __init__(self, plan: Plan, switch_after: int | None) -> None:
        self.plan = plan
        self.switch_after = switch_after
        self.eager: Function = Eager().prepare(plan)
        self._events: list[Event] = []
        self.steps = 0
        self.switched_after: int | None = None
        self.stayed: str | None = None
        self.compiled: Compiled | None = None
        self.worker: Compilation | None = None
        self.cached: tuple[CompileJob, Hit] | None = None
        self.unchecked: Compiled | None = None  # loaded, but not yet compared with eager

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        self.steps += 1
        if self.compiled is not None:
            return self.compiled(*arguments)
        if self.stayed is not None:
            return self.eager(*arguments)
        resumed = self.switched_after is not None
        due = resumed or (self.switch_after is not None and self.steps >= self.switch_after)
        begun = (self.worker, self.cached, self.unchecked) != (None, None, None)
        if not begun and not due:  # the first step does not wait for the compiler to start
            outputs = self.eager(*arguments)
            self._start_compiling(arguments)
            return outputs
        ready = due or (self.switch_after is None and self._ready())
        compiled = self.unchecked or (self._get_compiled(arguments) if ready else None)
        if compiled is None:
            return self.eager(*arguments)
        if resumed:  # the run that is resumed has already compared the two
            self.compiled = compiled
            self._report("compiled", f"continues with the compiled plan, which was {compiled.how}")
            return compiled(*arguments)
        return self._compare(compiled, arguments)

    def events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

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

    def _start_compiling(self, arguments: Sequence[Tensor]) -> None:
        """Look the plan up in the cache; if it is not cached, start to compile it in another process."""
        try:
            job, cache = make_job(self.plan, arguments), open_cache()
            found = cache.find(job.key)
            if isinstance(found, Hit):
                self.cached = job, found
            else:
                require_compiler(arguments[0].device)
                modules = sorted({type(step.call.layer).__module__ for step in self.plan.steps})
                self.worker = Compilation(job, cache, modules=tuple(modules))
                self._report("compiling", f"compiles the plan in another process: {found.reason}")
        except (CompileError, CacheError, LayerError) as error:
            self._stay_on_eager(str(error))

    def _ready(self) -> bool:
        return self.cached is not None or (self.worker is not None and self.worker.ready())

    def _get_compiled(self, arguments: Sequence[Tensor]) -> Compiled | None:
        """Return the compiled plan, after a wait if it is not ready; None if it cannot be had."""
        try:
            if self.worker is not None:
                job, hit = self.worker.job, self.worker.finish()
                origin = "compiled by another process and loaded"
            elif self.cached is not None:
                job, hit = self.cached
                origin = "taken from the cache"
            else:
                return compile_job(make_job(self.plan, arguments))
            self.worker = self.cached = None
            loaded = load(open_cache(), job, hit, origin)
            if isinstance(loaded, Compiled):
                return loaded
            self._report("damaged", f"{loaded.reason}; it is compiled again")
            self._start_compiling(arguments)
        except (CompileError, CacheError, LayerError) as error:
            self._stay_on_eager(str(error))
        return None

    def _compare(self, compiled: Compiled, arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run one step twice, by the compiled plan on copies of the slots and by eager, and compare."""
        slots = set(self.plan.slots)
        named = dict(zip(self.plan.arguments, arguments, strict=True))
        copies = {name: named[name].clone() for name in slots}
        before = {name: named[name].clone() for name in slots}
        found = compiled(*(copies.get(name, tensor) for name, tensor in named.items()))
        outputs = self.eager(*arguments)
        if skipped(before, named):
            self.unchecked = compiled  # the next step is compared
            return outputs
        problem = disagreement(self.plan, before, expected=(outputs, named), found=(found, copies))
        if problem is not None:
            self._stay_on_eager(f"the compiled plan does not agree with eager: {problem}")
            return outputs
        self.compiled, self.switched_after, self.unchecked = compiled, self.steps, None
        self._report(
            "switched",
            f"continues with the compiled plan, which was {compiled.how}, and {agreement(self.plan)}",
        )
        return outputs

    def _stay_on_eager(self, reason: str) -> None:
        self.stayed = reason
        self.worker = self.cached = self.unchecked = None
        self._report("stayed", f"stays on eager: {reason}")

    def _report(self, kind: str, message: str) -> None:
        self._events.append(Event(kind, message))
