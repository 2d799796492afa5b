"""Model: a description, its weights if there are any, and what can be done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from graphnet import checkpoint
from graphnet.describe import ModelDescription, parse, read_description
from graphnet.device import resolve
from graphnet.discovery import default_registry
from graphnet.errors import CheckpointError, GraphError, GraphnetError
from graphnet.expand import expand
from graphnet.graph import Graph
from graphnet.optim import Optimizer
from graphnet.plan import Plan
from graphnet.program import (
    Predictor,
    Program,
    forward_graph,
    inference_plan,
    losses_for,
    set_up,
    training_plan,
)
from graphnet.registry import Registry

_MAX_DIVISOR = 256
Shape = Sequence[int]


class Model:
    """A model description with everything that can be asked of it.

    `description` is a ModelDescription or the plain data of one. Raises DescriptionError, with all
    that is wrong, when the model is made.

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
        self.weights = weights
        self.seed = seed
        self._outputs = tuple(expand(description, self.registry).outputs)
        self._predictors: dict[tuple[torch.device, torch.dtype, str, str], Predictor] = {}

    @classmethod
    def load(cls, path: Path | str, *, registry: Registry | None = None) -> Self:
        """Read a .yaml description or a .safetensors file written by `save`.

        Raises DescriptionError or CheckpointError, which say what is wrong with the file.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            return cls(read_description(path), registry=registry)
        saved = checkpoint.read(path)
        problems = checkpoint.mismatches(saved, registry or default_registry())
        if problems:
            raise CheckpointError(f"{path}: {'; '.join(problems)}")
        return cls(saved.description, weights=saved.weights, registry=registry)

    @property
    def input_channels(self) -> int | None:
        """The channels of the first input, where the description or the weights tell."""
        return next(iter(self.description.inputs.values())).channels

    def with_weights(self, weights: Mapping[str, Tensor]) -> Model:
        """The same model with these weights, copied."""
        copies = {name: tensor.detach().clone() for name, tensor in weights.items()}
        return Model(self.description, weights=copies, registry=self.registry, seed=self.seed)

    def save(self, path: Path | str) -> None:
        """Write description, weights and plugin versions as a safetensors file, whole or not at all."""
        if self.weights is None:
            raise CheckpointError("the model has no weights yet; compile and train it first")
        versions = checkpoint.versions_of(self.registry, self.description)
        checkpoint.write(path, checkpoint.Checkpoint(self.description, self.weights, versions))

    def graph(
        self,
        *inputs: Shape,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        kernels: str = "auto",
    ) -> Graph:
        """The forward graph for inputs of these shapes. Raises GraphError where shapes clash."""
        return forward_graph(
            self.description,
            self.registry,
            inputs,
            device=resolve(device),
            dtype=dtype,
            kernels=kernels,
        )

    def plan(
        self,
        *inputs: Shape,
        loss: object = None,
        optimizer: Optimizer | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        kernels: str = "auto",
    ) -> Plan:
        """The verified plan of inference, or of a training step where there is a loss."""
        graph = self.graph(*inputs, device=device, dtype=dtype, kernels=kernels)
        if loss is None:
            return inference_plan(graph)
        losses = losses_for(loss, graph.output_names, self.registry)
        return training_plan(
            graph, losses=losses, optimizer=optimizer, registry=self.registry, kernels=kernels
        )

    def compile(
        self,
        *inputs: Shape,
        loss: object,
        optimizer: object,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float32,
        kernels: str = "auto",
        executor: str = "eager",
        seed: int | None = None,
    ) -> Program:
        """One plan for a whole training step on inputs of these shapes.

        `loss` and `optimizer` are names, {name: {field: value}}, or instances; a model with several
        outputs takes {output: loss} and one target each, in that order. Without weights the
        parameters are drawn from `seed`.
        """
        rule = self.registry.make("optimizers", optimizer)
        where = resolve(device)
        plan = self.plan(
            *inputs, loss=loss, optimizer=rule, device=where, dtype=dtype, kernels=kernels
        )
        return Program(
            self,
            plan,
            predictor=lambda slots: self._predictor(slots, where, dtype, kernels, executor),
            executor=executor,
            lr=rule.lr,
            seed=self.seed if seed is None else seed,
        )

    def predict(
        self,
        *inputs: Tensor,
        device: str | torch.device = "cpu",
        kernels: str = "auto",
        executor: str = "eager",
    ) -> Any:
        """The outputs for these inputs (one tensor, or a tuple), with the model's weights.

        The inputs are moved to `device`; the outputs stay there.
        """
        where, dtype = resolve(device), inputs[0].dtype
        key = (where, dtype, kernels, executor)
        if key not in self._predictors:
            plan = self.plan(*(x.shape for x in inputs), device=where, dtype=dtype, kernels=kernels)
            values = [plan.values[name] for name in plan.slots]
            slots = set_up(values, seed=self.seed, given=self.weights)
            self._predictors[key] = self._predictor(slots, where, dtype, kernels, executor)
        return self._predictors[key](*(x.to(where) for x in inputs))

    def _predictor(
        self,
        slots: Mapping[str, Tensor],
        device: torch.device,
        dtype: torch.dtype,
        kernels: str,
        executor: str,
    ) -> Predictor:
        def plan_for(shapes: Sequence[Shape]) -> Plan:
            return self.plan(*shapes, device=device, dtype=dtype, kernels=kernels)

        return Predictor(plan_for, slots, executor)

    def divisor(self) -> int:
        """The smallest number that height and width must be multiples of to come out as they went in.

        Found by sending sizes through the graph, so it holds for any layers. Raises GraphError when
        no number up to 256 does, as for a network that changes the size of its image.
        """
        for divisor in range(1, _MAX_DIVISOR + 1):
            start = -(-_MAX_DIVISOR // divisor)
            if all(self._keeps_size(divisor * factor) for factor in (start, start + 1, start + 2)):
                return divisor
        raise GraphError(
            f"{self.description.name}: no image size up to {_MAX_DIVISOR} comes out of this network as "
            f"it went in, so it cannot be run on images of any size"
        )

    def _keeps_size(self, size: int) -> bool:
        channels = [item.channels or 3 for item in self.description.inputs.values()]
        try:
            graph = self.graph(*((1, c, size, size) for c in channels), kernels="reference")
        except GraphnetError:
            return False
        shape = graph.values[graph.outputs[0]].spec.shape
        return len(shape) == 4 and shape[2:] == (size, size)
