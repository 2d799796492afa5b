"""Pass: a function from graph to graph that a plan's compilation runs, and its place among the others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from graphnet.errors import PluginError, nearest, shown

PASSES = (
    "loss",
    "freeze",
    "sync_statistics",
    "fold_affine",
    "mixed_precision",
    "fusion",
    "select_kernels",
    "absorb_casts",
    "block_layout",
    "inference",
    "keep_states",
    "micro_batches",
    "chain_states",
    "differentiate",
    "accumulate",
    "add_parts",
    "data_parallel",
    "unscale",
    "report",
    "clip",
    "update",
    "ema",
    "batch_updates",
    "skip",
    "keep_casts",
    "dead_code",
    "common_subexpressions",
    "hoist_constants",
    "store_bfloat16",
    "recompute",
    "in_place",
)
"""The names of graphnet's own passes; the compilation of a plan runs some of them."""


class Rewritable(Protocol):
    """Base of `graphnet.graph.Graph`, which passes take and return: calls, values, inputs and outputs.

    >>> from graphnet import Model
    >>> graph = Model({"layers": ["relu"]}).graph((2, 3))
    >>> list(graph.calls), list(graph.values), graph.inputs, graph.outputs
    (['relu_1'], ['$input', 'relu_1.y'], ('$input',), ('relu_1.y',))
    """

    @property
    def calls(self) -> Mapping[str, Any]:
        """The calls by name, in an order in which they can run."""

    @property
    def values(self) -> Mapping[str, Any]:
        """The values by name."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""


G = TypeVar("G", bound=Rewritable)


@dataclass(frozen=True, slots=True)
class Pass(Generic[G]):
    """A function from graph to graph, and its place among the passes of a compilation.

    Args:
        run: takes a graph and returns one; it changes neither the graph nor anything else.
        summary: what it does, in one line; by default the first line of the docstring of `run`.
        name: the name by which the user switches it off; a plugin gives it to `register`.
        after: the name of the pass after which it runs, in each plan that contains that pass.
        needed: whether it cannot be switched off.
        exact: whether the outputs and updates compute the same as before. This is checked after each run.
            False is only for a pass that changes what is computed.
        settled: False for a pass after which kernels that work in blocks of pixels may lack the layouts of
            their values.

    Raises:
        PluginError: `run` is no function, or `after` is neither one of graphnet's passes nor a plugin's.

    >>> def same(graph):
    ...     '''Nothing changes.'''
    ...     return graph
    >>> one = Pass(same, after="dead_code")
    >>> one.summary, one.name, one.needed, one.exact, one.settled
    ('Nothing changes.', '', False, True, True)
    >>> one.run("a graph")
    'a graph'
    """

    run: Callable[[G], G]
    summary: str = ""
    name: str = ""
    after: str = ""
    needed: bool = False
    exact: bool = True
    settled: bool = True

    def __post_init__(self) -> None:
        if not callable(self.run):
            raise PluginError(f"a pass runs a function of a graph, found {self.run!r}")
        if not isinstance(self.after, str):
            raise PluginError(f"after: expected the name of a pass, found {shown(self.after)}")
        if self.after and "/" not in self.after and self.after not in PASSES:
            raise PluginError(
                f"a pass is to run after {self.after!r}, which is no pass. {nearest(self.after, PASSES)}"
            )
        if not self.summary:
            first = (inspect.getdoc(self.run) or "").split("\n", 1)[0]
            object.__setattr__(self, "summary", first)
