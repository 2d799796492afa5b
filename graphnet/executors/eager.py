"""The eager executor: the plan's generated function, run by Python as it stands."""

from __future__ import annotations

import itertools
import linecache
from typing import Any

from torch import Tensor

from graphnet.executors.failure import failure
from graphnet.plan import Plan
from graphnet.source import Source, generate

_number = itertools.count(1)


def prepare(plan: Plan) -> _Function:
    """Compile the plan's source; it shows up in tracebacks as <graphnet plan N>."""
    source = generate(plan)
    filename = f"<graphnet plan {next(_number)}>"
    namespace: dict[str, Any] = dict(source.namespace)
    exec(compile(source.text, filename, "exec"), namespace)
    return _Function(namespace["step"], filename, source)


class _Function:
    """Calls the generated function; on an error, finds the step by the line that failed."""

    def __init__(self, step: Any, filename: str, source: Source) -> None:
        self.step = step
        self.filename = filename
        self.source = source

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        try:
            outputs: tuple[Tensor, ...] = self.step(*arguments)
        except Exception as error:
            traceback = error.__traceback__
            while traceback and traceback.tb_frame.f_code.co_filename != self.filename:
                traceback = traceback.tb_next
            step = self.source.lines.get(traceback.tb_lineno) if traceback else None
            if step is None:
                raise
            text = self.source.text
            linecache.cache[self.filename] = (len(text), None, text.splitlines(True), self.filename)
            raise failure(step.call, error) from error
        return outputs
