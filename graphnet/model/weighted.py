"""Weighted: a description and its weights: read from files, saved, copied, printed and summarized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

import torch
from torch import Tensor

from graphnet.description import ModelDescription, expand, parse, read_model
from graphnet.errors import CheckpointError, InputError
from graphnet.graph import SLOTS, Graph
from graphnet.model.checkpoint import (
    Checkpoint,
    mismatches,
    read_checkpoint,
    versions_of,
    write_checkpoint,
)
from graphnet.model.divisor import find_divisor
from graphnet.model.plans import Plans, Shape
from graphnet.model.predictions import Predictions
from graphnet.model.slots import set_up
from graphnet.model.summary import Summary, nodes_table, summarize
from graphnet.model.taken import Taken
from graphnet.model.weights import Weights
from graphnet.passes import Everywhere, choose, substitute
from graphnet.plan import CompileOptions
from graphnet.sdk import Registry, default_registry, registry_or_default
from graphnet.system import as_path, as_seed, require


class Weighted:
    """The part of a Model that does not compile or run anything; see Model for the arguments."""

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
        self.registry = registry_or_default(registry)
        self.seed = as_seed(seed, "Model")
        self.taken: Taken | None = None
        self._plans = Plans(expand(description, self.registry), self.registry)
        self._take(None if weights is None else Weights.copied(weights))

    @classmethod
    def load(cls, path: Path | str, *, registry: Registry | None = None) -> Self:
        """Read a model by its file's ending: .yaml, .toml, .safetensors as `save` wrote it, or a plugin's.

        Raises DescriptionError or CheckpointError if the file is wrong, or nothing reads such a file.
        """
        registry, path = registry_or_default(registry), as_path(path, "load")
        if path.suffix.lower() != ".safetensors":
            file = read_model(path, registry, others=(".safetensors",))
            return cls(file.description, weights=file.weights, registry=registry)
        saved = read_checkpoint(path)
        problems = mismatches(saved, registry)
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
        require(weights, Mapping, "set_weights", "weights by name")
        if self._weights is not None:
            self._weights.set(weights)
            return
        self._take(Weights.copied(weights))  # predictors so far have weights drawn from the seed

    def with_weights(
        self, weights: Mapping[str, Tensor], *inputs: Shape, strict: bool = True
    ) -> Self:
        """Return a new model of the same description with copies of these weights.

        With `strict=False`, it takes the weights whose names and shapes it has, such as those of a model that
        was trained for another task. Its other weights keep their values, or are drawn from the seed if this
        model has no weights; then the shapes of `inputs` must be given. `taken` of the new model says which
        weights it took: print(model.taken).

        Raises:
            InputError: `strict` is False, this model has no weights, and no shapes are given.
        """
        require(weights, Mapping, "with_weights", "weights by name")
        require(strict, bool, "with_weights: strict", "True or False")
        if strict:
            return self._with(Weights.copied(weights))
        mine = self._start(inputs)
        taken = Taken.of(mine, weights)
        other = self._with(Weights.copied({**mine, **{n: weights[n] for n in taken.names}}))
        other.taken = taken
        return other

    def _start(self, inputs: Sequence[Shape]) -> Mapping[str, Tensor]:
        """The model's weights; without any, those that the seed gives for inputs of these shapes."""
        if self._weights is not None:
            return self._weights.own
        if not inputs:
            raise InputError(
                f"{self.description.name}: this model has no weights yet, and their shapes depend on those "
                f"of the inputs. Give these: model.with_weights(weights, (1, 3, 64, 64), strict=False)."
            )
        values = self.graph(*inputs).values.values()
        return set_up([value for value in values if value.kind in SLOTS], seed=self.seed)

    def _take(self, weights: Weights | None) -> None:
        self._weights = weights
        self._predictions = Predictions(self._plans, weights, self.seed)

    def _with(self, weights: Weights | None) -> Self:
        """A model that differs from this one in its weights only."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._take(weights)
        return other

    def __repr__(self) -> str:
        count = len(self._plans.network.nodes)
        numbers = "no weights yet"
        if self._weights is not None:
            numbers = f"{sum(tensor.numel() for tensor in self._weights.own.values()):,} weights"
        return f"{type(self).__name__}({self.description.name!r}, {count} nodes, {numbers})"

    def _repr_html_(self) -> str:
        return nodes_table(self._plans.network, self.registry)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._with(None if self._weights is None else Weights.copied(self._weights.own))

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickle, without plans and predictors, which are made again when they are needed."""
        state = {k: v for k, v in vars(self).items() if k not in ("_plans", "_predictions")}
        state["_weights"] = None if self._weights is None else self._weights.own
        state["registry"] = None if self.registry is default_registry() else self.registry
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.registry = registry_or_default(self.registry)
        self._plans = Plans(expand(self.description, self.registry), self.registry)
        self._take(None if self._weights is None else Weights.copied(self._weights))

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

    def summary(self, *inputs: Shape) -> Summary:
        """Summarize the model for inputs of these shapes: print(model.summary((1, 3, 64, 64))).

        Each node has a row with the shape of its output, its parameters and its floating-point operations.
        Raises GraphError if the shapes do not fit the network.
        """
        graph = self.graph(*inputs)
        return summarize(self._plans.network, graph, inputs, self.registry)

    def divisor(self) -> int:
        """Find the smallest number for which images whose sides are multiples of it keep their size.

        Raises GraphError if an input is no image, or if there is no such number up to 256, as for a network
        that doubles the size.
        """
        return find_divisor(self._plans.network, self.graph)
