"""The inductor executor: the plan's whole function, forward to update, compiled at the first step."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from graphnet.executors.inductor_compile import Compiled, compile_problem, pose, require_compiler
from graphnet.plan import Plan
from graphnet.sdk import Event, Executor, Run


class Inductor(Executor):
    """The plan compiled whole by Inductor, or taken compiled from the cache, at its first step."""

    def prepare(self, plan: Plan) -> Run:
        require_compiler(plan.values[plan.arguments[0]].spec.device)
        return _Run(plan)


class _Run(Run):
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.compiled: Compiled | None = None
        self.news: list[Event] = []

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        if self.compiled is None:
            self.compiled = compile_problem(pose(self.plan, arguments))
            self.news.append(Event("compiled", f"the plan was {self.compiled.how}"))
        return self.compiled(*arguments)

    def events(self) -> list[Event]:
        news, self.news = self.news, []
        return news

    def record(self) -> dict[str, Any]:
        return {"compiled": self.compiled.how} if self.compiled else {}
