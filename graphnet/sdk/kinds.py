"""Kinds: the table of what plugins can register; hooks, registry, discovery and commands read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from graphnet.errors import ContractError, PluginError, shown
from graphnet.sdk.command import Command
from graphnet.sdk.dataset import DataSet
from graphnet.sdk.executor import Executor
from graphnet.sdk.graph_pass import Pass
from graphnet.sdk.kernel import Kernel
from graphnet.sdk.layer import Layer, Loss
from graphnet.sdk.metric import Metric
from graphnet.sdk.multi_tensor import MultiTensorKernel
from graphnet.sdk.optimizer import Optimizer
from graphnet.sdk.reporter import Reporter
from graphnet.sdk.schedule import Schedule
from graphnet.sdk.writer import Writer

_ENDING = re.compile(r"\.[a-z0-9]+")
_ENDINGS = "the ending of a file such as '.onnx', in small letters and digits"
_NAME = re.compile(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)?")


@dataclass(frozen=True, slots=True)
class PluginKind:
    """One kind of thing that plugins register.

    Attributes:
        name: the plural, which is the Registry's field and the end of the hook's name.
        singular: what a message calls one of them.
        bases: the class that it must be derived from, with the names that it must define. If there are two
            classes, it must be derived from one of them.
        other_than: classes that it must not be derived from, since those are of another kind.
        instance_of: the class that it has to be an instance of, in place of `bases`.
        function: for a kind of functions, what the function must be, in place of `bases`.
        namespaced: whether its name needs a namespace, such as acme/swish, unless it is built in.
        hint: what an error says to someone who registers a function where a class is expected.
        names: the names that it may have.
        naming: those names, in words.

    >>> KINDS["losses"].singular
    'loss'
    """

    name: str
    singular: str
    bases: Mapping[type, tuple[str, ...]] = field(default_factory=dict)
    other_than: tuple[type, ...] = ()
    instance_of: type | None = None
    function: str = ""
    namespaced: bool = False
    hint: str = ""
    names: re.Pattern[str] = _NAME
    naming: str = "'namespace/name', in small letters, digits and '_'"

    @property
    def hook(self) -> str:
        """The name of the hook that registers it."""
        return f"graphnet_{self.name}"

    @property
    def expected(self) -> str:
        """What it has to be, in words."""
        if self.function:
            return self.function
        if self.instance_of is not None:
            return f"an instance of graphnet.{self.instance_of.__name__}"
        words = " or ".join(
            f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in self.bases
        )
        others = " or ".join(other.__name__ for other in self.other_than)
        return f"a subclass of {words}" + (f" that is no {others}" if others else "")

    def check(self, name: str, value: object) -> None:
        """Check that a thing is of this kind.

        Raises:
            PluginError: it is of another class, or no function.
            ContractError: its class does not define what this kind needs.
        """
        if not self.fits(value):
            hint = f". {self.hint}" if self.hint and callable(value) else ""
            raise PluginError(
                f"{self.singular} {name!r} must be {self.expected}, found {value!r}{hint}"
            )
        for base, needed in self.bases.items():
            if isinstance(value, type) and issubclass(value, base):
                own = [vars(cls) for cls in value.__mro__ if cls not in base.__mro__]
                for attribute in needed:
                    if not any(attribute in defined for defined in own):
                        raise ContractError(
                            f"{self.singular} {name!r} ({value.__name__}) defines no {attribute}"
                        )

    @property
    def one(self) -> str:
        """The singular with its article: "an optimizer"."""
        return f"{'an' if self.singular[0] in 'aeiou' else 'a'} {self.singular}"

    def refusal(self, found: object) -> str:
        """Say why this is no form of one of this kind: it is no name or mapping, or of another kind."""
        kind = found if isinstance(found, type) else type(found)
        what = f"the class {kind.__name__}" if isinstance(found, type) else shown(found)
        home = "" if kind.__module__ == "builtins" else f" of {kind.__module__}"
        remedy = ""
        if isinstance(found, type) and self.fits(found):
            remedy = f" Make an instance of it: {kind.__name__}(...)."
        elif kind.__module__.partition(".")[0] == "torch":
            remedy = f" graphnet computes with its own {self.name}, not with those of torch."
        return (
            f"expected the name of {self.one}, {{name: {{field: value}}}} or an instance, found "
            f"{' '.join(what.split())}{home}.{remedy}"
        )

    def fits(self, value: object) -> bool:
        """Whether a thing is of this kind."""
        if self.function:
            return callable(value) and not isinstance(value, type)
        if self.instance_of is not None:
            return isinstance(value, self.instance_of)
        if not isinstance(value, type) or value in self.bases:
            return False
        return issubclass(value, tuple(self.bases)) and not issubclass(value, self.other_than)


@dataclass(frozen=True, slots=True)
class OwnKind:
    """A kind of thing that a plugin declares, so that other plugins can register such things too.

    If it is registered under the name "acme_filters", there is a hook graphnet_acme_filters.

    Args:
        singular: what a message calls one of them.
        base: the class that each of them is derived from.
        needs: the names that each of them must define.

    >>> kind = OwnKind("filter", dict, needs=("apply",))
    >>> kind.singular, kind.base, kind.needs
    ('filter', <class 'dict'>, ('apply',))
    >>> kind.named("acme_filters").hook
    'graphnet_acme_filters'
    """

    singular: str
    base: type
    needs: tuple[str, ...] = ()

    def named(self, name: str) -> PluginKind:
        """The kind under the name with which it is registered."""
        return PluginKind(name, self.singular, {self.base: self.needs})


_METRIC = (
    "Write: class Error(graphnet.Metric): higher_is_better = False; def measure(self, prediction, target): "
    "return (prediction - target).abs().mean(dim=(1, 2, 3))"
)

KINDS: Mapping[str, PluginKind] = {
    kind.name: kind
    for kind in (
        PluginKind(
            "kinds",
            "kind",
            instance_of=OwnKind,
            names=re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+"),
            naming="two or more words in small letters with '_' between them, such as 'acme_filters'",
        ),
        PluginKind(
            "layers", "layer", {Layer: ("forward",)}, other_than=(Loss, Kernel), namespaced=True
        ),
        PluginKind("losses", "loss", {Loss: ("forward",)}, namespaced=True),
        PluginKind(
            "kernels",
            "kernel",
            {
                Kernel: ("replaces", "match", "forward"),
                MultiTensorKernel: ("replaces", "match", "run"),
            },
            namespaced=True,
        ),
        PluginKind("optimizers", "optimizer", {Optimizer: ("update",)}),
        PluginKind("schedules", "schedule", {Schedule: ("factor",)}),
        PluginKind("executors", "executor", {Executor: ("prepare",)}),
        PluginKind("datasets", "data set", {DataSet: ("load",)}),
        PluginKind("reporters", "reporter", {Reporter: ("start",)}),
        PluginKind(
            "readers",
            "reader",
            function="a function (path) that returns a graphnet.ModelFile, or only its description",
            names=_ENDING,
            naming=_ENDINGS,
        ),
        PluginKind(
            "writers",
            "writer",
            {Writer: ("write",)},
            names=_ENDING,
            naming=_ENDINGS,
        ),
        PluginKind(
            "operators",
            "operator",
            function="a function that takes the operator's arguments by name and returns a graphnet.sdk.Node",
            names=re.compile(r"[a-z]\w*\.\w+\.\w+"),
            naming="the full name of an operator such as 'aten.relu.default'",
        ),
        PluginKind("passes", "pass", instance_of=Pass, namespaced=True),
        PluginKind(
            "commands",
            "command",
            instance_of=Command,
            names=re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*"),
            naming="in small letters, digits and '-'",
        ),
        PluginKind("metrics", "metric", {Metric: ("measure",)}, hint=_METRIC),
    )
}
"""Name -> kind, in the order in which a plugin's hooks are called."""
