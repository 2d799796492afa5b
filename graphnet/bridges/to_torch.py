"""as_torch_module: turn a graphnet layer or model into a torch.nn.Module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from graphnet import nn as facade
from graphnet.bridges.explicit import run_forward, run_inference
from graphnet.bridges.steps import Computation, LayerComputation, LayerSequence, ModelComputation
from graphnet.errors import InputError
from graphnet.graph import Kind, has_slots
from graphnet.model import Model, set_up
from graphnet.passes import choose
from graphnet.sdk import (
    Layer,
    Registry,
    Spec,
    check_dtype,
    check_tensors,
    registry_or_default,
    split_form,
)

Shape = Sequence[int]


def as_torch_module(
    source: Layer | str | dict[str, Any] | facade.Tree | Model,
    *inputs: Shape | Tensor,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    kernels: str = "auto",
    generator: torch.Generator | None = None,
    registry: Registry | None = None,
) -> torch.nn.Module:
    """Turn a layer, a module of graphnet.nn, or a model into a torch.nn.Module with nn.Parameters.

    - Autograd runs each layer's own backward: in eager code, under torch.compile(fullgraph=True), which
      compiles again for each input shape, in DistributedDataParallel, and with torch.func.vjp. Second
      derivatives raise a LayerError.
    - States become buffers, which are updated in train mode only. In eval mode a layer's `inference` runs, if
      the layer has one.
    - A layer with an argument `key` gets a new key from torch's generator in each call.
    - Under torch.autocast, floating inputs and parameters are cast to autocast's dtype, for a Loss to
      float32; autocast is off inside the module, and buffers keep their dtype.

    Args:
        source: a Layer; a registered name, or {name: {field: value}}; a graphnet.nn module, whose parameters
            are then shared; or a Model, with its weights or with weights drawn from its seed.
        inputs: the shape of each input, or a tensor like it, which a layer needs for an input of integers.
            They are needed where parameters or states must be made. Later inputs may have other shapes.
        dtype: the dtype of the parameters; None is torch's default dtype.
        device: the device of the parameters.
        kernels: which kernels may take the place of a layer, as for Model.compile.
        generator: draws the initial parameters; None is torch's default generator.
        registry: the plugins to use; None is all installed plugins.

    Raises:
        InputError: the shapes of the inputs are missing or not wanted, or a parameter's name is also the
            name of an attribute of torch.nn.Module.

    >>> module = as_torch_module({"conv2d": {"out_channels": 8, "kernel_size": 3}}, (1, 3, 8, 8))
    >>> module(torch.zeros(2, 3, 8, 8)).sum().backward()
    >>> module.bias.grad
    tensor([72., 72., 72., 72., 72., 72., 72., 72.])
    """
    registry = registry_or_default(registry)
    if isinstance(source, facade.Tree) and inputs:
        raise InputError("a module of graphnet.nn knows its shapes: leave the input shapes out")
    if isinstance(source, facade.Sequential):
        converted: dict[int, torch.nn.Module] = {}
        for part in source:  # a module that is used twice stays one module
            if id(part) not in converted:
                converted[id(part)] = as_torch_module(part, kernels=kernels, registry=registry)
        return torch.nn.Sequential(*(converted[id(part)] for part in source))
    if isinstance(source, facade.Network):
        description, tensors = facade.described(source, registry)
        computation = ModelComputation(Model(description, registry=registry), kernels)
        buffers = {id(state) for state in source.buffers()}
        return _Torch(computation, tensors, [n for n, t in tensors.items() if id(t) in buffers])
    dtype = torch.get_default_dtype() if dtype is None else dtype
    check_dtype(dtype, "as_torch_module: dtype")
    if isinstance(source, Model):
        if not inputs:
            raise InputError("as_torch_module(model, shape): give the shape of each input")
        shapes = [tuple(x.shape) if isinstance(x, Tensor) else x for x in inputs]
        made = source.graph(*shapes, device=device, dtype=dtype, kernels=kernels)
        values = [made.values[name] for name in made.sources(Kind.PARAMETER, Kind.STATE)]
        slots = set_up(values, seed=source.seed, given=source.weights)
        return _Torch(ModelComputation(source, kernels), slots, made.sources(Kind.STATE))
    if not isinstance(source, facade.Tree):
        if isinstance(source, Layer):
            layer = source
        else:
            kind = "losses" if split_form(source)[0] in registry.losses else "layers"
            layer = registry.make(kind, source)
        if has_slots(layer) and not inputs:
            raise InputError(
                f"{layer} has parameters or states, whose shapes follow from its inputs: "
                f"as_torch_module(layer, (1, 3, 32, 32)) states the shape of each input"
            )
        specs = [_spec(given, dtype) for given in inputs]
        source = facade.Module(
            layer, specs=specs or None, device=device, dtype=dtype, generator=generator
        )
    states = dict(source.named_buffers())
    usable = {entry.name: entry for entry in choose(registry, kernels)}
    return _Torch(
        LayerComputation(source.layer, replace(registry, kernels=usable)),
        {**dict(source.named_parameters()), **states},
        states,
    )


def _spec(given: Shape | Tensor, dtype: torch.dtype) -> Spec:
    """Return the spec of an input; a floating one has the dtype of the parameters."""
    if isinstance(given, Tensor):
        return Spec(tuple(given.shape), dtype if given.is_floating_point() else given.dtype)
    return Spec(tuple(given), dtype)


_Key = tuple[tuple[tuple[int, ...], ...], tuple[torch.dtype, ...], torch.device, torch.dtype]
"""The inputs' shapes and dtypes, their device, and the dtype of the parameters."""


class _Torch(torch.nn.Module):
    """The module that `as_torch_module` returns; its parameters and buffers have the names of the slots."""

    def __init__(
        self, computation: Computation, slots: Mapping[str, Tensor], states: Iterable[str]
    ) -> None:
        super().__init__()
        self._computation = computation
        self._slots = {name: tuple(name.split(".")) for name in slots}
        self._states = frozenset(states)
        self._sequences: dict[_Key, LayerSequence] = {}
        for name, (*path, last) in self._slots.items():
            home: torch.nn.Module = self
            for part in (*path, last):
                if hasattr(_Torch, part) or part in vars(self):
                    raise InputError(
                        f"{computation}: {part!r} in {name!r} is the name of an attribute of "
                        f"torch.nn.Module; give that node or parameter another name"
                    )
            for part in path:
                if not hasattr(home, part):
                    home.add_module(part, torch.nn.Module())
                home = getattr(home, part)
            if name in self._states:
                home.register_buffer(last, slots[name])
            else:
                home.register_parameter(last, torch.nn.Parameter(slots[name]))

    def forward(self, *inputs: Tensor) -> Any:
        """Compute the outputs: a tensor, or a tuple if there are several."""
        check_tensors(inputs, str(self._computation))
        device_type = inputs[0].device.type
        if not torch.is_autocast_enabled(device_type):
            return self._run(inputs, None)
        with torch.autocast(device_type, enabled=False):
            return self._run(inputs, torch.get_autocast_dtype(device_type))

    def _run(self, inputs: Sequence[Tensor], cast: torch.dtype | None) -> Any:
        values = {name: self._slot(path) for name, path in self._slots.items()}
        floats = [t.dtype for t in (*values.values(), *inputs) if t.is_floating_point()]
        dtype = cast or (floats[0] if floats else torch.get_default_dtype())
        # range() fixes the sizes under torch.compile: the layers are chosen for these shapes.
        shapes = tuple(tuple(len(range(size)) for size in x.shape) for x in inputs)
        key = shapes, tuple(x.dtype for x in inputs), inputs[0].device, dtype
        self._find_layers(key)
        sequence = self._sequences[key]
        values.update(zip(sequence.inputs, inputs, strict=True))
        for use in sequence.uses:
            layer = use.layer
            tensors = [values[name] for name in use.reads]
            if cast is not None:
                to = torch.float32 if use.is_loss else cast
                tensors = [
                    t if name in self._states else _cast(t, to)
                    for name, t in zip(use.reads, tensors, strict=True)
                ]
            if not self.training and layer.signature.inference:
                results = run_inference(use, tensors)
            else:
                if "key" in layer.signature.forward:
                    tensors.append(_new_key(tensors[0].device))
                results = run_forward(use, tensors)
            values.update(zip(use.results, results, strict=False))
            if self.training and use.written:
                new = results[len(results) - len(use.written) :]
                with torch.no_grad():
                    for name, value in zip(use.written, new, strict=True):
                        self._slot(self._slots[name]).copy_(value)
        outputs = tuple(values[name] for name in sequence.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
    def _find_layers(self, key: _Key) -> None:
        """Choose the layers for these inputs and store them; torch.compile runs this while it traces."""
        if key not in self._sequences:
            shapes, dtypes, device, dtype = key
            specs = [Spec(s, d, device) for s, d in zip(shapes, dtypes, strict=True)]
            self._sequences[key] = self._computation.layers_for(specs, dtype)

    def _slot(self, path: Sequence[str]) -> Tensor:
        home: Any = self
        for part in path:
            home = getattr(home, part)
        assert isinstance(home, Tensor)
        return home

    def extra_repr(self) -> str:
        return str(self._computation)


def _new_key(device: torch.device) -> Tensor:
    """Draw a random key, int32 (2,), from torch's generator, so that torch.manual_seed determines it."""
    return torch.randint(-(1 << 31), (1 << 31) - 1, (2,), dtype=torch.int32, device=device)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    fits = tensor.is_floating_point() and tensor.dtype != torch.float64  # as torch's own autocast
    return tensor.to(dtype) if fits else tensor
