"""Gradients: how much each path through the network contributes to the gradient of a value.

By the chain rule, a gradient is a sum over the paths from the value to the loss (Griewank & Walther 2008,
ch. 1). A backward is linear in the gradients that it receives. So the part of one path is computed by the
backwards along it, which receive zeros from all other paths; the parts add up to the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from graphnet.errors import GraphError, InputError, nearest
from graphnet.graph import Kind
from graphnet.inspection.contributions import Use, uses_of
from graphnet.inspection.step_timing import random_input
from graphnet.inspection.walk import complete, execute, walk
from graphnet.model import Model, set_up
from graphnet.passes import SCALE
from graphnet.plan import Plan, Step
from graphnet.sdk import by, check_kind
from graphnet.system import as_seed, finite, require

_LIMIT = 16
_Edge = tuple[Use, str]
"""A use of a value, and the output of that use from which the gradient comes."""
_Partial = tuple[str, tuple[_Edge, ...]]
"""The name of a value, and the edges that lead to it from an earlier value, towards the loss."""


@dataclass(frozen=True, slots=True)
class ParameterGradient:
    """The Euclidean norms of a parameter and of its gradient, and the number of uses that contribute."""

    name: str
    shape: tuple[int, ...]
    value_norm: float
    gradient_norm: float
    contributions: int

    @property
    def ratio(self) -> float:
        """The norm of the gradient divided by the norm of the value; nan if both are zero."""
        if self.value_norm == 0.0:
            return torch.inf if self.gradient_norm else torch.nan
        return self.gradient_norm / self.value_norm


@dataclass(frozen=True, slots=True)
class Path:
    """One path to the loss, and the part of a gradient that it contributes.

    Args:
        nodes: the nodes from the value towards the loss.
        norm: the Euclidean norm of the part p.
        share: (p . g) / (g . g) for the whole gradient g. The shares of all paths add up to 1; a path with a
            negative share reduces the gradient.
        merged: the value at which the path ends before the loss: all paths from there count together.
    """

    nodes: tuple[str, ...]
    norm: float
    share: float
    merged: str | None = None

    def __str__(self) -> str:
        rest = f" <- all paths to {self.merged}" if self.merged else ""
        return " <- ".join(self.nodes) + rest


@dataclass(frozen=True, slots=True)
class Paths:
    """The norm of one value's gradient, and the paths whose parts add up to it."""

    value: str
    norm: float
    paths: tuple[Path, ...]

    def __str__(self) -> str:
        rows = [("norm", "share", "path")]
        rows += [(f"{p.norm:.4g}", f"{100 * p.share:.1f} %", str(p)) for p in self.paths]
        return f"gradient of {self.value}: norm {self.norm:.4g}\n{_table(rows)}"


class Gradients:
    """The gradients of one training step, computed by the reference executor without the update.

    Args:
        plan: a training plan.
        tensors: its arguments by name; inputs and targets are required.
        seed: the seed of the parameters and states that are missing.

    >>> model = Model({"layers": [{"id": "a", "sigmoid": {}}]})
    >>> Gradients.of(model, (1, 1, 2, 2)).parameters
    ()
    """

    def __init__(self, plan: Plan, tensors: Mapping[str, Tensor], *, seed: int = 0) -> None:
        self.plan = plan
        self._values: dict[str, Tensor] = dict(tensors)
        self._uses = uses_of(plan)
        self._totals: dict[str, str] = {}  # value -> the value that holds its whole gradient
        for step, values in walk(_without_updates(plan), complete(plan, tensors, seed=seed)):
            self._values.update({name: values[name] for name in step.call.makes()})
            self._values.update({name: values[name] for name in step.call.reads()})
        # A gradient belongs to one sum at most.
        sums = {
            part: str(step.call.results[0])
            for step in plan.steps
            if step.call.kind is Kind.ACCUMULATE
            for part in step.call.reads()
        }
        for value, uses in self._uses.items():
            self._totals[value] = sums.get(uses[0].gradient, uses[0].gradient)
            for use in uses:
                self._totals.update({output: gradient for gradient, output in use.outputs.items()})
        (self.loss_name,) = plan.outputs

    @classmethod
    def of(
        cls,
        model: Model,
        *inputs: Sequence[int],
        loss: object = None,
        data: Sequence[Tensor] = (),
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        kernels: str = "auto",
        seed: int = 0,
    ) -> Self:
        """Compute the gradients of a model, with its weights or with weights drawn from its seed.

        Args:
            model: the model.
            inputs: the shapes of its inputs.
            loss: the loss; None takes the first registered loss, on every output.
            data: the inputs and targets; without them, both are uniform in 0..1, drawn from `seed`.
            device, dtype, kernels: as for `Model.compile`.
            seed: the seed of random data.
        """
        require(model, Model, "gradients", "a model")
        seed = as_seed(seed, "gradients")
        require(data, (list, tuple), "gradients: data", "a list of tensors")
        if loss is None:
            loss = dict.fromkeys(model.outputs, next(iter(model.registry.losses)))
        # Without these passes, each node has its own calls, on images N C H W.
        plan = model.plan(
            *inputs,
            loss=loss,
            device=device,
            dtype=dtype,
            kernels=kernels,
            without=("fusion", "block_layout"),
        )
        slots = [plan.values[name] for name in plan.slots]
        tensors = set_up(slots, seed=model.seed, given=model.weights)
        generator = torch.Generator().manual_seed(seed)
        given = list(data) or [
            random_input(plan.values[name].spec, generator) for name in plan.inputs
        ]
        if len(given) != len(plan.inputs):
            names = ", ".join(plan.values[name].label for name in plan.inputs)
            raise InputError(
                f"data: expected {len(plan.inputs)} tensors ({names}), got {len(given)}"
            )
        for name, tensor in zip(plan.inputs, given, strict=True):
            spec = plan.values[name].spec
            check_kind(tensor, spec.dtype, f"data: {plan.values[name].label}")
            tensors[name] = tensor.to(spec.device, spec.dtype)
        return cls(plan, tensors, seed=seed)

    @property
    def loss(self) -> float:
        return float(self._values[self.loss_name])

    @property
    def parameters(self) -> tuple[ParameterGradient, ...]:
        """All parameters with their gradients, in the order of their first use."""
        return tuple(
            ParameterGradient(
                name,
                self.plan.values[name].spec.shape,
                _norm(self._values[name]),
                _norm(self.gradient(name)) if name in self._uses else 0.0,
                len(self._uses.get(name, ())),
            )
            for name in self.plan.of(Kind.PARAMETER)
        )

    def gradient(self, name: str) -> Tensor:
        """Return the whole gradient of a parameter or value; raises GraphError if it has none."""
        if name not in self._totals:
            if name in self.plan.values:
                raise GraphError(
                    f"{name!r} has no gradient: no parameter lies before it, or no loss after it"
                )
            raise GraphError(f"there is no value {name!r}. {nearest(name, self._totals)}")
        return self._unscaled(self._values[self._totals[name]])

    def _unscaled(self, gradient: Tensor) -> Tensor:
        """Divide a gradient by the loss scale of float16, if there is one."""
        scale = self._values.get(SCALE)
        return gradient if scale is None else gradient.float() / scale

    def names(self, name: str) -> tuple[str, ...]:
        """Return the values that a name means: one value, or the parameters and outputs of a node."""
        of_node = tuple(value for value in self._uses if self.plan.values[value].node == name)
        return of_node if of_node and name not in self.plan.values else (name,)

    def paths(self, name: str, *, limit: int = _LIMIT) -> Paths:
        """Split the gradient of a parameter or value into the parts of at most `limit` paths.

        If there are more paths, those that separate only far from the value are counted together.
        Raises GraphError if the value has no gradient.
        """
        total = self.gradient(name).double()
        square = float((total * total).sum())
        found = []
        for tail, edges in self._split(name, limit):
            part = self._unscaled(self._part(tail, edges)).double()
            share = float((part * total).sum()) / square if square else torch.nan
            nodes = tuple(use.call.node for use, _ in edges)
            found.append(Path(nodes, _norm(part), share, None if tail == self.loss_name else tail))
        found.sort(key=lambda path: -path.norm)
        return Paths(name, _norm(total), tuple(found))

    def _split(self, name: str, limit: int) -> list[_Partial]:
        """Return the paths from `name`; if there are too many, some end at a value before the loss."""
        open_: list[_Partial] = [(name, ())]
        done: list[_Partial] = []
        while open_:
            tail, edges = open_.pop(0)
            further = [
                (output, (*edges, (use, output)))
                for use in self._uses.get(tail, ())
                for output in use.outputs.values()
            ]
            if not further or len(done) + len(open_) + len(further) > max(limit, 1):
                done.append((tail, edges))
            else:
                open_ += further
        return done

    def _part(self, tail: str, edges: Sequence[_Edge]) -> Tensor:
        """Compute the part of one path: take the gradient at its end back through its backwards."""
        gradient = self._values[self._totals[tail]]
        for use, output in reversed(edges):
            values = dict(self._values)
            for read, value in use.outputs.items():
                values[read] = gradient if value == output else torch.zeros_like(values[read])
            execute(self.plan, use.call, values)
            gradient = values[use.gradient]
        return gradient

    def to_data(self, *names: str, limit: int = _LIMIT) -> dict[str, Any]:
        """Return the table of parameters, and the paths of the named values, as plain data for JSON.

        A number that is not finite becomes None, since JSON cannot express it.
        """
        rows = [{**asdict(row), "ratio": row.ratio} for row in self.parameters]
        found = [asdict(self.paths(name, limit=limit)) for name in names]
        plain: dict[str, Any] = finite({"loss": self.loss, "parameters": rows, "paths": found})
        return plain

    def __str__(self) -> str:
        rows = [("parameter", "shape", "norm", "gradient", "ratio", "contributions")]
        rows += [
            (
                row.name,
                by(row.shape),
                f"{row.value_norm:.4g}",
                f"{row.gradient_norm:.4g}",
                f"{row.ratio:.3g}",
                str(row.contributions),
            )
            for row in self.parameters
        ]
        return f"{_table(rows)}\n\nloss {self.loss:.6g}"


def _norm(tensor: Tensor) -> float:
    return float(tensor.double().norm())


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _without_updates(plan: Plan) -> Plan:
    """The plan without its updates, and without what depends on them."""
    steps: list[Step] = []
    updated: set[str] = set()
    for step in plan.steps:
        if step.call.kind is Kind.UPDATE or not updated.isdisjoint(step.call.reads()):
            updated.update(step.call.makes())
        else:
            steps.append(step)
    return replace(plan, steps=tuple(steps))
