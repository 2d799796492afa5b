"""The eager executor: the plan's generated function, run by Python as it is."""

from __future__ import annotations

import itertools
import linecache
from typing import Any

from torch import Tensor

from graphnet.errors import step_failure
from graphnet.plan import Plan, Step, generate
from graphnet.sdk import Executor, Run
from graphnet.system import keep_freed_memory

_number = itertools.count(1)


class Eager(Executor):
    """The plan's generated function, run by Python as it is."""

    def prepare(self, plan: Plan) -> Function:
        if plan.device.type == "cpu":
            keep_freed_memory()
        return Function(plan)


class Function(Run):
    """Calls the generated function; on an error, finds the step by the line that failed.

    `step` is the function itself; it shows up in tracebacks as <graphnet plan N>.
    """

    def __init__(self, plan: Plan) -> None:
        self.source = generate(plan)
        self.filename = f"<graphnet plan {next(_number)}>"
        namespace: dict[str, Any] = dict(self.source.namespace)
        exec(compile(self.source.text, self.filename, "exec"), namespace)
        self.step = namespace["step"]

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        try:
            outputs: tuple[Tensor, ...] = self.step(*arguments)
        except Exception as error:
            step = self.step_of(error)
            if step is None:
                raise
            call = step.call
            raise step_failure(
                error, node=call.node, title=call.title, method=call.function, where=call.where
            ) from error
        return outputs

    def step_of(self, error: Exception) -> Step | None:
        """The step of the plan in which an error came up; its traceback then shows the source."""
        traceback = error.__traceback__
        while traceback and traceback.tb_frame.f_code.co_filename != self.filename:
            traceback = traceback.tb_next
        step = self.source.lines.get(traceback.tb_lineno) if traceback else None
        if step is not None:
            text = self.source.text
            linecache.cache[self.filename] = (len(text), None, text.splitlines(True), self.filename)
        return step
