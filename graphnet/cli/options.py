"""Options that several commands have; of a compilation, one entry for each, under the name of its field.

What a field of a compilation does and which values it has, says graphnet.CompileOptions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from graphnet.errors import DescriptionError, InputError

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
    "saved_dtype": {"help": "bfloat16: the dtype of what is saved for the reverse pass."},
    "memory": {
        "metavar": "SIZE",
        "help": "Bound on the peak of memory: 2GiB, or 50% of what is needed without it.",
    },
    "without": {
        "metavar": "PASS",
        "multiple": True,
        "help": "Switch a pass off; see graphnet explain --passes.",
    },
    "autotune": {"is_flag": True, "default": None, "help": "Choose kernels by timing them."},
}


def compile_options(
    *names: str, **defaults: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options of a compilation, all without a name.

    The command gets them as one argument, `options`: a mapping of the fields that were given, or have one
    of the defaults. `make_options` makes CompileOptions of it.
    """
    chosen = names or tuple(_OPTIONS)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def collect(**arguments: Any) -> None:
            given = {name: arguments.pop(name) for name in chosen}
            given = {name: value for name, value in given.items() if value not in (None, ())}
            command(**arguments, options={**defaults, **given})

        for name in reversed(chosen):
            option = click.option(
                flag(name), name, show_default=defaults.get(name, False), **_OPTIONS[name]
            )
            option(collect)
        return collect

    return decorate


def flag(field: str) -> str:
    """The option on the command line that sets a field.

    >>> flag("saved_dtype")
    '--saved-dtype'
    """
    return f"--{field.replace('_', '-')}"


def make_options(fields: Mapping[str, object]) -> CompileOptions:
    """CompileOptions with these fields.

    Raises DescriptionError, which names the options as the command line has them.
    """
    from graphnet.plan import CompileOptions

    try:
        return CompileOptions(**fields)  # type: ignore[arg-type]  # checked when it is made
    except DescriptionError as error:
        raise DescriptionError(
            [replace(problem, path=flag(problem.path)) for problem in error.problems]
        ) from None


def parse_shape(text: str) -> tuple[int, ...]:
    """ "32x3x32x32" as numbers. Raises InputError for anything else.

    >>> parse_shape("1x3x8x8")
    (1, 3, 8, 8)
    """
    parts = text.lower().split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--input: expected a shape such as 32x3x32x32, found {text!r}")
    return tuple(int(part) for part in parts)


def input_shapes(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--input NxCxHxW`, once for each input of a model; it gets them as `shapes`."""
    return click.option(
        "--input",
        "shapes",
        multiple=True,
        required=True,
        metavar="NxCxHxW",
        callback=lambda _context, _option, texts: [parse_shape(text) for text in texts],
        help="Shape of an input, one each.",
    )(command)


def on_every_output(loss: str | None, model: Model) -> dict[str, str]:
    """A loss for each output of a model: the one of this name, else the first that is registered."""
    return dict.fromkeys(model.outputs, loss or next(iter(model.registry.losses)))
