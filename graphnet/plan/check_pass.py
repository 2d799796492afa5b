"""Check pass: the checks after each pass, and the further checks after a pass of a plugin."""

from __future__ import annotations

from collections.abc import Iterable

from graphnet.errors import InputError, PlanError, nearest
from graphnet.graph import Graph, Kind
from graphnet.plan.plan import schedule
from graphnet.plan.verify import (
    missing_waits,
    verify,
    verify_graph,
    verify_rewrite,
    verify_training,
)
from graphnet.sdk import ALONE, PASSES, Pass, Processes, Registry


class PassCheck:
    """The check after each pass of one compilation.

    After a pass of a plugin, a plan is made of its graph and verified at once, so that the error names the
    plugin.

    Args:
        registry: says which pass is a plugin's.
        optimizes: whether an optimizer updates the parameters after the pass "update".
        processes: those that compute the step together.
    """

    def __init__(
        self, registry: Registry, *, optimizes: bool, processes: Processes = ALONE
    ) -> None:
        self.registry = registry
        self.optimizes = optimizes
        self.processes = processes
        self._updated = False  # whether the pass "update" has run

    def __call__(
        self, step: Pass[Graph], before: Graph, after: Graph, settled: Graph | None
    ) -> None:
        """Check the result of a pass.

        Args:
            step: the pass.
            before: the graph that it got.
            after: the graph that it returned.
            settled: the last graph of a settled pass, which was checked, or None.

        Raises:
            PlanError: the graph is rejected.
        """
        self._updated = self._updated or step.name == "update"
        if after is before:
            return
        entry = self.registry.passes.get(step.name)
        if entry is None or entry.plugin.builtin:
            self._check(step, before, after, settled)
            return
        try:
            if not isinstance(after, Graph):
                raise PlanError(f"it returns {type(after).__name__}, expected a Graph")
            self._check(step, before, after, settled)
            if step.settled and not missing_waits(before):  # else the updates are still being added
                verify(after, schedule(after))
        except Exception as error:  # a damaged graph can make any of the checks fail
            is_ours = isinstance(error, PlanError)
            cause = str(error) if is_ours else f"{type(error).__name__}: {error}"
            raise PlanError(
                f"pass {step.name!r} of {entry.plugin.distribution} {entry.plugin.version} makes a wrong "
                f"graph: {cause}. Leave it out with without: [{step.name}], and tell its author."
            ) from error

    def _check(self, step: Pass[Graph], before: Graph, after: Graph, settled: Graph | None) -> None:
        if step.exact:
            verify_rewrite(before, after)
        elif any(call.kind is Kind.BACKWARD for call in after.calls.values()):
            updates = self.optimizes and self._updated
            verify_training(after, updates=updates, processes=self.processes)
        if step.settled:
            verify_graph(after, since=settled)


def check_known(without: Iterable[str], registry: Registry) -> None:
    """Raise InputError if a pass that is to be switched off is neither ours nor a plugin's."""
    known = {*PASSES, *registry.passes}
    for name in sorted(without):
        if name not in known:
            raise InputError(f"without: unknown pass {name!r}. {nearest(name, known)}")
