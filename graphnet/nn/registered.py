"""Registered: a class for each registered layer, loss and optimizer, which is made at its first use.

The name of a class is that of its definition; a layer that is registered under a second name has a second
name here, and so has a layer whose class has another name in torch. Plugins need to do nothing for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, ClassVar

import torch

from graphnet.errors import nearest
from graphnet.nn.arguments import Arguments
from graphnet.nn.module import Module
from graphnet.nn.optimizer import ModuleOptimizer
from graphnet.sdk import Definition, Entry, Layer, default_registry

OPTIONS = ("specs", "device", "dtype", "generator")
"""The arguments of Module that the class of each layer takes beside its fields, by name."""
TAKEN = frozenset(
    [
        "Composite",
        "LayerModule",
        "LoadedKeys",
        "Module",
        "ModuleOptimizer",
        "Network",
        "Pair",
        "Sequential",
        "Tree",
    ]
)
"""Names in graphnet.nn that no class of a layer gets."""
_KINDS = ("layers", "losses", "optimizers")
_TORCH_NAMES = {
    "transpose_conv1d": "ConvTranspose1d",
    "transpose_conv2d": "ConvTranspose2d",
    "transpose_conv3d": "ConvTranspose3d",
    "instance_norm": "InstanceNorm2d",  # ours takes any number of axes
}
"""Built-in layers whose class in torch has another name; a loss may end with "Loss" there."""
_made: dict[tuple[type, str], type[Any]] = {}


class LayerModule(Module):
    """Base of the classes that are made from registered layers and losses; the fields are the arguments."""

    arguments: ClassVar[Arguments]

    def __init__(self, *args: Any, **named: Any) -> None:
        known = self.arguments.definition.field_names()
        options = {n: named.pop(n) for n in OPTIONS if n in named and n not in known}
        title = type(self).__name__
        layer = self.arguments.made(title, self.arguments.fields(title, args, named))
        assert isinstance(layer, Layer)
        super().__init__(layer, **options)


def class_named(name: str) -> type[Any]:
    """Return the class that has this name.

    Raises:
        AttributeError: nothing has the name, or things of several plugins have it.
    """
    found = _found(name)
    if not found:
        advice = _INSTEAD.get(name) or nearest(name, class_names())
        raise AttributeError(f"graphnet.nn has no {name!r}. {advice}")
    if len(found) > 1:
        texts = " or ".join(f"nn.make({entry.name!r})" for entry, _ in found)
        raise AttributeError(f"graphnet.nn has several {name!r}: use {texts}.")
    ((entry, kind),) = found
    own = entry.value.__name__
    if (entry.value, own) not in _made:
        _made[entry.value, own] = _make_class(entry, kind)
    return _made[entry.value, own]


_INSTEAD = {  # classes of torch.nn whose nearest name here is something else
    "Upsample": "Use NearestUpsampling or BilinearUpsampling.",
    "UpsamplingNearest2d": "Use NearestUpsampling.",
    "UpsamplingBilinear2d": "Use BilinearUpsampling(align_corners=True).",
    "Identity": "Leave it out: a module without an effect is not needed.",
    "BCELoss": "Use BCEWithLogitsLoss on the values before the sigmoid.",
    "SmoothL1Loss": "Use HuberLoss, which is the same for beta = delta = 1.",
}


def _found(name: str) -> list[tuple[Entry, str]]:
    """What the name may mean, each definition once; a built-in one goes before all others."""
    if name in TAKEN:
        return []
    found = {entry.value: (entry, kind) for one, entry, kind in _names() if one == name}
    ours = [one for one in found.values() if one[0].plugin.builtin]
    return ours or list(found.values())


def class_names() -> list[str]:
    """Return the names of all classes, sorted."""
    return sorted({name for name, _, _ in _names()} - TAKEN)


def module_of(layer: Layer, **options: Any) -> Module:
    """Make a module of a layer or loss, of the class of its kind if there is one.

    Args:
        layer: the definition of the layer.
        options: device, dtype, generator, specs and tensors, as for Module.

    >>> module_of(default_registry().layers["leaky_relu"].value(negative_slope=0.5))
    LeakyReLU(negative_slope=0.5)
    """
    cls = _class_of(type(layer))
    if cls is None:
        return Module(layer, **options)
    module: Module = object.__new__(cls)
    Module.__init__(module, layer, **options)
    return module


def make(name: str, **config: Any) -> Module:
    """Make a module of the layer or loss that is registered under a name, with these fields.

    >>> make("leaky_relu", negative_slope=0.5)(torch.tensor([-1.0]))
    tensor([-0.5000])
    """
    registry = default_registry()
    kind = "losses" if name in registry.losses else "layers"
    return module_of(registry.make(kind, {name: config}))


def _class_of(definition: type[Definition]) -> type[Any] | None:
    """The class of a definition; None if its name means something else."""
    entry = default_registry().entry_of(definition)
    found = _found(definition.__name__)
    if entry is None or [one.value for one, _ in found] != [definition]:
        return None
    return class_named(definition.__name__)


def _names() -> Iterator[tuple[str, Entry, str]]:
    """Each name of a class, with what is registered, and its kind."""
    registry = default_registry()
    for kind in _KINDS:
        for entry in registry.of_kind(kind).values():
            first = registry.name_of(entry.value) == entry.name
            yield entry.value.__name__ if first else _camel(entry.name), entry, kind
            torchs = _torch_class(entry, kind) if first else None
            if torchs is not None and torchs.__name__ != entry.value.__name__:
                yield torchs.__name__, entry, kind


def _torch_class(entry: Entry, kind: str) -> type[Any] | None:
    """The class of torch with the arguments of a built-in layer, loss or optimizer."""
    if not entry.plugin.builtin:
        return None
    home = vars(torch.optim if kind == "optimizers" else torch.nn)
    name = _TORCH_NAMES.get(entry.name, entry.value.__name__)
    found: type[Any] | None = home.get(f"{name}Loss" if kind == "losses" else name)
    return found


def _camel(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.rpartition("/")[2].split("_"))


def _make_class(entry: Entry, kind: str) -> type[Any]:
    definition: type[Definition] = entry.value
    torchs = _torch_class(entry, kind)
    optimizer = kind == "optimizers"
    arguments = Arguments.of(definition, torchs, skip=1 if optimizer else 0)
    first, last = (("params",), ()) if optimizer else ((), OPTIONS)
    text = inspect.getdoc(definition) or ""
    other = (
        ""
        if torchs is None
        else f" In torch it is {torchs.__module__.split('.')[1]}.{torchs.__name__}."
    )
    namespace = {
        "__module__": "graphnet.nn",
        "__doc__": f"{text.partition('>>>')[0].rstrip()}\n\nRegistered as {entry.name!r}.{other}",
        "arguments": arguments,
        "__signature__": arguments.signature(first=first, last=last),
    }
    return type(definition.__name__, (ModuleOptimizer if optimizer else LayerModule,), namespace)
