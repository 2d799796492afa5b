"""Expand a ModelDescription: blocks unrolled, arguments substituted, references resolved.

The result is a flat list of nodes in an order in which each node comes after its inputs. Every problem is
collected; a cycle is named node by node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphnet.description.flat import CycleError, Expanded, FlatNode, Reference, topological
from graphnet.description.model import (
    BlockDescription,
    ModelDescription,
    NodeDescription,
)
from graphnet.description.unrolled_size import check_unrolled_size
from graphnet.description.yamlfile import Place, dotted, undotted
from graphnet.errors import DescriptionError, Problem, UnknownNameError, nearest
from graphnet.sdk import Registry, split_form


def expand(
    description: ModelDescription, registry: Registry, problems: Sequence[Problem] = ()
) -> Expanded:
    """Unroll a description into nodes. Raises DescriptionError with `problems` and all faults found here."""
    expander = _Expander(description, registry)
    expanded = expander.run()
    if problems or expander.problems:
        raise DescriptionError([*problems, *expander.problems])
    return expanded


@dataclass(frozen=True)
class _Scope:
    """Where a list of nodes is unrolled: the ids' prefix and what `$name` stands for."""

    prefix: str
    arguments: Mapping[str, Any]
    inputs: Mapping[str, Reference]
    share: str | None
    within: tuple[str, ...]  # the blocks around, outermost first


class _Expander:
    def __init__(self, description: ModelDescription, registry: Registry) -> None:
        self.description = description
        self.registry = registry
        self.problems: list[Problem] = []
        self.nodes: dict[str, tuple[FlatNode | None, Place]] = {}
        self.aliases: dict[str, Reference] = {}  # a block's id -> what it returns
        self.pending: list[tuple[str, Place, str]] = []  # references to check: name, place, prefix

    def problem(self, place: Place, message: str) -> None:
        where = self.description.locations.where(place)
        self.problems.append(Problem(message, dotted(place), where))

    def run(self) -> Expanded:
        name, described = self.description.name, self.description.inputs
        inputs = {given: Reference(f"${given}") for given in described}
        scope = _Scope("", {}, inputs, None, ())
        check_unrolled_size(self.description)
        last = self.unroll(self.description.layers, scope)
        outputs = self.outputs(last, scope)
        nodes = self.resolve()
        if self.problems:
            return Expanded(name, described, (), {})
        resolved = {output: self.follow(ref) for output, ref in outputs.items()}
        self.check_use(nodes, resolved)
        return Expanded(name, described, self.in_order(nodes), resolved)

    def outputs(self, last: Reference | None, scope: _Scope) -> dict[str, Reference]:
        names = self.description.outputs
        if not names:
            return {} if last is None else {"output": last}
        found: dict[str, Reference] = {}
        for i, name in enumerate(names):
            reference = self.reference(name, scope, ("outputs", i))
            if name in found:
                self.problem(("outputs", i), f"{name!r} is given twice")
            if reference:
                found[name] = reference
        return found

    # -- unrolling: each node of a scope, in order --------------------------------------------------

    def unroll(self, nodes: Sequence[NodeDescription], scope: _Scope) -> Reference | None:
        """Add the nodes of one scope; returns the reference to the last one."""
        ids = self.ids(nodes, scope)
        siblings = dict(zip(ids, nodes, strict=True))
        previous: Reference | None = next(iter(scope.inputs.values()), None)
        for node, name in zip(nodes, ids, strict=True):
            given = node.inputs
            inputs: tuple[Reference, ...]
            if given is None:
                inputs = (previous,) if previous else ()
            else:
                refs = [
                    self.reference(text, scope, (*node.place, "inputs", i))
                    for i, text in enumerate(given)
                ]
                inputs = tuple(ref for ref in refs if ref)
            config = self.substitute(node.config, scope, (*node.place, node.layer))
            share = self.share(node, name, scope, siblings)
            if node.layer in self.description.blocks:
                self.block(node, name, config, inputs, share, scope)
            else:
                self.layer(node, name, config, inputs, share)
            previous = Reference(name)
        return previous

    def ids(self, nodes: Sequence[NodeDescription], scope: _Scope) -> list[str]:
        """The full id of each node: the one given, or the layer's name and a number."""
        given = [node.id for node in nodes if node.id]
        for name, count in Counter(given).items():
            if count > 1:
                place = [node.place for node in nodes if node.id == name][1]
                self.problem(
                    (*place, "id"), f"the id {name!r} is given to {count} nodes; rename one"
                )
        taken = set(given)
        numbers: Counter[str] = Counter()
        ids = []
        for node in nodes:
            name = node.id or ""
            while not name:
                base = node.layer.rpartition("/")[2]
                numbers[base] += 1
                candidate = f"{base}_{numbers[base]}"
                name = "" if candidate in taken else candidate
            ids.append(scope.prefix + name)
        return ids

    def layer(
        self,
        node: NodeDescription,
        name: str,
        config: Mapping[str, Any],
        inputs: tuple[Reference, ...],
        share: str | None,
    ) -> None:
        where = self.description.locations.where(node.place)
        flat = None
        try:
            layer_name, fields = split_form({node.layer: config})
            entry = self.registry.find("layers", layer_name)
            flat = FlatNode(name, entry.value(**fields), layer_name, inputs, share or name, where)
        except UnknownNameError as error:
            blocks = self.description.blocks
            hint = nearest(node.layer, blocks) if blocks else ""
            also = f" Among the blocks of this file: {hint}" if "Did you mean" in hint else ""
            self.problem((*node.place, node.layer), f"{error}{also}")
        except DescriptionError as error:
            for problem in error.problems:
                place = (*node.place, node.layer, *undotted(problem.path))
                self.problem(place, problem.message)
        self.nodes[name] = (flat, node.place)

    def block(
        self,
        node: NodeDescription,
        name: str,
        config: Mapping[str, Any],
        inputs: tuple[Reference, ...],
        share: str | None,
        scope: _Scope,
    ) -> None:
        block = self.description.blocks[node.layer]
        place = (*node.place, node.layer)
        self.aliases[name] = Reference("")  # known, so that references to it are not problems
        if node.layer in scope.within:
            self.problem(place, f"block {node.layer!r} contains itself; blocks cannot recurse")
            return
        if len(inputs) != len(block.inputs) and (node.inputs is not None or len(block.inputs) != 1):
            self.problem(
                place,
                f"expected {len(block.inputs)} inputs ({', '.join(block.inputs)}), got {len(inputs)}",
            )
        inner = _Scope(
            prefix=f"{name}.",
            arguments=self.arguments(block, config, place),
            inputs=dict(zip(block.inputs, inputs, strict=False)),
            share=share,
            within=(*scope.within, node.layer),
        )
        last = self.unroll(block.layers, inner)
        if not block.outputs:
            self.aliases[name] = last or Reference("")
            return
        outputs = ("blocks", node.layer, "outputs")
        for i, text in enumerate(block.outputs):
            reference = self.reference(text, inner, (*outputs, i))
            if reference and i == 0:
                self.aliases[name] = reference

    def arguments(
        self, block: BlockDescription, config: Mapping[str, Any], place: Place
    ) -> dict[str, Any]:
        for key in config:
            if key not in block.arguments:
                self.problem((*place, key), f"unknown argument. {nearest(key, block.arguments)}")
        for key, default in block.arguments.items():
            if default is None and config.get(key) is None:
                self.problem((*place, key), "must be given")
        return {**block.arguments, **config}

    def substitute(self, value: Any, scope: _Scope, place: Place) -> Any:
        """`$argument` replaced by its value, at any depth."""
        if isinstance(value, str) and value.startswith("$"):
            if value[1:] in scope.arguments:
                return scope.arguments[value[1:]]
            known = (
                nearest(value[1:], scope.arguments) if scope.arguments else "There is none here."
            )
            self.problem(place, f"unknown argument {value!r}. {known}")
            return None
        if isinstance(value, Mapping):
            return {k: self.substitute(v, scope, (*place, k)) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.substitute(v, scope, (*place, i)) for i, v in enumerate(value)]
        return value

    def share(
        self,
        node: NodeDescription,
        name: str,
        scope: _Scope,
        siblings: Mapping[str, NodeDescription],
    ) -> str | None:
        """The full id whose parameters this node uses; None for its own."""
        if node.share is None:
            short = name.removeprefix(scope.prefix)
            return None if scope.share is None else f"{scope.share}.{short}"
        target = scope.prefix + node.share
        place = (*node.place, "share")
        if target not in siblings or target == name:
            others = [other.removeprefix(scope.prefix) for other in siblings if other != name]
            self.problem(place, f"unknown id {node.share!r}. {nearest(node.share, others)}")
            return None
        if siblings[target].layer != node.layer:
            self.problem(
                place,
                f"{node.share!r} is a {siblings[target].layer}, this is a {node.layer}; "
                f"only nodes of the same kind can share parameters",
            )
            return None
        return target

    # -- references ---------------------------------------------------------------------------------

    def reference(self, text: str, scope: _Scope, place: Place) -> Reference | None:
        """`$input`, `id`, `id.output` or, in a block with several outputs, `block.id`."""
        if text.startswith("$"):
            if text[1:] in scope.inputs:
                return scope.inputs[text[1:]]
            known = [f"${name}" for name in scope.inputs]
            self.problem(place, f"unknown input {text!r}. {nearest(text, known)}")
            return None
        self.pending.append((scope.prefix + text, place, scope.prefix))
        return Reference(scope.prefix + text)

    def resolve(self) -> list[FlatNode]:
        """Check every reference and follow the aliases."""
        for name, place, prefix in self.pending:
            if self.known(name) is None:
                scope = [
                    other.removeprefix(prefix)
                    for other in (*self.nodes, *self.aliases)
                    if other.startswith(prefix)
                ]
                short = name.removeprefix(prefix)
                self.problem(place, f"unknown id {short!r}. {nearest(short, scope)}")
        if self.problems:
            return []
        nodes = [node for node, _ in self.nodes.values() if node is not None]
        shares = {node.id: node.share for node in nodes}
        return [
            replace(
                node,
                inputs=tuple(self.follow(ref) for ref in node.inputs),
                share=self.root(node.id, shares),
            )
            for node in nodes
        ]

    def root(self, name: str, shares: Mapping[str, str]) -> str:
        """The node that owns the parameters, over any chain of `share`."""
        seen = {name}
        owner = name
        while shares[owner] != owner:
            owner = shares[owner]
            if owner in seen:
                self.problem(self.nodes[name][1], f"{name!r} shares its parameters in a circle")
                return name
            seen.add(owner)
        return owner

    def known(self, name: str) -> Reference | None:
        """The reference that a full name stands for: a node or block, or an output of one."""
        if name in self.nodes:
            return Reference(name)
        if name in self.aliases:
            return self.aliases[name]
        owner, _, output = name.rpartition(".")
        if owner in self.nodes:
            node = self.nodes[owner][0]
            if node is None or output in node.layer.outputs:
                return Reference(owner, output)
        return None

    def follow(self, reference: Reference) -> Reference:
        while reference.output is None and reference.node not in self.nodes:
            target = self.known(reference.node)
            if target is None or target == reference:  # a model input stands for itself
                return reference
            reference = target
        return reference

    # -- structure ----------------------------------------------------------------------------------

    def check_use(self, nodes: Sequence[FlatNode], outputs: Mapping[str, Reference]) -> None:
        used = {ref.node for node in nodes for ref in node.inputs}
        used |= {ref.node for ref in outputs.values()}
        for node in nodes:
            if node.id not in used:
                self.problem(
                    self.nodes[node.id][1],
                    f"nothing uses the output of {node.id!r}. Name it in another node's inputs or in "
                    f"outputs, or remove it",
                )
        for name in self.description.inputs:
            if f"${name}" not in used:
                self.problem(("inputs", name), f"nothing uses the input {name!r}; remove it")

    def in_order(self, nodes: Sequence[FlatNode]) -> tuple[FlatNode, ...]:
        try:
            return topological(nodes)
        except CycleError as error:
            ids = error.ids
            message = f"the graph has a cycle: {' -> '.join([*ids, ids[0]])}. Take one of these inputs away"
            self.problem(self.nodes[ids[0]][1], message)
            return ()
