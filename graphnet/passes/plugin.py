"""The passes' plugin: a pass of graphnet's own that is registered by the public hook."""

from __future__ import annotations

from graphnet.passes.common_subexpressions import common_subexpressions
from graphnet.sdk import Pass, Register, hookimpl


@hookimpl
def graphnet_passes(register: Register) -> None:
    summary = "Calls that compute the same become one."
    register("common_subexpressions", Pass(common_subexpressions, summary, after="dead_code"))
