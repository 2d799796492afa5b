"""from_torch: trace a torch module into a model of graphnet's layers, with its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, Self

import torch
from torch import Tensor

from graphnet.bridges.assemble import assemble
from graphnet.bridges.trace import trace
from graphnet.description import UpdateSettings, as_shape
from graphnet.errors import InputError
from graphnet.model import Model
from graphnet.plan import CompileOptions
from graphnet.sdk import Optimizer, Registry, registry_or_default
from graphnet.system import require


class TracedModel(Model):
    """The Model that `from_torch` returns. It also knows the names that its weights have in the torch module.

    Attributes:
        torch_names: the name of each parameter and buffer of the module that the model has -> the name of the
            model's weight. Several names have one weight where the module shares a parameter.
        opaque: the ids of the nodes that run an operator of torch -> the operator and its submodule.
        frozen: the weights whose parameters have requires_grad False in the module; `compile` and
            `plan` freeze them, so that training does not change them.

    >>> model = from_torch(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), (2, 3))
    >>> dict(model.torch_names)
    {'0.weight': '_0.weight', '0.bias': '_0.bias'}
    """

    torch_names: Mapping[str, str]
    opaque: Mapping[str, str]
    frozen: tuple[str, ...]
    _unused: Mapping[str, Tensor]

    def _training(
        self, optimizer: Optimizer | None, options: CompileOptions, overrides: Mapping[str, Any]
    ) -> tuple[UpdateSettings, CompileOptions]:
        """The settings of updates, in which the weights in `frozen` do not change, and the options."""
        if self.frozen:
            frozen = [{"match": name, "freeze": True} for name in self.frozen]
            parameters = [*frozen, *overrides.get("parameters", ())]
            overrides = {**overrides, "parameters": parameters}
        return super()._training(optimizer, options, overrides)

    def state_dict(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return a state_dict for the torch module: module.load_state_dict(model.state_dict()).

        Buffers that no operator reads, such as num_batches_tracked, have the values of the traced module.

        Args:
            weights: the model's weights by name, such as `program.model_weights` after a training; None takes
                `model.weights`.
        """
        given = self.weights if weights is None else weights
        assert given is not None
        named = {path: given[name].detach().clone() for path, name in self.torch_names.items()}
        return {**{path: tensor.clone() for path, tensor in self._unused.items()}, **named}

    def with_state_dict(self, state: Mapping[str, Tensor]) -> Self:
        """Return a model of the same description with the weights of a state_dict of the torch module.

        Raises:
            InputError: the state_dict lacks a name.
        """
        for path in self.torch_names:
            if path not in state:
                raise InputError(
                    f"with_state_dict: the state_dict has no {path!r}. It has: "
                    f"{', '.join(state) or 'nothing'}."
                )
        return self.with_weights({name: state[path] for path, name in self.torch_names.items()})


def from_torch(
    module: torch.nn.Module,
    *inputs: Sequence[int] | Tensor,
    name: str | None = None,
    registry: Registry | None = None,
) -> TracedModel:
    """Trace a torch module into a model of graphnet's layers, which has copies of the module's tensors.

    torch.export lists the operators that the module runs. Each operator for which there is a layer becomes a
    node with that layer. Every other one becomes an opaque node: its layer runs torch's operator, and its
    backward is torch's own derivative of this operator. The model compiles, trains and predicts like any
    other.

    - Training runs what the module does in train mode, prediction what it does in eval mode. The mode that
      the module has now makes no difference.
    - Batches and images may have any size that the module can take. A size that is fixed, since a weight has
      it or the module's code branches on it, is stated in the description.
    - A model without opaque nodes is saved and loaded like any other, without torch's module. One with opaque
      nodes is saved too, but a file holds no code: Model.load(path, registry=model.registry) loads it, with
      the registry of a model that was traced from the same module.

    Args:
        module: the module, on any device.
        inputs: an example of each input of forward: a shape, or a tensor where the input holds integers.
        name: the model's name; None takes the name of the module's class.
        registry: the layers and the rows of operators (hook graphnet_operators); None takes those of the
            installed plugins.

    Raises:
        InputError: there is no example input, or the module cannot be traced; the message says why.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> model = from_torch(net, (1, 3, 16, 16))
    >>> x = torch.rand(2, 3, 9, 7)
    >>> torch.allclose(model.predict(x), net(x), atol=1e-6)
    True
    """
    require(module, torch.nn.Module, "from_torch", "a module of torch.nn")
    require(name, (str, NoneType), "from_torch: name", "a text")
    if not inputs:
        raise InputError("from_torch: give an example of each input, a shape or a tensor")
    traced = trace(module, _examples(module, inputs))
    made = assemble(
        module,
        traced,
        name=name or type(module).__name__,
        registry=registry_or_default(registry),
    )
    model = TracedModel(made.description, weights=made.weights, registry=made.registry)
    model.torch_names = _torch_names(module, made.names)
    model.opaque = made.opaque
    model.frozen = tuple(
        model.torch_names[path]
        for path, parameter in module.named_parameters()
        if not parameter.requires_grad and path in model.torch_names
    )
    model._unused = {
        path: tensor.detach().clone()
        for path, tensor in module.state_dict().items()
        if path not in model.torch_names
    }
    return model


def _examples(module: torch.nn.Module, inputs: Sequence[Sequence[int] | Tensor]) -> list[Tensor]:
    """An example of each input, on the module's device and in its dtype."""
    floating = [t for t in module.state_dict().values() if t.is_floating_point()]
    dtype = floating[0].dtype if floating else torch.get_default_dtype()
    device = floating[0].device if floating else torch.device("cpu")
    found = []
    for given in inputs:
        x = given if isinstance(given, Tensor) else _random(as_shape("from_torch", given))
        found.append(x.detach().to(device, dtype if x.is_floating_point() else None).clone())
    return found


def _random(shape: tuple[int, ...]) -> Tensor:
    try:
        return torch.rand(shape)
    except RuntimeError as error:  # of the allocator
        raise InputError(
            f"from_torch: there is no memory for an example of the shape {shape}. Give a smaller one."
        ) from error


def _torch_names(module: torch.nn.Module, names: Mapping[str, str]) -> dict[str, str]:
    """The weight of each tensor of a module that the model has, also under its other names."""
    tensors = module.state_dict(keep_vars=True)
    weights = {id(tensors[path]): name for path, name in names.items() if path in tensors}
    return {path: weights[id(t)] for path, t in tensors.items() if id(t) in weights}
