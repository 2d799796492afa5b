"""The inductor executor: Inductor compiles the plan's whole function at the first step."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from graphnet.executors.inductor_compile import Compiled, compile_job, make_job, require_compiler
from graphnet.plan import Plan
from graphnet.sdk import Event, Executor, Run
from graphnet.system import keep_freed_memory


class Inductor(Executor):
    """Compiles the whole plan with Inductor at the first step, or loads the compiled plan from the cache."""

    def prepare(self, plan: Plan) -> Run:
        require_compiler(plan.device)
        if plan.device.type == "cpu":
            keep_freed_memory()
        return _Run(plan)


class _Run(Run):
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.compiled: Compiled | None = None
        self._events: list[Event] = []

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        if self.compiled is None:
            self.compiled = compile_job(make_job(self.plan, arguments))
            self._events.append(Event("compiled", f"the plan was {self.compiled.how}"))
        return self.compiled(*arguments)

    def events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def record(self) -> dict[str, Any]:
        return {"compiled": self.compiled.how} if self.compiled else {}
