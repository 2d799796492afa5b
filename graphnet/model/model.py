"""Model: a description, its weights if there are any, and what can be done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Self

import torch
from torch import Tensor

from graphnet.description import (
    ModelDescription,
    UpdateSettings,
    expand,
    losses_for,
    parse,
    read_description,
)
from graphnet.errors import CheckpointError, GraphError, GraphnetError, InputError, nearest
from graphnet.graph import Graph
from graphnet.model.checkpoint import (
    Checkpoint,
    mismatches,
    read_checkpoint,
    versions_of,
    write_checkpoint,
)
from graphnet.model.divisor import MAX_DIVISOR, find_divisor
from graphnet.model.predictor import Predictor
from graphnet.model.program import Program
from graphnet.model.slots import Copy, set_up
from graphnet.model.weights import Weights
from graphnet.passes import Everywhere, choose, substitute
from graphnet.plan import (
    CompileOptions,
    Plan,
    Tiling,
    adding_plan,
    forward_graph,
    inference_plan,
    split_options,
    tile,
    training_plan,
)
from graphnet.sdk import Executor, Optimizer, Registry, check_floating, default_registry
from graphnet.system import parse_bytes, without_gc

_NO_UPDATES = UpdateSettings()
_OPTIONS = CompileOptions()
_ON_CPU = CompileOptions(device="cpu")
Shape = Sequence[int]


class Model:
    """A model description with everything that can be asked of it.

    `description` is a ModelDescription or the plain data of one; `weights` are copied. Raises
    DescriptionError, with all that is wrong, when the model is made.

    >>> model = Model({"input": {"channels": 3}, "layers": [{"conv2d": {"out_channels": 8,
    ...                                                                 "kernel_size": 1}}, "relu"]})
    >>> model.predict(torch.zeros(1, 3, 4, 4)).shape
    torch.Size([1, 8, 4, 4])
    """

    def __init__(
        self,
        description: ModelDescription | Mapping[str, Any],
        *,
        weights: Mapping[str, Tensor] | None = None,
        registry: Registry | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(description, ModelDescription):
            description = parse(description)
        self.description = description
        self.registry = registry or default_registry()
        self._weights = None if weights is None else Weights.copied(weights)
        self.seed = seed
        self._network = expand(description, self.registry)
        self._predictors: dict[tuple[CompileOptions, torch.dtype, Executor], Predictor] = {}

    @classmethod
    def load(cls, path: Path | str, *, registry: Registry | None = None) -> Self:
        """Read a .yaml description or a .safetensors file written by `save`.

        Raises DescriptionError or CheckpointError, which say what is wrong with the file.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            return cls(read_description(path), registry=registry)
        saved = read_checkpoint(path)
        problems = mismatches(saved, registry or default_registry())
        if problems:
            raise CheckpointError(f"{path}: {'; '.join(problems)}")
        return cls(saved.description, weights=saved.weights, registry=registry)

    @property
    def input_channels(self) -> int | None:
        """The channels of the first input, where the description or the weights tell."""
        return next(iter(self.description.inputs.values())).channels

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what the model returns, in order: a loss is given for each of them."""
        return tuple(self._network.outputs)

    @property
    def weights(self) -> Weights | None:
        """The tensors that `predict` and `save` use, by name; None as long as the model has none.

        The mapping is read-only: `set_weights` copies values into it. A tensor of it may be written in
        place, also through numpy: the next prediction sees it.
        """
        return self._weights

    @weights.setter
    def weights(self, weights: object) -> NoReturn:
        raise InputError(
            "model.weights cannot be assigned. Call model.set_weights(weights), or make another model "
            "with model.with_weights(weights)."
        )

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy these weights into the model's, by name; those that are not named stay as they are.

        A model without weights takes them all. After training, `set_weights(program.model_weights)`
        makes them the model's own. Raises InputError for an unknown name or another shape; nothing is
        then copied.
        """
        if self._weights is not None:
            self._weights.set(weights)
            return
        self._weights = Weights.copied(weights)
        self._predictors.clear()  # they run with the weights that were drawn

    def with_weights(self, weights: Mapping[str, Tensor]) -> Model:
        """The same model with these weights, copied."""
        return Model(self.description, weights=weights, registry=self.registry, seed=self.seed)

    def save(self, path: Path | str) -> None:
        """Write description, weights and plugin versions as a safetensors file, whole or not at all.

        The weights are the model's own. A program that `compile` returned trains copies of them: call
        `program.save(path)`, or `model.set_weights(program.model_weights)` before. Raises
        CheckpointError for a model without weights.
        """
        if self._weights is None:
            raise CheckpointError(
                "the model has no weights of its own yet. A trained program saves its weights by "
                "program.save(path); model.set_weights(program.model_weights) gives them to the model."
            )
        versions = versions_of(self.registry, self.description)
        write_checkpoint(path, Checkpoint(self.description, self._weights.own, versions))

    def graph(
        self,
        *inputs: Shape,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        kernels: str = "reference",
    ) -> Graph:
        """The forward graph for inputs of these shapes, as described; `kernels` replace layers in it.

        Raises GraphError where shapes clash.
        """
        options = CompileOptions(device=device, dtype=dtype, kernels=kernels)
        return substitute(
            forward_graph(self._network, inputs, options),
            kernels=choose(self.registry, kernels),
            registry=self.registry,
            plain=Everywhere(),
        )

    def plan(
        self,
        *inputs: Shape,
        loss: object = None,
        optimizer: Optimizer | None = None,
        options: CompileOptions = _ON_CPU,
        **overrides: Any,
    ) -> Plan:
        """The verified plan of inference, or of a training step where there is a loss.

        The arguments are those of `compile`. What bounds the memory of inference is `tiling`.
        """
        updates, options = _training_choices(optimizer, options, overrides)
        if options.memory is not None and loss is None:
            raise InputError(
                "memory bounds the plan of a training step; for inference see Model.tiling"
            )
        return self._plan(inputs, options, loss=loss, updates=updates)

    @without_gc()
    def _plan(
        self,
        inputs: Sequence[Shape],
        options: CompileOptions,
        *,
        loss: object = None,
        updates: UpdateSettings = _NO_UPDATES,
    ) -> Plan:
        graph = forward_graph(self._network, inputs, options)
        if loss is None:
            return inference_plan(graph, self.registry, options)
        losses = losses_for(loss, graph.output_names, self.registry)
        return training_plan(graph, self.registry, options, losses=losses, updates=updates)

    def _adding_plan(
        self,
        inputs: Sequence[Shape],
        options: CompileOptions,
        plan: Plan,
        *,
        loss: object,
        updates: UpdateSettings,
    ) -> Plan | None:
        """The plan of the steps before an update, by the kernels of the one with it, if there are such."""
        if updates.accumulate == 1:
            return None
        options = options.decided(plan.refused)
        graph = forward_graph(self._network, inputs, options)
        losses = losses_for(loss, graph.output_names, self.registry)
        return adding_plan(graph, self.registry, options, losses=losses, updates=updates)

    def tiling(
        self,
        *inputs: Shape,
        options: CompileOptions = _ON_CPU,
        **overrides: Any,
    ) -> Tiling:
        """How an image of this shape is cut into tiles, so that inference fits into the option `memory`.

        `options` and `overrides` are those of `compile`. Raises InputError without `memory` and for a
        network that cannot be run in tiles, MemoryBudgetError where none fits.
        """
        options = _changed(options, overrides)
        memory, options = options.memory, replace(options, memory=None)
        if memory is None:
            raise InputError("tiling: expected memory, such as '2GiB', found none")
        whole = self._plan(inputs, options)
        limit = parse_bytes(memory, whole=whole.peak_bytes)
        return self._tiling(inputs, options, whole, limit=limit)

    def _tiling(
        self, inputs: Sequence[Shape], options: CompileOptions, whole: Plan, *, limit: int
    ) -> Tiling:
        graph = forward_graph(self._network, inputs, options)
        return tile(graph, whole, lambda shape: self._plan([shape], options), limit=limit)

    def _inference(self, inputs: Sequence[Shape], options: CompileOptions) -> Plan | Tiling:
        """The plan of inference, in tiles where it does not fit into the memory of the options."""
        unbound = replace(options, memory=None)
        plan = self._plan(inputs, unbound)
        if options.memory is None:
            return plan
        limit = parse_bytes(options.memory, whole=plan.peak_bytes)
        if plan.peak_bytes <= limit:
            return plan
        return self._tiling(inputs, unbound, plan, limit=limit)

    def compile(
        self,
        *inputs: Shape,
        loss: object,
        optimizer: object,
        options: CompileOptions = _OPTIONS,
        executor: object = "eager",
        seed: int | None = None,
        **overrides: Any,
    ) -> Program:
        """One plan for a whole training step on inputs of these shapes.

        `loss` and `optimizer` are names, {name: {field: value}}, or instances; a list of losses is
        their sum, in which {name: {...}, "weight": 0.2} gives a weight. A model with several outputs
        takes {output: loss} with every output in it, None for one that has no loss, and one target for
        each loss, in that order. Without weights the parameters are drawn from `seed`.

        The program trains copies of the weights, so that programs of one model do not disturb each other:
        `program.predict` and `program.save` use the trained ones, the model keeps its own until
        `model.set_weights(program.model_weights)`.

        `overrides` are fields of CompileOptions, which take the place of those of `options`, and of
        UpdateSettings: `compile(..., precision="bfloat16", ema=0.999)`. Raises InputError for a name that
        is none of these, DescriptionError for a value that does not fit.
        """
        rule = self.registry.make("optimizers", optimizer)
        updates, options = _training_choices(rule, options, overrides)
        runner = self.registry.make("executors", executor)
        options.warn_if_slow(stacklevel=2)
        plan = self._plan(inputs, options, loss=loss, updates=updates)
        adding = self._adding_plan(inputs, options, plan, loss=loss, updates=updates)
        return Program(
            self.description,
            plan,
            registry=self.registry,
            weights=None if self._weights is None else self._weights.own,
            adding=adding,
            accumulate=updates.accumulate,
            predictor=lambda slots: self._predictor(
                slots, options.for_inference().decided(plan.refused), runner
            ),
            executor=runner,
            lr=rule.lr,
            seed=self.seed if seed is None else seed,
        )

    def predict(
        self,
        *inputs: Tensor,
        options: CompileOptions = _ON_CPU,
        executor: object = "eager",
        **overrides: Any,
    ) -> Any:
        """The outputs for these inputs (one tensor, or a tuple), with the model's own weights.

        Without weights, parameters are drawn from the model's seed. What a program has trained,
        `program.predict` uses (see `compile`).

        `options` and `overrides` are those of `compile`. The inputs are moved to the device; the outputs
        stay there. The option `memory` bounds what a prediction takes, inputs and outputs included: an
        image that needs more goes through in tiles, with the same result up to rounding. Raises InputError
        for inputs that are no tensors of floating point, and of another dtype than the options say; see
        `tiling` for others.
        """
        check_floating(inputs, f"{self.description.name}: predict")
        if not inputs:
            raise InputError(
                f"{self.description.name}: predict: expected one tensor or more, got none"
            )
        options = _changed(options, overrides)
        dtype = inputs[0].dtype
        if options.dtype not in (None, dtype):
            raise InputError(f"predict: expected inputs of the dtype {options.dtype}, got {dtype}")
        runner = self.registry.make("executors", executor)
        key = (options, dtype, runner)
        if key not in self._predictors:
            options.warn_if_slow(stacklevel=2)
            shapes = tuple(tuple(x.shape) for x in inputs)
            exact = replace(options, dtype=dtype)
            made = self._inference(shapes, exact)
            plan = made.plan if isinstance(made, Tiling) else made
            values = [plan.values[name] for name in plan.slots]
            given = None if self._weights is None else self._weights.own
            slots = set_up(values, seed=self.seed, given=given)
            slots, copies = self._shared(slots)
            predictor = self._predictor(slots, exact, runner, copies=copies)
            predictor.prepare(shapes, made)
            self._predictors[key] = predictor
        age = 0 if self._weights is None else self._weights.age()
        return self._predictors[key](*(x.to(options.target.device) for x in inputs), age=age)

    def _shared(self, slots: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Copy]]:
        """The tensors for a predictor, which are the model's own where it can run with those.

        The first predictor decides the strides of the model's own. Where the dtype, the device or the
        strides differ, a predictor has a copy.
        """
        copies: list[Copy] = []
        if self._weights is None:
            return slots, copies
        own = self._weights.own
        for name, slot in slots.items():
            mine = own[name]
            alike = (slot.dtype, slot.device) == (mine.dtype, mine.device)
            if alike and slot.stride() == mine.stride():
                slots[name] = mine
            elif alike and not self._predictors and not self._weights.is_lent(name):
                own[name] = slot
            else:
                copies.append((slot, mine))
        return slots, copies

    def _predictor(
        self,
        slots: Mapping[str, Tensor],
        options: CompileOptions,
        executor: Executor,
        *,
        copies: Sequence[Copy] = (),
    ) -> Predictor:
        plan_for = partial(self._inference, options=options)
        return Predictor(plan_for, slots, executor, copies=copies)

    def divisor(self) -> int:
        """The smallest number that height and width must be multiples of to come out as they went in.

        The layers' windows tell it; graphs of a few sizes confirm it. Raises GraphError when no number up
        to 256 does, as for a network that changes the size of its image.
        """
        found = find_divisor(self._network, self._keeps_size)
        if found is None:
            raise GraphError(
                f"{self.description.name}: no image size up to {MAX_DIVISOR} comes out of this network as "
                f"it went in, so it cannot be run on images of any size"
            )
        return found

    def _keeps_size(self, size: int) -> bool:
        channels = [item.channels or 3 for item in self.description.inputs.values()]
        try:
            graph = self.graph(*((1, c, size, size) for c in channels))
        except GraphnetError:
            return False
        shape = graph.values[graph.outputs[0]].spec.shape
        return len(shape) == 4 and shape[2:] == (size, size)


def _changed(
    options: CompileOptions, overrides: Mapping[str, Any], others: Sequence[str] = ()
) -> CompileOptions:
    """The options with other values of these fields; `others` are names that an error offers too.

    Raises InputError for a name that no field has.
    """
    fields, unknown = split_options(overrides)
    for name in unknown:
        known = (*CompileOptions.field_names(), *others)
        raise InputError(f"unknown option {name!r}. {nearest(name, known)}")
    return replace(options, **fields) if fields else options


def _training_choices(
    optimizer: Optimizer | None, options: CompileOptions, overrides: Mapping[str, Any]
) -> tuple[UpdateSettings, CompileOptions]:
    """The settings of updates and the options that `overrides` leave."""
    names = [name for name in UpdateSettings.field_names() if name != "optimizer"]
    settings = {name: value for name, value in overrides.items() if name in names}
    rest = {name: value for name, value in overrides.items() if name not in names}
    return UpdateSettings(optimizer=optimizer, **settings), _changed(options, rest, names)
