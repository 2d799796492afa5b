"""Options of several commands; those of a compilation have the names of their fields.

graphnet.CompileOptions documents the fields of a compilation and their values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from graphnet.errors import DescriptionError, InputError, shown
from graphnet.system import whole_number

if TYPE_CHECKING:
    from graphnet.model import Model
    from graphnet.plan import CompileOptions

_OPTIONS: dict[str, dict[str, Any]] = {
    "device": {"help": "auto, cpu, cuda or cuda:N."},
    "precision": {"help": "auto, float32, float64; bfloat16 or float16 where layers declare it."},
    "kernels": {
        "metavar": "NAME",
        "help": "auto, reference, or a namespace of kernels such as aten.",
    },
    "saved_dtype": {"help": "The dtype of values that are saved for the reverse pass: bfloat16."},
    "memory": {
        "metavar": "SIZE",
        "help": "A bound on memory: 2GiB, or 50% of the peak without this option.",
    },
    "without": {
        "metavar": "PASS",
        "multiple": True,
        "help": "Switch a pass off; see graphnet explain --passes.",
    },
}


def compile_options(
    *names: str, **defaults: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add options of a compilation to a command; without names, add all of them.

    The command receives one argument, `options`: a mapping with the fields that were given or have a default.
    `make_options` makes CompileOptions from it.
    """
    chosen = names or tuple(_OPTIONS)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def collect(**arguments: Any) -> Any:
            given = {name: arguments.pop(name) for name in chosen}
            given = {name: value for name, value in given.items() if value not in (None, ())}
            return command(**arguments, options={**defaults, **given})

        for name in reversed(chosen):
            option = click.option(
                flag(name), name, show_default=defaults.get(name, False), **_OPTIONS[name]
            )
            option(collect)
        return collect

    return decorate


def flag(field: str) -> str:
    """Return the option of the command line that sets a field.

    >>> flag("saved_dtype")
    '--saved-dtype'
    """
    return f"--{field.replace('_', '-')}"


def make_options(fields: Mapping[str, object]) -> CompileOptions:
    """Make CompileOptions with these fields.

    Raises DescriptionError if a value does not fit; the error names the option of the command line.
    """
    from graphnet.plan import CompileOptions

    try:
        return CompileOptions(**fields)  # type: ignore[arg-type]  # CompileOptions checks the types
    except DescriptionError as error:
        raise DescriptionError(
            [replace(problem, path=flag(problem.path)) for problem in error.problems]
        ) from None


def parse_shape(text: str) -> tuple[int, ...]:
    """Read a shape from a text; raises InputError if the text is not a shape.

    >>> parse_shape("1x3x8x8")
    (1, 3, 8, 8)
    """
    sizes = [whole_number(part) or 0 for part in text.lower().split("x")]
    if not all(sizes):
        raise InputError(f"--input: expected a shape such as 32x3x32x32, found {shown(text)}")
    return tuple(sizes)


def input_shapes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option `--input NxCxHxW`, once for each input; the command receives them as `shapes`."""
    return click.option(
        "--input",
        "shapes",
        multiple=True,
        required=True,
        metavar="NxCxHxW",
        callback=lambda _context, _option, texts: [parse_shape(text) for text in texts],
        help="The shape of an input; once for each input.",
    )(command)


def on_every_output(loss: str | None, model: Model) -> dict[str, str]:
    """Return the same loss for each output of a model: the named one, or the first registered one."""
    return dict.fromkeys(model.outputs, loss or next(iter(model.registry.losses)))
