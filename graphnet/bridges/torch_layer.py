"""from_torch_module: turn a torch.nn.Module into a layer of a graph.

The layer's forward calls the module's forward by torch.func.functional_call. Its backward is torch.func.vjp,
which computes the forward pass a second time. So a training step costs about one forward pass more than with
a layer that states its own backward, and only the layer's inputs are kept for backward.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphnet.bridges.survey import ModuleTensor, module_tensors, trial_run
from graphnet.errors import InputError, LayerError
from graphnet.graph import as_tuple
from graphnet.sdk import Layer, Register, Specs, hookimpl


class TorchLayer(Layer):
    """The base class of the layers that `from_torch_module` makes, one class for each module.

    `name` is the layer's registered name. The layer has no fields: the module holds its configuration.

    >>> layer = from_torch_module(torch.nn.Tanh(), (1, 3), name="local/tanh")
    >>> isinstance(layer, TorchLayer), layer.name
    (True, 'local/tanh')
    """

    name: ClassVar[str] = ""


def from_torch_module(
    module: torch.nn.Module,
    *inputs: Sequence[int] | Tensor,
    name: str,
    options: Mapping[str, Any] | None = None,
) -> TorchLayer:
    """Make a layer that computes what `module` computes, and starts from copies of the module's tensors.

    The module runs once on the example inputs, to find its outputs and the buffers that training changes.

    - Parameters keep their names, with "_" in place of ".".
    - Parameters with requires_grad False and buffers become states. The buffers that training changes, such
      as BatchNorm's, become the layer's `updates`.
    - The outputs are called y, y_1, ...; an output that is None is left out.
    - Inference runs the module in eval mode.
    - A module that draws random numbers is seeded from the node's key. This reads two numbers back to the
      host in each call.

    Use the layer as graphnet.nn.Module(layer), or by its name from a registry made with
    load_registry(plugins=[plugin(layer)]).

    Args:
        module: the module, on any device.
        inputs: an example of each input: a shape, or a tensor where the input holds integers. Later inputs
            may have other shapes.
        name: the layer's registered name, "namespace/name".
        options: keyword arguments for the module's forward.

    Raises:
        InputError: there is no example input, the module fails on the examples, or it returns something else
            than tensors.

    >>> layer = from_torch_module(torch.nn.Linear(3, 2), (1, 3), name="local/linear")
    >>> layer.signature.forward
    ('x', 'weight', 'bias')
    """
    examples = [x if isinstance(x, Tensor) else torch.rand(tuple(x)) for x in inputs]
    if not examples:
        raise InputError(f"{name}: give an example of each input, a shape or a tensor")
    modules = _TensorlessModules(module, dict(options or {}))
    trial = trial_run(module, examples, modules.options, name)
    slots = module_tensors(module, trial.changed, count=len(examples))
    input_names = ("x",) if len(examples) == 1 else tuple(f"x{i}" for i in range(len(examples)))
    outputs = tuple("y" if i == 0 else f"y_{i}" for i in range(trial.outputs))
    states = tuple(slot for slot in slots if slot.kind != "parameter")
    updates = tuple(slot.name for slot in slots if slot.kind == "updated")
    random = ("key",) if trial.random else ()
    cls = type(
        re.sub(r"\W", "_", name),
        (TorchLayer,),
        {
            "__doc__": f"torch.nn.Module {type(module).__name__}, differentiated by torch.func.vjp.",
            "__module__": __name__,
            "name": name,
            "outputs": outputs,
            # Updates have overwritten these when backward runs, but some modules read them in forward.
            "saves": tuple(f"{update}_before" for update in updates),
            "updates": updates,
            "nondifferentiable": tuple(
                n for n, x in zip(input_names, examples, strict=True) if not x.is_floating_point()
            ),
            **_methods(modules, slots, input_names, outputs, random),
            "parameters": _declare({s.name: s for s in slots if s.kind == "parameter"}),
            "states": _declare({s.name: s for s in states}),
        },
    )
    layer: TorchLayer = cls()
    return layer


def plugin(*layers: TorchLayer) -> object:
    """Make a plugin that registers these layers under their names, for load_registry(plugins=[...]).

    >>> from graphnet.sdk import load_registry
    >>> tanh = from_torch_module(torch.nn.Tanh(), (1, 3), name="local/tanh")
    >>> "local/tanh" in load_registry(plugins=[plugin(tanh)], entry_points=False).layers
    True
    """

    class TorchModules:
        @hookimpl
        def graphnet_layers(self, register: Register) -> None:
            for layer in layers:
                register(layer.name, type(layer))

    return TorchModules()


class _TensorlessModules:
    """The module without its tensors, in train and in eval mode."""

    def __init__(self, module: torch.nn.Module, options: dict[str, Any]) -> None:
        self.options = options
        # The copy leaves the caller's module unchanged; device "meta" frees the memory of the copy.
        self.train = copy.deepcopy(module).to("meta").train()
        self.eval = copy.deepcopy(self.train).eval()

    def run(
        self, module: torch.nn.Module, tensors: Mapping[str, Tensor], inputs: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        # A module may use `view`, which fails where a plan lays tensors otherwise than torch's modules do.
        if not getattr(module, "takes_any_strides", False):
            inputs = [x.contiguous() for x in inputs]
        if tensors:
            returned = torch.func.functional_call(
                module, dict(tensors), tuple(inputs), self.options
            )
        else:  # functional_call takes longer than a small operator
            returned = module(*inputs, **self.options)
        return tuple(y for y in as_tuple(returned) if y is not None)


def _declare(slots: Mapping[str, ModuleTensor]) -> Callable[[Layer, Specs], dict[str, Any]]:
    declared = {name: slot.spec() for name, slot in slots.items()}

    def declare(self: Layer, specs: Specs) -> dict[str, Any]:
        return declared

    return declare


def _methods(
    modules: _TensorlessModules,
    slots: tuple[ModuleTensor, ...],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    random: tuple[str, ...],
) -> dict[str, Callable[..., Any]]:
    """Make forward, inference and backward, with signatures that name the tensors they take."""
    names = (*inputs, *(slot.name for slot in slots))
    updated = {slot.name: slot for slot in slots if slot.kind == "updated"}
    differentiable = {*inputs, *(slot.name for slot in slots if slot.kind == "parameter")}

    def tensors(named: Mapping[str, Any]) -> dict[str, Tensor]:
        return {slot.path: named[slot.name] for slot in slots}

    def train(named: Mapping[str, Any], key: Tensor | None) -> tuple[Any, dict[str, Tensor]]:
        """Run the module in train mode; return its outputs, and the new values of the updated buffers."""
        written = {slot.path: named[slot.name].clone() for slot in updated.values()}
        with _seeded(key):
            results = modules.run(
                modules.train, {**tensors(named), **written}, [named[n] for n in inputs]
            )
        if len(results) != len(outputs):
            raise LayerError(
                f"the module returned {len(results)} tensors, but {len(outputs)} for its example inputs"
            )
        return results, written

    def forward(self: Layer, *args: Any, **more: Any) -> Any:
        named = dict(zip((*names, *random), args, strict=False), **more)
        results, written = train(named, named.get("key"))
        before = tuple(named[name].clone() for name in updated)
        after = tuple(written[slot.path] for slot in updated.values())
        returned = (*results, *before, *after)
        return returned[0] if len(returned) == 1 else returned

    def inference(self: Layer, *args: Any, **more: Any) -> Any:
        named = dict(zip(names, args, strict=False), **more)
        results = modules.run(modules.eval, tensors(named), [named[n] for n in inputs])
        return results[0] if len(results) == 1 else results

    kept = tuple(f"{name}_before" if name in updated else name for name in names)
    asked = (*(f"grad_{y}" for y in outputs), *kept, *random, "wanted")

    def backward(self: Layer, *args: Any, **more: Any) -> Any:
        given = dict(zip(asked, args, strict=False), **more)
        named = dict(zip(names, (given[name] for name in kept), strict=True))
        wanted = [n for n in names if n in differentiable and n in given["wanted"]]

        def outputs_of(*values: Tensor) -> tuple[Tensor, ...]:
            results, _ = train(
                {**named, **dict(zip(wanted, values, strict=True))}, given.get("key")
            )
            return tuple(y for y in results if y.is_floating_point())

        results, vjp = torch.func.vjp(outputs_of, *(named[name] for name in wanted))[:2]
        floating = [given[f"grad_{y}"] for y in outputs if given[f"grad_{y}"].is_floating_point()]
        gradients = dict(zip(wanted, vjp(tuple(floating[: len(results)])), strict=True))
        found = tuple(gradients.get(name) for name in names if name in differentiable)
        return found[0] if len(found) == 1 else found

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    stated = {forward: (*names, *random), inference: names, backward: asked}
    for function, parameters in stated.items():
        function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, kind) for name in ("self", *parameters)]
        )
    return {"forward": forward, "inference": inference, "backward": backward}


@contextmanager
def _seeded(key: Tensor | None) -> Iterator[None]:
    """Seed torch's random generators from the key inside a `with` block, and restore them afterwards."""
    if key is None or key.device.type == "meta":
        yield
        return
    devices = [key.device] if key.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        high, low = (int(part) & 0xFFFFFFFF for part in key.tolist())
        torch.manual_seed((high << 31) ^ low)
        yield
