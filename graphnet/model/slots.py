"""Slots: make and check the tensors that a plan takes: parameters, states, constants, scalars and inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from graphnet.errors import CheckpointError, InputError, nearest
from graphnet.graph import Kind, Value
from graphnet.plan import Plan
from graphnet.sdk import Spec, conversion, pack, plain_shape

Copy = tuple[Tensor, Tensor]
"""A copy of a weight, with another dtype, strides or device, and the weight itself."""
Shapes = tuple[tuple[int, ...], ...]


@torch.inference_mode(mode=False)  # the tensors live longer than this call and are written later
def set_up(
    values: Iterable[Value], *, seed: int, given: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Make the initial tensor of each value: a copy of the given one, or one drawn by its initializer.

    Values are drawn on the CPU one after the other, so every device starts from the same numbers.

    Args:
        values: the values that need a tensor, with their initializers.
        seed: the seed of the random numbers.
        given: tensors by name, from a checkpoint; None draws all.

    Returns:
        The tensors by name, with the dtype, device and strides that the plan expects.

    Raises:
        CheckpointError: a given tensor is missing or has another shape.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for value in values:
        assert value.initializer is not None
        fresh = torch.empty(value.spec.shape, dtype=value.spec.dtype)
        if given is None:
            tensor = value.initializer(fresh, generator)
        elif value.name not in given:
            raise CheckpointError(f"no tensor for {value.name!r}. {nearest(value.name, given)}")
        else:
            tensor = given[value.name]
            if tuple(tensor.shape) != value.spec.shape:
                raise CheckpointError(
                    f"{value.name!r} must be {value.spec}, the saved tensor is {tuple(tensor.shape)}"
                )
            tensor = fresh.copy_(tensor)
        memory_format = value.memory_format or torch.contiguous_format
        if tensor.ndim != 4:
            memory_format = torch.contiguous_format
        tensors[value.name] = tensor.to(value.spec.device).contiguous(memory_format=memory_format)
    return tensors


def plain_spec(value: Value) -> Spec:
    """Return the spec of an input in the caller's layout: images are N C H W."""
    if value.layout is None:
        return value.spec
    return replace(value.spec, shape=plain_shape(value.spec.shape))


def check_input(tensor: Tensor, value: Value) -> None:
    """Raise InputError unless the tensor has the shape and dtype that the plan was made for.

    Images are N C H W. The tensor may be on any device: `packed` moves it.
    """
    spec, found = plain_spec(value), Spec.of(tensor)
    if (found.shape, found.dtype) != (spec.shape, spec.dtype):
        advice = conversion(tensor, spec.dtype)
        if found.shape != spec.shape and value.kind is Kind.INPUT:
            advice += (
                " For other shapes, make a program of the same weights: program.with_shapes(...)."
            )
        raise InputError(f"{value.label}: expected {spec}, got {found}.{advice}")


def packed(tensor: Tensor, value: Value) -> Tensor:
    """Bring images (N, C, H, W), any number N of them, to the plan's device and the layout that it reads."""
    tensor = tensor.to(value.spec.device)
    return tensor if value.layout is None else pack(tensor, value.layout)


def fixed_arguments(plan: Plan) -> dict[str, Tensor]:
    """Return the plan's constants, and zero for its scalars by name.

    The seed and the step are scalars, so a layer that draws random numbers draws the same ones in each run.
    """
    constants = set_up([plan.values[name] for name in plan.of(Kind.CONSTANT)], seed=0)
    specs = {name: plan.values[name].spec for name in plan.of(Kind.SCALAR)}
    zeros = {n: torch.zeros((), dtype=s.dtype, device=s.device) for n, s in specs.items()}
    return {**constants, **zeros}
