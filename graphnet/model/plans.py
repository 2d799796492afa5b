"""Plans: the graphs and plans of one network, for inputs of any shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graphnet.description import Expanded, UpdateSettings, losses_for, term_names
from graphnet.errors import InputError
from graphnet.graph import Graph
from graphnet.model.fits import fitting
from graphnet.model.processes import Joined
from graphnet.passes import attach_loss
from graphnet.plan import (
    CompileOptions,
    Plan,
    Tiling,
    adding_plan,
    forward_graph,
    inference_plan,
    tile,
    training_plan,
)
from graphnet.sdk import Registry
from graphnet.system import parse_bytes, without_gc

Shape = Sequence[int]
_NO_UPDATES = UpdateSettings()


@dataclass(frozen=True)
class Plans:
    """Makes the plans of an expanded network; it does not keep them."""

    network: Expanded
    registry: Registry

    def graph(self, inputs: Sequence[Shape], options: CompileOptions) -> Graph:
        """Build the forward graph for inputs of these shapes. Raises GraphError if shapes do not fit."""
        return forward_graph(self.network, inputs, options)

    @without_gc()
    def plan(
        self,
        inputs: Sequence[Shape],
        options: CompileOptions,
        *,
        loss: object = None,
        updates: UpdateSettings = _NO_UPDATES,
    ) -> Plan:
        """Make the plan of a training step; without a loss, the plan of inference."""
        if loss is None:
            return inference_plan(self.graph(inputs, options), self.registry, options)
        return self._step(training_plan, inputs, options, loss, updates, Joined())

    @without_gc()
    def steps(
        self,
        inputs: Sequence[Shape],
        options: CompileOptions,
        loss: object,
        updates: UpdateSettings,
        joined: Joined,
    ) -> tuple[Plan, ...]:
        """Make the plan of a step with an update and, if updates take several steps, that of the others."""
        adds = () if updates.accumulate == 1 else (adding_plan,)
        settings = inputs, options, loss, updates, joined
        return tuple(self._step(make, *settings) for make in (training_plan, *adds))

    def _step(
        self,
        make: Callable[..., Plan],
        inputs: Sequence[Shape],
        options: CompileOptions,
        loss: object,
        updates: UpdateSettings,
        joined: Joined,
    ) -> Plan:
        """Make the plan of a step on this process's part of a batch."""
        parts = joined.micro_batches(deterministic=updates.deterministic)
        graph = self.graph([_micro(shape, parts.count) for shape in inputs], options)
        return make(
            graph,
            self.registry,
            options,
            losses=losses_for(loss, graph.output_names, self.registry),
            updates=updates,
            parts=parts,
            processes=joined.named(updates),
        )

    def reported(self, loss: object, updates: UpdateSettings) -> tuple[str, ...]:
        """Return the names of the values that a step returns after the loss, in order."""
        outputs = tuple(self.network.outputs)
        names: tuple[str, ...] = ()
        if "losses" in updates.report:
            names += term_names(losses_for(loss, outputs, self.registry))
        return names + (("gradient_norm",) if "gradient_norm" in updates.report else ())

    def measuring(self, inputs: Sequence[Shape], options: CompileOptions, *, loss: object) -> Plan:
        """Make the plan that returns the loss of a prediction, from inputs of these shapes and targets.

        Raises MemoryBudgetError if it needs more memory than the device has.
        """
        graph = self.graph(inputs, options)
        losses = losses_for(loss, graph.output_names, self.registry)
        options = replace(options, memory=None)
        return fitting(inference_plan(attach_loss(graph, losses), self.registry, options))

    def tiling(
        self, inputs: Sequence[Shape], options: CompileOptions, whole: Plan, *, memory: int | str
    ) -> Tiling:
        """Choose the tiles in which inference fits into this memory; `whole` is its plan in one piece.

        Raises InputError if the network cannot run in tiles, MemoryBudgetError if even the smallest tile
        needs more memory.
        """
        limit = parse_bytes(memory, whole=whole.peak_bytes)
        graph = self.graph(inputs, options)
        return tile(graph, whole, lambda shape: self.plan([shape], options), limit=limit)

    def inference(self, inputs: Sequence[Shape], options: CompileOptions) -> Plan | Tiling:
        """Make the plan of inference, or a Tiling if the plan needs more memory than the options allow.

        Raises MemoryBudgetError if the plan needs more memory than the device has.
        """
        unbound = replace(options, memory=None)
        plan = self.plan(inputs, unbound)
        if options.memory is None:
            return fitting(plan)
        if plan.peak_bytes <= parse_bytes(options.memory, whole=plan.peak_bytes):
            return fitting(plan)
        tiling = self.tiling(inputs, unbound, plan, memory=options.memory)
        fitting(tiling.plan)
        return tiling


def _micro(shape: Shape, count: int) -> Shape:
    """The shape of one of `count` parts of a batch. Raises InputError if they are not equal."""
    if count == 1 or not shape:
        return shape
    samples, *rest = shape
    if not isinstance(samples, int) or samples % count:
        raise InputError(
            f"deterministic: true computes the {samples} samples of an input in {count} equal parts. Give a "
            f"multiple of {count} samples."
        )
    return (samples // count, *rest)
