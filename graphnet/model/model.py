"""Model: a description and its weights; plans, programs and predictions are made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Self

import torch
from torch import Tensor

from graphnet.description import (
    ModelDescription,
    check_inputs,
    expand,
    parse,
    read_model,
)
from graphnet.errors import CheckpointError, InputError
from graphnet.graph import Graph
from graphnet.model.checkpoint import (
    Checkpoint,
    mismatches,
    read_checkpoint,
    versions_of,
    write_checkpoint,
)
from graphnet.model.choices import changed_options, check_training, definition_of, training_choices
from graphnet.model.divisor import find_divisor
from graphnet.model.plans import Plans, Shape
from graphnet.model.predictor import Predictor
from graphnet.model.program import Program
from graphnet.model.slots import Copy, set_up
from graphnet.model.weights import Weights
from graphnet.passes import Everywhere, choose, substitute
from graphnet.plan import (
    CompileOptions,
    Plan,
    Tiling,
)
from graphnet.sdk import Executor, Optimizer, Registry, default_registry

_OPTIONS = CompileOptions()
_ON_CPU = CompileOptions(device="cpu")


class Model:
    """A network that can be compiled, trained, run and saved.

    Args:
        description: a ModelDescription, or the plain data of one.
        weights: the tensors by name; they are copied. Without them, the model has no weights yet.
        registry: the layers that the description may use; None takes those of the installed plugins.
        seed: the seed of the parameters where the model has no weights.

    Raises:
        DescriptionError: the description is wrong; the error holds every fault.
        InputError: it is a path or a torch module.

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
        if isinstance(description, (str, Path)):
            raise InputError(
                f"Model takes a description. Read a file with gn.load({str(description)!r})."
            )
        if isinstance(description, torch.nn.Module):
            raise InputError(
                f"Model takes a description, got the torch module {type(description).__name__}. "
                f"gn.from_torch(module, example) makes a model of it, gn.from_torch_module a layer."
            )
        if not isinstance(description, ModelDescription):
            description = parse(description)
        self.description = description
        self.registry = registry or default_registry()
        self._weights = None if weights is None else Weights.copied(weights)
        self.seed = seed
        self._plans = Plans(expand(description, self.registry), self.registry)
        self._predictors: dict[tuple[CompileOptions, torch.dtype, Executor], Predictor] = {}

    @classmethod
    def load(cls, path: Path | str, *, registry: Registry | None = None) -> Self:
        """Read a model by its file's ending: .yaml, .toml, .safetensors as `save` wrote it, or a plugin's.

        Raises DescriptionError or CheckpointError if the file is wrong, or nothing reads such a file.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            file = read_model(path, registry or default_registry(), others=(".safetensors",))
            return cls(file.description, weights=file.weights, registry=registry)
        saved = read_checkpoint(path)
        problems = mismatches(saved, registry or default_registry())
        if problems:
            raise CheckpointError(f"{path}: {'; '.join(problems)}")
        return cls(saved.description, weights=saved.weights, registry=registry)

    @property
    def input_channels(self) -> int | None:
        """The size of axis 1 of the first input; None if the description does not state it."""
        axes = next(iter(self.description.inputs.values())).axes
        return axes[0] if axes and isinstance(axes[0], int) else None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the model's outputs, in order; a training takes a loss for each of them."""
        return tuple(self._plans.network.outputs)

    @property
    def weights(self) -> Weights | None:
        """The tensors that `predict` and `save` use, by name; None if the model has no weights yet.

        The mapping is read-only: `set_weights` copies values into it. Its tensors may be written in place,
        also through numpy; the next prediction uses the new values.
        """
        return self._weights

    @weights.setter
    def weights(self, weights: object) -> NoReturn:
        raise InputError(
            "model.weights cannot be assigned. Call model.set_weights(weights), or make another model "
            "with model.with_weights(weights)."
        )

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy weights into the model's weights of the same names; the other weights do not change.

        A model without weights takes all of them. After a training, `set_weights(program.model_weights)`
        copies the trained weights into the model. Raises InputError for an unknown name or another shape;
        then nothing is copied.
        """
        if self._weights is not None:
            self._weights.set(weights)
            return
        self._weights = Weights.copied(weights)
        self._predictors.clear()  # they use weights that were drawn from the seed

    def with_weights(self, weights: Mapping[str, Tensor]) -> Self:
        """Return a new model of the same description with copies of these weights."""
        other = copy(self)
        other._weights, other._predictors = Weights.copied(weights), {}
        return other

    def save(self, path: Path | str) -> None:
        """Write the description, the weights and the plugins' versions to a safetensors file.

        A program that `compile` returned trains copies of the weights: save those with `program.save(path)`.
        Raises CheckpointError if the model has no weights or the file cannot be written; an older file at
        `path` is then unchanged.
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
        """Build the forward graph for inputs of these shapes, before any pass.

        The inputs and parameters have this device and dtype; `kernels` is that of CompileOptions.
        Raises GraphError if the shapes do not fit the network.
        """
        options = CompileOptions(device=device, dtype=dtype, kernels=kernels)
        return substitute(
            self._plans.graph(inputs, options),
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
        """Make the verified plan of a training step; without a loss, the plan of inference.

        The arguments are those of `compile`.

        Raises InputError for `memory` without a loss: `tiling` bounds the memory of inference.
        """
        updates, options = training_choices(optimizer, options, overrides)
        if options.memory is not None and loss is None:
            raise InputError(
                "memory bounds the plan of a training step; for inference see Model.tiling"
            )
        return self._plans.plan(inputs, options, loss=loss, updates=updates)

    def tiling(
        self,
        *inputs: Shape,
        options: CompileOptions = _ON_CPU,
        **overrides: Any,
    ) -> Tiling:
        """Choose the tiles in which inference on an image of this shape fits into the option `memory`.

        `options` and `overrides` are those of `compile`. Raises InputError if `memory` is missing or the
        network cannot run in tiles, MemoryBudgetError if even the smallest tile needs more memory.
        """
        options = changed_options(options, overrides)
        memory, options = options.memory, replace(options, memory=None)
        if memory is None:
            raise InputError("tiling: expected memory, such as '2GiB', found none")
        whole = self._plans.plan(inputs, options)
        return self._plans.tiling(inputs, options, whole, memory=memory)

    def compile(
        self,
        *inputs: Shape,
        loss: object = None,
        optimizer: object = None,
        options: CompileOptions = _OPTIONS,
        executor: object = "eager",
        seed: int | None = None,
        **overrides: Any,
    ) -> Program:
        """Compile a whole training step on inputs of these shapes into a program.

        The program trains copies of the weights; `program.predict` and `program.save` use the trained copies.
        `model.set_weights(program.model_weights)` copies them into the model.

        Args:
            inputs: the shapes of the inputs.
            loss: a name, {name: {field: value}}, or an instance. A list is a sum of losses, in which
                {name: {...}, "weight": 0.2} has a weight. A model with several outputs takes
                {output: loss} with all outputs, None for an output without a loss; the step then takes one
                target for each loss, in this order.
            optimizer: a name, {name: {field: value}}, or an instance.
            executor: the same forms; it runs the plan.
            seed: the seed of random layers, and of the parameters if the model has no weights.
            options, overrides: the options of the compilation. Overrides are fields of CompileOptions, which
                replace those of `options`, or of UpdateSettings: `precision="bfloat16", ema=0.999`.

        Raises:
            InputError: there is no loss or no optimizer, or an override has an unknown name.
            DescriptionError: a value does not fit its field.
        """
        check_training(loss, optimizer)
        rule = definition_of("optimizers", optimizer, self.registry)
        updates, options = training_choices(rule, options, overrides)
        runner = definition_of("executors", executor, self.registry)
        options.warn_if_slow(stacklevel=2)
        plan = self._plans.plan(inputs, options, loss=loss, updates=updates)
        adding = self._plans.adding_plan(inputs, options, loss=loss, updates=updates)
        return Program(
            self.description,
            plan,
            registry=self.registry,
            weights=None if self._weights is None else self._weights.own,
            adding=adding,
            accumulate=updates.accumulate,
            predictor=lambda slots: self._predictor(slots, options.for_inference(), runner),
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
        """Run the model on inputs and return its output, or a tuple if it has several.

        It uses the model's own weights, or weights drawn from its seed; a program's trained weights are used
        by `program.predict`. The inputs are moved to the device, and the outputs stay there. With the option
        `memory`, an image that needs more memory is computed in tiles, with the same result up to rounding.

        Args:
            inputs: images (N, C, H, W), or other tensors of the shapes and dtypes that the model takes. The
                model computes in the dtype of the first floating one; without one, in that of `options`.
            options, executor, overrides: as for `compile`.

        Raises:
            InputError: an input is no tensor, or has another dtype than the description or `options` state;
                or an image must run in tiles and the network cannot.
        """
        if not inputs:
            raise InputError(
                f"{self.description.name}: predict: expected one tensor or more, got none"
            )
        check_inputs(self.description.inputs, inputs, f"{self.description.name}: predict")
        options = changed_options(options, overrides)
        floating = (x.dtype for x in inputs if x.is_floating_point())
        dtype = next(floating, options.target.dtype)
        if options.dtype not in (None, dtype):
            raise InputError(f"predict: expected inputs of the dtype {options.dtype}, got {dtype}")
        runner = definition_of("executors", executor, self.registry)
        key = (options, dtype, runner)
        if key not in self._predictors:
            options.warn_if_slow(stacklevel=2)
            shapes = tuple(tuple(x.shape) for x in inputs)
            exact = replace(options, dtype=dtype)
            made = self._plans.inference(shapes, exact)
            plan = made.plan if isinstance(made, Tiling) else made
            values = [plan.values[name] for name in plan.slots]
            given = None if self._weights is None else self._weights.own
            slots = set_up(values, seed=self.seed, given=given)
            copies: list[Copy] = []
            if self._weights is not None:
                slots, copies = self._weights.share(slots, restride=not self._predictors)
            predictor = self._predictor(slots, exact, runner, copies=copies)
            predictor.prepare(shapes, made)
            self._predictors[key] = predictor
        age = 0 if self._weights is None else self._weights.age()
        return self._predictors[key](*inputs, age=age)

    def _predictor(
        self,
        slots: Mapping[str, Tensor],
        options: CompileOptions,
        executor: Executor,
        *,
        copies: Sequence[Copy] = (),
    ) -> Predictor:
        plan_for = partial(self._plans.inference, options=options)
        return Predictor(plan_for, slots, executor, copies=copies)

    def divisor(self) -> int:
        """Find the smallest number for which images whose sides are multiples of it keep their size.

        Raises GraphError if an input is no image, or if there is no such number up to 256, as for a network
        that doubles the size.
        """
        return find_divisor(self._plans.network, self.graph)
