"""Model: a description and its weights; plans, programs and predictions are made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from graphnet.description import UpdateSettings, check_inputs
from graphnet.errors import InputError
from graphnet.model.arrays import Array, as_tensors, like_given
from graphnet.model.checkpoint import versions_of
from graphnet.model.choices import changed_options, check_training, definition_of, training_choices
from graphnet.model.fits import fitting
from graphnet.model.plans import Shape
from graphnet.model.processes import SINGLE, Joined
from graphnet.model.program import Program
from graphnet.model.trained import Trained
from graphnet.model.weighted import Weighted
from graphnet.plan import (
    CompileOptions,
    Plan,
    Tiling,
)
from graphnet.sdk import Executor, Optimizer
from graphnet.system import as_seed, require

_OPTIONS = CompileOptions()
_ON_CPU = CompileOptions(device="cpu")


class Model(Weighted):
    """A network that can be compiled, trained, run and saved.

    Args:
        description: a ModelDescription, or the plain data of one.
        weights: the tensors by name; they are copied. Without them, the model has no weights yet.
        registry: the layers that the description may use; None takes those of the installed plugins.
        seed: the seed of the parameters where the model has no weights.

    Attributes:
        taken: after `with_weights(..., strict=False)`, which weights the model took; else None.

    Raises:
        DescriptionError: the description is wrong; the error holds every fault.
        InputError: it is a path or a torch module.

    >>> model = Model({"input": {"channels": 3}, "layers": [{"conv2d": {"out_channels": 8,
    ...                                                                 "kernel_size": 1}}, "relu"]})
    >>> model.predict(torch.zeros(1, 3, 4, 4)).shape
    torch.Size([1, 8, 4, 4])
    """

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
        updates, options = self._training(optimizer, options, overrides)
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
        processes: Joined = SINGLE,
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
            processes: those that train the model together, from `join_processes`. The shapes are those of
                this process's part of a batch, which `step` takes; the loss and the update are those of the
                whole batch.
            options, overrides: the options of the compilation. Overrides are fields of CompileOptions, which
                replace those of `options`, or of UpdateSettings: `precision="bfloat16", ema=0.999`.

        Raises:
            InputError: there is no loss or no optimizer, an override has an unknown name, or the processes
                have different models, settings, weights or versions of the code.
            DescriptionError: a value does not fit its field.
        """
        check_training(loss, optimizer)
        require(processes, Joined, "compile: processes", "what join_processes returns")
        rule = definition_of("optimizers", optimizer, self.registry)
        updates, options = self._training(rule, options, overrides)
        runner = definition_of("executors", executor, self.registry)
        processes.check_executor(runner)
        options.warn_if_slow(stacklevel=2)
        seed = self.seed if seed is None else as_seed(seed, "compile")
        plans = self._step_plans(inputs, options, loss, updates, processes, runner)
        given = None if self._weights is None else self._weights.own
        trained = Trained(plans, given=given, seed=seed, lr=rule.lr, processes=processes)
        processes.check_weights(trained.weights.own)
        slots = {**trained.weights.own, **trained.averages.own}
        predictor = self._predictions.predictor(slots, options.for_inference(), runner)
        measurer = self._predictions.measurer(slots, options.for_inference(), runner, loss)

        def made(plan: Plan, adding: Plan | None = None) -> Program:
            return Program(
                self.description,
                plan,
                registry=self.registry,
                trained=trained,
                adding=adding,
                accumulate=updates.accumulate,
                reported=self._plans.reported(loss, updates),
                predictor=predictor,
                measurer=measurer,
                executor=runner,
                seed=seed,
                other=lambda *shapes: made(
                    *self._step_plans(shapes, options, loss, updates, processes, runner)
                ),
            )

        return made(*plans)

    def _training(
        self, optimizer: Optimizer | None, options: CompileOptions, overrides: Mapping[str, Any]
    ) -> tuple[UpdateSettings, CompileOptions]:
        """The settings of updates, and the options; `overrides` has fields of both."""
        return training_choices(optimizer, options, overrides)

    def _step_plans(
        self,
        inputs: Sequence[Shape],
        options: CompileOptions,
        loss: object,
        updates: UpdateSettings,
        processes: Joined,
        runner: Executor,
    ) -> tuple[Plan, ...]:
        """The plan of a step with an update and, if updates take several steps, that of the others."""
        plan, *adding = self._plans.steps(inputs, options, loss, updates, processes)
        plans = fitting(plan), *adding
        processes.check_plans(plans, versions_of(self.registry, self.description), runner)
        return plans

    def predict(
        self,
        *inputs: Tensor | Array,
        options: CompileOptions = _ON_CPU,
        executor: object = "eager",
        **overrides: Any,
    ) -> Any:
        """Run the model on inputs and return its output, or a tuple if it has several.

        It uses the model's own weights, or weights drawn from its seed; a program's trained weights are used
        by `program.predict`. The inputs are moved to the device, and the outputs stay there. If inputs are
        numpy arrays, the outputs are numpy arrays too; an array counts as a tensor of its dtype. With the
        option `memory`, an image that needs more is computed in tiles, with the same result up to rounding.

        Args:
            inputs: images (N, C, H, W), or other tensors of the shapes and dtypes that the model takes. The
                model computes in the dtype of the first floating one; without one, in that of `options`.
            options, executor, overrides: as for `compile`.

        Raises:
            InputError: an input is no tensor or numpy array, or has another dtype than the description or
                `options` state; or an image must run in tiles and the network cannot.
        """
        if not inputs:
            raise InputError(
                f"{self.description.name}: predict: expected one tensor or more, got none"
            )
        where = f"{self.description.name}: predict"
        tensors = as_tensors(inputs, where)
        check_inputs(self.description.inputs, tensors, where)
        runner = definition_of("executors", executor, self.registry)
        outputs = self._predictions.run(tensors, changed_options(options, overrides), runner)
        return like_given(outputs, inputs, where)
