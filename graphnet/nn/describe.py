"""Describe: write modules as a model description, with their weights by the names that a model gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from graphnet.description import NAME, InputDescription, ModelDescription, NodeDescription
from graphnet.errors import InputError
from graphnet.nn.composite import Composite
from graphnet.nn.module import Module
from graphnet.nn.network import Network, output_names
from graphnet.nn.sequential import Sequential
from graphnet.nn.tree import Tree
from graphnet.sdk import Registry, changed_fields, thawed


def described(
    module: Tree, registry: Registry, *, name: str = "model"
) -> tuple[ModelDescription, dict[str, Tensor]]:
    """Write a module as a description, and return it with the module's own tensors by their names in it.

    A module that occurs more than once becomes one node and others that share its parameters. A name such as
    "encoder" is the id of its node; a number is not, since ids start with a letter.

    Raises:
        InputError: a module has no parameters yet, is a loss, is of an unregistered layer, or takes any
            number of inputs.

    >>> from graphnet.nn import Linear, ReLU
    >>> from graphnet.sdk import default_registry
    >>> net = Sequential({"hidden": Linear(4, 2), "active": ReLU()})
    >>> description, weights = described(net, default_registry())
    >>> [node.id for node in description.layers], sorted(weights)
    (['hidden', 'active'], ['hidden.bias', 'hidden.weight'])
    """
    names = _input_names(module)
    writer = _Writer(registry)
    outputs = writer.write(module, (), tuple(f"${one}" for one in names))
    first = writer.nodes[-1].id if writer.nodes else None
    return (
        ModelDescription(
            layers=tuple(writer.nodes),
            name=name,
            inputs={one: InputDescription() for one in names},
            outputs=() if outputs == (first,) else outputs,
        ),
        writer.weights,
    )


def _input_names(module: Tree) -> tuple[str, ...]:
    while isinstance(module, Sequential) and len(module):
        module = module[0]
    if isinstance(module, Sequential):
        raise InputError(f"{module!r} has no layer: a model needs one or more")
    found = module.input_names() if isinstance(module, Module) else ("input",)
    if found is None:
        raise InputError(
            f"{module!r} takes any number of inputs. Put it into an nn.Network, which names its inputs."
        )
    return found if len(found) > 1 or isinstance(module, Network) else ("input",)


class _Writer:
    """Collects nodes and weights."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.nodes: list[NodeDescription] = []
        self.weights: dict[str, Tensor] = {}
        self._owners: dict[int, str] = {}  # a module's first tensor -> the node that owns it
        self._taken: set[str] = set()
        self._numbers: Counter[str] = Counter()

    def write(
        self, module: Tree, path: tuple[str, ...], inputs: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Add the nodes of a module that reads these references; returns those of its outputs."""
        match module:
            case Sequential():
                for name, part in module._modules.items():
                    inputs = self.write(part, (*path, name), inputs)
                return inputs
            case Network():
                return self._network(module, path, inputs)
            case Module() if not isinstance(module, Composite):
                return self._layer(module, path, inputs)
        raise InputError(f"{module!r} is no layer, Sequential or Network")

    def _network(
        self, module: Network, path: tuple[str, ...], inputs: tuple[str, ...]
    ) -> tuple[str, ...]:
        known = dict(zip((f"${name}" for name in module.inputs), inputs, strict=True))
        for name, reads in module.reads().items():
            part = module._modules[name]
            made = self.write(part, (*path, name), tuple(known[read] for read in reads))
            known[name] = made[0]
            known.update({f"{name}.{o}": r for o, r in zip(output_names(part), made, strict=False)})
        return tuple(known[name] for name in module.outputs)

    def _layer(
        self, module: Module, path: Sequence[str], inputs: tuple[str, ...]
    ) -> tuple[str, ...]:
        module._check_made()
        layer, entry = module.layer, self.registry.entry_of(module.layer)
        if entry is None or entry.name not in self.registry.layers:
            kind = "a loss: give it to compile" if entry else "of a layer that no plugin registers"
            raise InputError(f"{module!r} is {kind}")
        own = self._id(path, entry.name)
        tensors = {n: pair[0] for n, pair in module._pairs.items()} | module._states
        owner = self._owners.setdefault(id(next(iter(tensors.values()), module)), own)
        node = NodeDescription(
            entry.name,
            thawed(changed_fields(layer)),
            id=own,
            inputs=inputs,
            share=owner if tensors and owner != own else None,
            place=("layers", len(self.nodes)),
        )
        self.nodes.append(node)
        if owner == own:
            self.weights.update({f"{own}.{name}": tensor for name, tensor in tensors.items()})
        return (own, *(f"{own}.{output}" for output in layer.outputs[1:]))

    def _id(self, path: Sequence[str], layer: str) -> str:
        """The path as an id, or the layer's name with a number."""
        found = "_".join(path).replace(".", "_")
        base = layer.rpartition("/")[2]
        while not NAME.fullmatch(found) or found in self._taken:
            self._numbers[base] += 1
            found = f"{base}_{self._numbers[base]}"
        self._taken.add(found)
        return found
