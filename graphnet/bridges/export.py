"""Export: a torch module through torch.export, with sizes that are symbols where other sizes are possible."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sympy
import torch
import torch.fx.experimental._config as shapes_config
from torch import Tensor
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.fx import Node as FxNode

from graphnet.errors import InputError

Axes = frozenset[tuple[int, int]]
"""Axes of inputs: the number of the input, and of its axis."""

ADVICE = (
    "A trace holds one path through the code. An `if` or a loop that depends on the values of a tensor has "
    "no single path: write it with torch.where, or make a layer of that part of the network with "
    "gn.from_torch_module, which runs any code."
)


def export_free(
    module: torch.nn.Module, examples: Sequence[Tensor]
) -> tuple[ExportedProgram, Axes]:
    """Export a module with as many free sizes as its code allows.

    Returns:
        The program, and the axes whose sizes are fixed since the module's Python code branches on them.

    Raises:
        InputError: torch.export cannot trace the module.
    """
    fixed: Axes = frozenset()
    while True:
        exported = export(module, examples, fixed)
        branches = _branches(exported)
        if branches <= fixed:
            return exported, fixed
        fixed |= branches


def export(module: torch.nn.Module, examples: Sequence[Tensor], fixed: Axes) -> ExportedProgram:
    """Export a module in its mode; the axes `fixed` keep the sizes of the examples.

    Raises:
        InputError: torch.export cannot trace the module.
    """
    sizes = ShapesCollection()  # type: ignore[no-untyped-call]
    for number, example in enumerate(examples):
        sizes[example] = {
            axis: Dim.STATIC if (number, axis) in fixed else Dim.AUTO
            for axis in range(example.ndim)
        }
    arguments = tuple(examples)
    try:
        # This setting lets a size be 1 later. Without it, torch takes all free sizes as 2 or more.
        patch: Any = shapes_config.patch  # type: ignore[attr-defined]
        with warnings.catch_warnings(), patch(backed_size_oblivious=True):
            warnings.simplefilter("ignore")  # of torch's own code
            return torch.export.export(
                module,
                arguments,
                dynamic_shapes=sizes.dynamic_shapes(module, arguments),  # type: ignore[no-untyped-call]
                strict=False,
            )
    except Exception as error:  # the module's own code, or what torch.export raises
        given = ", ".join(f"{tuple(x.shape)} {x.dtype}" for x in examples)
        raise InputError(
            f"from_torch: torch.export cannot trace {type(module).__name__} on {given}: "
            f"{type(error).__name__}: {_first_lines(error)}{_place(error)}\n{ADVICE}"
        ) from error


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])


def _place(error: Exception) -> str:
    """The last line of code outside torch and this package where an error passed."""
    packages = str(Path(torch.__file__).parent), str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((*packages, "<"))]
    return f" (at {own[-1].filename}:{own[-1].lineno})" if own else ""


def _user_inputs(exported: ExportedProgram) -> list[FxNode]:
    names = exported.graph_signature.user_inputs
    nodes = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    return [nodes[name] for name in names if isinstance(name, str) and name in nodes]


def _branches(exported: ExportedProgram) -> Axes:
    """The input axes on whose sizes Python code outside torch branches: (number of the input, axis)."""
    axes: dict[sympy.Symbol, tuple[int, int]] = {}
    shape_env = None
    for number, node in enumerate(_user_inputs(exported)):
        for axis, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt):
                shape_env = size.node.shape_env
                for symbol in size.node.expr.free_symbols:
                    axes.setdefault(symbol, (number, axis))
    torch_folder = str(Path(torch.__file__).parent)
    found: set[tuple[int, int]] = set()
    for guard in () if shape_env is None else shape_env.guards:
        place = guard.sloc.framework_loc
        if not isinstance(place, str) and place and not place.filename.startswith(torch_folder):
            found |= {axes[symbol] for symbol in guard.expr.free_symbols if symbol in axes}
    return frozenset(found)
